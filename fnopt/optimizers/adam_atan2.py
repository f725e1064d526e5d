"""Adam-atan2: Adam without ε, its quotient bent into an angle that cannot grow without bound.

    m ← β₁m + (1−β₁)g                 m̂ = m / (1−β₁ᵗ)
    v ← β₂v + (1−β₂)g²                v̂ = v / (1−β₂ᵗ)
    θ ← θ − η (a·atan2(m̂, b√v̂) + λθ)

Scaling the loss changes nothing, however small the gradients, and 0/0 is 0.

Good for: losses of any scale, and low precision, where ε would have to be tuned.
Caveat: a = 4/π makes the step 1 where m̂ = √v̂, b = 1; a step is never longer than aπ/2 = 2. For
|m̂| much smaller than √v̂ it is a/b times Adam's.
Memory: two values per parameter; one with b1=0.
Source: Everett et al. 2024, arXiv 2407.05872.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Decay, LearningRate, NonNegative, Positive
from fnopt.transforms.decay import add_decayed_weights
from fnopt.transforms.scaling import scale_by_learning_rate


class AdamAtan2State(NamedTuple):
    """The count, int32 (); m, like the params, None for a static b1 of 0; v, real, like them."""

    count: Any
    mu: Any
    nu: Any


def _angle(top: jax.Array, bottom: jax.Array) -> jax.Array:
    """atan2(top, bottom) for bottom > 0; a complex top keeps its direction."""
    ratio = top / bottom
    if not jnp.iscomplexobj(top):
        return jnp.arctan(ratio)
    size = jnp.maximum(jnp.abs(ratio), float(jnp.finfo(bottom.dtype).tiny))
    return ratio * (jnp.arctan(size) / size)


@gradient_transformation
def scale_by_adam_atan2(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    *,
    a: Positive = 4 / math.pi,
    b: Positive = 1.0,
) -> Any:
    """u ← a·atan2(m̂, b√v̂).

    Args:
      b1: β₁ in [0, 1), the decay of the mean. A static 0 keeps no mean.
      b2: β₂ in [0, 1), the decay of the mean square.
      a: the factor of the angle.
      b: the factor of √v̂.

    Memory: two values per parameter; one with b1=0.
    """
    no_mean = tree.is_static_zero(b1)

    def init(params: Any) -> AdamAtan2State:
        mu = None if no_mean else tree.zeros_like(params)
        return AdamAtan2State(tree.zero_count(), mu, tree.real_zeros_like(params))

    def update(updates: Any, state: AdamAtan2State) -> Any:
        t = tree.increment(state.count)
        c1 = tree.debias(b1, t)
        c2 = b * b * tree.debias(b2, t)

        def step(g: jax.Array, m: jax.Array | None, v: jax.Array) -> tuple[Any, ...]:
            v = b2 * v + (1 - b2) * tree.squared(g)
            g = tree.saturate(g)
            m = g if m is None else b1 * m + (1 - b1) * g
            return a * _angle(c1 * m, tree.sqrt(c2 * v)), m, v

        mu = tree.nones_like(updates) if no_mean else state.mu
        updates, mu, nu = tree.map(step, updates, mu, state.nu, outputs=3)
        return updates, AdamAtan2State(t, None if no_mean else mu, nu)

    return init, update


@composition
def adam_atan2(
    learning_rate: LearningRate,
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    a: Positive = 4 / math.pi,
    b: Positive = 1.0,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
) -> GradientTransformation:
    """Adam-atan2.

    Args:
      learning_rate: η ≥ 0.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      a: the factor of the angle.
      b: the factor of √v̂.
      weight_decay: λ ≥ 0, multiplied by the learning rate.
      mask: which leaves decay: a tree of bools with the params' structure or a prefix of it, or a
        function of the params that returns one.

    >>> import fnopt
    >>> fnopt.adam_atan2(1e-3, a=1.27)
    adam_atan2(learning_rate=0.001, b1=0.9, b2=0.999, a=1.27, b=1.0, weight_decay=0.0)
    """
    return chain(
        scale_by_adam_atan2(b1, b2, a=a, b=b),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
