"""LaProp: RMSprop first, momentum after, so that neither can spoil the other.

    v ← β₂v + (1−β₂)g²                v̂ = v / (1−β₂ᵗ)
    m ← β₁m + (1−β₁) g / (√v̂ + ε)     m̂ = m / (1−β₁ᵗ)
    θ ← θ − η (m̂ + λθ)

Adam gathers gradients and divides by the size of the last ones; this divides each by the size at
its time. It stays stable where β₁ > β₂, down to β₂ = 0, which is momentum of signs.

Good for: noisy gradients at a small β₂, by its authors' tests; elsewhere much like Adam.
Caveat: the rate stands outside m as in the paper; the authors' code gathers ηg/√v̂, so there a
change of rate comes in slowly. The decay is scaled by the learning rate.
Memory: two values per parameter; one with b1=0.
Source: Ziyin, Wang and Ueda 2020, arXiv 2002.04839.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from fnopt import tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Decay, LearningRate, NonNegative
from fnopt.transforms.decay import add_decayed_weights
from fnopt.transforms.scaling import scale_by_learning_rate


class LapropState(NamedTuple):
    """The count, int32 (); m, like the params, None for a static b1 of 0; v, real, like them."""

    count: Any
    mu: Any
    nu: Any


@gradient_transformation
def scale_by_laprop(b1: Decay = 0.9, b2: Decay = 0.999, eps: NonNegative = 1e-15) -> Any:
    """u ← m̂, the mean of g / (√v̂ + ε).

    Args:
      b1: β₁ in [0, 1), the decay of the mean. A static 0 keeps no mean.
      b2: β₂ in [0, 1), the decay of the mean square.
      eps: ε, outside the root.

    Memory: two values per parameter; one with b1=0.
    """
    no_mean = tree.is_static_zero(b1)

    def init(params: Any) -> LapropState:
        mu = None if no_mean else tree.zeros_like(params)
        return LapropState(tree.zero_count(), mu, tree.real_zeros_like(params))

    def update(updates: Any, state: LapropState) -> Any:
        t = tree.increment(state.count)
        c1 = tree.debias(b1, t)
        c2 = tree.debias(b2, t)

        def step(g: jax.Array, m: jax.Array | None, v: jax.Array) -> tuple[Any, ...]:
            v = b2 * v + (1 - b2) * tree.squared(g)
            n = tree.saturate(g) / (tree.sqrt(c2 * v) + eps)
            m = n if m is None else b1 * m + (1 - b1) * n
            return c1 * m, m, v

        mu = tree.nones_like(updates) if no_mean else state.mu
        updates, mu, nu = tree.map(step, updates, mu, state.nu, outputs=3)
        return updates, LapropState(t, None if no_mean else mu, nu)

    return init, update


@composition
def laprop(
    learning_rate: LearningRate,
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-15,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
) -> GradientTransformation:
    """LaProp.

    Args:
      learning_rate: η ≥ 0.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      eps: ε, outside the root.
      weight_decay: λ ≥ 0, multiplied by the learning rate.
      mask: which leaves decay: a tree of bools with the params' structure or a prefix of it, or a
        function of the params that returns one.

    >>> import fnopt
    >>> fnopt.laprop(4e-4)
    laprop(learning_rate=0.0004, b1=0.9, b2=0.999, eps=1e-15, weight_decay=0.0)
    """
    return chain(
        scale_by_laprop(b1, b2, eps),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
