"""COCOB-Backprop: each coordinate bets a part of what it has won on the sign of its gradient.

    L ← max(L, |g|)                   the largest bet so far, from ε
    G ← G + |g|
    R ← max(R − g(θ − θ₀), 0)         the reward
    C ← C − g
    θ ← θ₀ + C / (L max(G + L, αL)) · (L + R)

There is no rate: the scale of g drops out.

Good for: convex problems and small networks when no rate may be tuned.
Caveat: `learning_rate` multiplies g before the betting, so a constant one changes nothing but ε's
part; a schedule weighs the steps. Weight decay is added to g. The iterates stay where the sums
lead them: an update changed by a later transformation is taken back by the next step.
Memory: five values per parameter.
Source: Orabona and Tommasi 2017, arXiv 1705.07795, algorithm 2.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import LearningRate, NonNegative, Positive
from fnopt.transforms.decay import add_decayed_weights
from fnopt.transforms.scaling import scale_by_learning_rate


class CocobState(NamedTuple):
    """θ₀ and C, like the params; L, G and R, real, like them."""

    start: Any
    gradient_sum: Any
    largest: Any
    size_sum: Any
    reward: Any


@gradient_transformation
def scale_by_cocob(alpha: Positive = 100.0, eps: Positive = 1e-8) -> Any:
    """u ← θ₀ + C / (L max(G + L, αL)) · (L + R) − θ: the whole step, ready to be added.

    Args:
      alpha: α, which limits the first bets to 1/α of the wealth.
      eps: ε > 0, the least L.

    Memory: five values per parameter.
    """

    def init(params: Any) -> CocobState:
        zeros = [tree.real_zeros_like(params) for _ in range(3)]
        return CocobState(params, tree.zeros_like(params), *zeros)

    def step(
        g: jax.Array,
        p: jax.Array,
        p0: jax.Array,
        c: jax.Array,
        most: jax.Array,
        total: jax.Array,
        reward: jax.Array,
    ) -> tuple[Any, ...]:
        g = tree.saturate(g)
        size = jnp.abs(g)
        most = jnp.maximum(most, size)
        total = total + size
        reward = jnp.maximum(reward - jnp.real(jnp.conj(g) * (p - p0)), 0.0)
        c = c - g
        unit = jnp.maximum(most, eps)
        bet = c / unit / jnp.maximum(total + unit, alpha * unit) * (unit + reward)
        return (p0 - p) + bet, c, most, total, reward

    def update(updates: Any, state: CocobState, params: Any) -> Any:
        updates, *new = tree.map(step, updates, params, *state, outputs=5)
        return updates, CocobState(state.start, *new)

    return init, update


@composition
def cocob(
    learning_rate: LearningRate = 1.0,
    alpha: Positive = 100.0,
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
) -> GradientTransformation:
    """Stochastic gradient descent by coin betting, without a rate.

    Args:
      learning_rate: η ≥ 0, multiplies the gradients before the betting.
      alpha: α, which limits the first bets to 1/α of the wealth.
      eps: ε > 0, the least L.
      weight_decay: λ ≥ 0, added to the gradient as λθ.
      mask: which leaves decay: a tree of bools with the params' structure or a prefix of it, or a
        function of the params that returns one.

    >>> import fnopt
    >>> fnopt.cocob()
    cocob(learning_rate=1.0, alpha=100.0, eps=1e-08, weight_decay=0.0)
    """
    return chain(
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate, flip_sign=False),
        scale_by_cocob(alpha, eps),
    )
