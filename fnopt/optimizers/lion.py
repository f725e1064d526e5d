"""Lion: the sign of an average, found by a search over programs.

    u ← sign(β₁m + (1−β₁)g)
    m ← β₂m + (1−β₂)g
    θ ← θ − η (u + λθ)

Every entry moves by η, whatever its gradient; sign(0) = 0.

Good for: vision and language models at half of AdamW's state. It wants its rate and decay tuned
anew, and can destabilize long runs (arXiv 2509.01440).
Caveat: the updates are larger than AdamW's, so the authors take a rate 3 to 10 times smaller and
a decay as many times larger. The decay is scaled by the learning rate unless
`decay="independent"` is asked for.
Memory: one value per parameter; none with b1=0, which is `sign_sgd`.
Source: Chen et al. 2023, arXiv 2302.06675.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Decay, LearningRate, NonNegative
from fnopt.storage import StoredMean
from fnopt.transforms.decay import decay_and_rate


class LionState(NamedTuple):
    """m, like the params; None for a static b1 of 0."""

    mu: Any


@gradient_transformation
def scale_by_lion(b1: Decay = 0.9, b2: Decay = 0.99, mu_dtype: StoredMean = None) -> Any:
    """u ← sign(β₁m + (1−β₁)g), with m ← β₂m + (1−β₂)g.

    Args:
      b1: β₁ in [0, 1), the share of the average in the update. A static 0 keeps no average.
      b2: β₂ in [0, 1), the decay of the average.
      mu_dtype: the dtype or codec that m is stored in, as in `store`; None for the compute dtype.

    Memory: one value per parameter; none with b1=0.
    """
    no_mean = tree.is_static_zero(b1)

    def init(params: Any) -> LionState:
        return LionState(None if no_mean else tree.zeros_like(params))

    def step(g: jax.Array, m: jax.Array) -> tuple[jax.Array, jax.Array]:
        g = tree.saturate(g)
        new = b2 * m + (1 - b2) * g
        if isinstance(b1, float) and isinstance(b2, float) and b2 >= b1:
            # β₁m + (1−β₁)g from the new average, so that no copy of the old one is kept
            return jnp.sign((b1 / b2) * new + (1 - b1 / b2) * g), new
        return jnp.sign(b1 * m + (1 - b1) * g), new

    def update(updates: Any, state: LionState) -> Any:
        if no_mean:
            return tree.map(jnp.sign, updates), state
        updates, mu = tree.map(step, updates, state.mu, outputs=2)
        return updates, LionState(mu)

    return init, update


@composition
def lion(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    mu_dtype: StoredMean = None,
    weight_decay: NonNegative = 1e-3,
    mask: Any = None,
    *,
    decay: str = "decoupled",
) -> GradientTransformation:
    """Lion, "evolved sign momentum".

    Args:
      learning_rate: η ≥ 0; the length of every entry's step.
      b1: β₁ in [0, 1), the share of the average in the update.
      b2: β₂ in [0, 1), the decay of the average.
      mu_dtype: the dtype or codec that m is stored in, as in `store`; None for the compute dtype.
      weight_decay: λ ≥ 0, multiplied by the learning rate unless `decay` is "independent".
      mask: which leaves decay: a tree of bools with the params' structure or a prefix of it, or a
        function of the params that returns one.
      decay: "decoupled"; "cautious" for entries that the step takes toward zero too; or
        "independent": λ of the weights at each step, whatever the rate, with λ at most 1.

    >>> import fnopt
    >>> fnopt.lion(1e-4, weight_decay=0.1, decay="cautious")
    lion(learning_rate=0.0001, b1=0.9, b2=0.99, weight_decay=0.1, decay='cautious')
    """
    rule = scale_by_lion(b1, b2, mu_dtype)
    return chain(rule, *decay_and_rate("lion", decay, learning_rate, weight_decay, mask))
