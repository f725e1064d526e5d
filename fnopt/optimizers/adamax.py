"""Adamax: Adam with the largest recent gradient in place of the root mean square; AdamaxW decays.

    m ← β₁m + (1−β₁)g                 m̂ = m / (1−β₁ᵗ)
    s ← max(β₂s, |g| + ε)
    θ ← θ − η (m̂ / s + λθ)

Good for: sparse or bursty gradients, as embeddings have; elsewhere Adam does as well.
Caveat: the paper has no ε; it is added to |g|, as in PyTorch and optax, so that s is never 0.
AdamaxW's decay is scaled by the learning rate.
Memory: two values per parameter; one with b1=0.
Source: Kingma and Ba 2014, arXiv 1412.6980, section 7.1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Decay, LearningRate, NonNegative
from fnopt.transforms.decay import add_decayed_weights
from fnopt.transforms.scaling import scale_by_learning_rate


class AdamaxState(NamedTuple):
    """The count, int32 (); m, like the params, None for a static b1 of 0; s, real, like them."""

    count: Any
    mu: Any
    nu: Any


@gradient_transformation
def scale_by_adamax(b1: Decay = 0.9, b2: Decay = 0.999, eps: NonNegative = 1e-8) -> Any:
    """u ← m̂ / s, with s ← max(β₂s, |g| + ε); 0 where s is 0.

    Args:
      b1: β₁ in [0, 1), the decay of the mean. A static 0 keeps no mean.
      b2: β₂ in [0, 1), the decay of the maximum.
      eps: ε, added to |g|.

    Memory: two values per parameter; one with b1=0.
    """
    no_mean = tree.is_static_zero(b1)

    def init(params: Any) -> AdamaxState:
        mu = None if no_mean else tree.zeros_like(params)
        return AdamaxState(tree.zero_count(), mu, tree.real_zeros_like(params))

    def update(updates: Any, state: AdamaxState) -> Any:
        t = tree.increment(state.count)
        c1 = tree.debias(b1, t)

        def step(g: jax.Array, m: jax.Array | None, s: jax.Array) -> tuple[Any, ...]:
            g = tree.saturate(g)
            s = jnp.maximum(b2 * s, jnp.abs(g) + eps)
            m = g if m is None else b1 * m + (1 - b1) * g
            return c1 * m / jnp.maximum(s, float(jnp.finfo(s.dtype).tiny)), m, s

        mu = tree.nones_like(updates) if no_mean else state.mu
        updates, mu, nu = tree.map(step, updates, mu, state.nu, outputs=3)
        return updates, AdamaxState(t, None if no_mean else mu, nu)

    return init, update


@composition
def adamax(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
) -> GradientTransformation:
    """Adamax.

    Args:
      learning_rate: η ≥ 0.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      eps: ε, added to |g|.

    >>> import fnopt
    >>> fnopt.adamax(2e-3)
    adamax(learning_rate=0.002, b1=0.9, b2=0.999, eps=1e-08)
    """
    return chain(scale_by_adamax(b1, b2, eps), scale_by_learning_rate(learning_rate))


@composition
def adamaxw(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 1e-4,
    mask: Any = None,
) -> GradientTransformation:
    """Adamax with decoupled weight decay.

    Args:
      learning_rate: η ≥ 0.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      eps: ε, added to |g|.
      weight_decay: λ ≥ 0, multiplied by the learning rate.
      mask: which leaves decay: a tree of bools with the params' structure or a prefix of it, or a
        function of the params that returns one.

    >>> import fnopt
    >>> fnopt.adamaxw(2e-3, weight_decay=0.1)
    adamaxw(learning_rate=0.002, b1=0.9, b2=0.999, eps=1e-08, weight_decay=0.1)
    """
    return chain(
        scale_by_adamax(b1, b2, eps),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
