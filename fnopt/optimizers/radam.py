"""RAdam: Adam that waits until its second moment can be trusted, in place of a warm-up.

    m ← β₁m + (1−β₁)g                 m̂ = m / (1−β₁ᵗ)
    v ← β₂v + (1−β₂)g²
    ρ∞ = 2/(1−β₂) − 1                 ρₜ = ρ∞ − 2tβ₂ᵗ/(1−β₂ᵗ)
    rₜ = √[(ρₜ−4)(ρₜ−2)ρ∞ / ((ρ∞−4)(ρ∞−2)ρₜ)]
    θ ← θ − η rₜ √(1−β₂ᵗ) m̂ / (√v + ε)           where ρₜ ≥ 5
    θ ← θ − η m̂                                   before

Good for: Adam without a warm-up to tune.
Caveat: the first steps (five with β₂ = 0.999) are gradient descent with momentum at the rate η,
which may be far too much for large gradients. ε stands beside √v, as in the authors' code and
PyTorch; optax has it beside √(v/(1−β₂ᵗ)), and loses ρₜ to cancellation where β₂ > 0.999.
Memory: two values per parameter; one with b1=0.
Source: Liu et al. 2019, arXiv 1908.03265, and its authors' code for the threshold 5 (the paper
has 4).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Decay, LearningRate, NonNegative, Positive
from fnopt.transforms.scaling import scale_by_learning_rate


class RadamState(NamedTuple):
    """The count, int32 (); m, like the params, None for a static b1 of 0; v, real, like them."""

    count: Any
    mu: Any
    nu: Any


def remainder(y: Any) -> Any:
    """1 − coth(y) + 1/y for y > 0, without the cancellations at small and at large y."""
    fraction: Any = 23.0
    small, large = jnp.minimum(y, 1.0), jnp.maximum(y, 1.0)
    for k in range(21, 1, -2):
        fraction = k + small * small / fraction
    return jnp.where(y < 1.0, 1 - small / fraction, 1 / large - 2 / jnp.expm1(2 * large))


def degrees_of_freedom(b2: Any, t: jax.Array) -> tuple[Any, Any]:
    """(ρₜ, ρ∞), each to full precision.

    With L = −log β₂ it is ρ∞ = coth(L/2) and ρₜ = ρ∞ + t − t·coth(tL/2), where the large parts
    2/L cancel and are left out.
    """
    if tree.is_static_zero(b2):
        return 1.0, 1.0
    time = tree.weak(t.astype(jnp.result_type(float)))
    half = -0.5 * (math.log(b2) if isinstance(b2, float) else jnp.log(b2))
    rest = 1 - remainder(half)
    return time * remainder(time * half) + rest, 1 / half + rest


def rectification(b2: Any, t: jax.Array, threshold: Any) -> tuple[Any, Any]:
    """(whether ρₜ has reached the threshold, rₜ), the latter 1 before."""
    now, limit = degrees_of_freedom(b2, t)
    ready = (now >= threshold) & (now > 4.0)
    now, limit = jnp.where(ready, now, 5.0), jnp.where(ready, limit, 5.0)
    return ready, jnp.sqrt((now - 4) / (limit - 4) * (now - 2) / (limit - 2) * limit / now)


@gradient_transformation
def scale_by_radam(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    threshold: Positive = 5.0,
    *,
    nesterov: bool = False,
) -> Any:
    """u ← rₜ m̂ / (√(v̂ + eps_root) + ε/√(1−β₂ᵗ)) where ρₜ ≥ threshold, else m̂.

    Args:
      b1: β₁ in [0, 1), the decay of the mean. A static 0 keeps no mean.
      b2: β₂ in [0, 1), the decay of the mean square.
      eps: ε, outside the root.
      eps_root: added to v̂ inside the root, for derivatives through the update.
      threshold: the least ρₜ to divide by the second moment; ρₜ must be above 4 as well.
      nesterov: let the mean look one step ahead.

    Memory: two values per parameter; one with b1=0.
    """
    no_mean = tree.is_static_zero(b1)

    def init(params: Any) -> RadamState:
        mu = None if no_mean else tree.zeros_like(params)
        return RadamState(tree.zero_count(), mu, tree.real_zeros_like(params))

    def update(updates: Any, state: RadamState) -> Any:
        t = tree.increment(state.count)
        c1 = tree.debias(b1, t)
        c2 = tree.debias(b2, t)
        c1_next = tree.debias(b1, tree.increment(t))
        ready, r = rectification(b2, t, threshold)
        eps_t = eps * jnp.sqrt(c2)

        def step(g: jax.Array, m: jax.Array | None, v: jax.Array) -> tuple[Any, ...]:
            v = b2 * v + (1 - b2) * tree.squared(g)
            g = tree.saturate(g)
            m = g if m is None else b1 * m + (1 - b1) * g
            m_hat = b1 * c1_next * m + (1 - b1) * c1 * g if nesterov else c1 * m
            root = tree.sqrt(c2 * v + eps_root) + eps_t
            return r * m_hat / jnp.where(ready, root, jnp.ones_like(root)), m, v

        mu = tree.nones_like(updates) if no_mean else state.mu
        updates, mu, nu = tree.map(step, updates, mu, state.nu, outputs=3)
        return updates, RadamState(t, None if no_mean else mu, nu)

    return init, update


@composition
def radam(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    threshold: Positive = 5.0,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    """Rectified Adam.

    Args:
      learning_rate: η ≥ 0.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      eps: ε, outside the root.
      eps_root: added inside the root.
      threshold: the least ρₜ to divide by the second moment.
      nesterov: let the mean look one step ahead.

    >>> import fnopt
    >>> fnopt.radam(1e-3, threshold=6.0)
    radam(learning_rate=0.001, b1=0.9, b2=0.999, eps=1e-08, eps_root=0.0, threshold=6.0)
    """
    return chain(
        scale_by_radam(b1, b2, eps, eps_root, threshold, nesterov=nesterov),
        scale_by_learning_rate(learning_rate),
    )
