"""Adam: momentum's averaged direction over RMSprop's averaged size, both freed from their start.

    m ← β₁m + (1−β₁)g                 m̂ = m / (1−β₁ᵗ)
    v ← β₂v + (1−β₂)g²                v̂ = v / (1−β₂ᵗ)
    θ ← θ − η m̂ / (√v̂ + ε)

With `nesterov`, m̂ looks one step ahead: β₁m/(1−β₁ᵗ⁺¹) + (1−β₁)g/(1−β₁ᵗ).

Good for: almost any network, as the first thing to try; it needs little tuning.
Caveat: ε stands outside the root (`eps_root` inside); with it at 1e-8 a parameter with tiny
gradients moves as far as any other. Weight decay added to g is not `adamw`.
Memory: two values per parameter; one with b1=0.
Source: Kingma and Ba 2014, arXiv 1412.6980; Dozat 2016 for the Nesterov form.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from fnopt import tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Decay, LearningRate, NonNegative
from fnopt.storage import StoredMean
from fnopt.transforms.scaling import scale_by_learning_rate


class AdamState(NamedTuple):
    """The count, int32 (); m, like the params, None for a static b1 of 0; v, real, like them."""

    count: Any
    mu: Any
    nu: Any


@gradient_transformation
def scale_by_adam(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: StoredMean = None,
    *,
    nesterov: bool = False,
) -> Any:
    """u ← m̂ / (√(v̂ + eps_root) + ε).

    Args:
      b1: β₁ in [0, 1), the decay of the mean. A static 0 keeps no mean.
      b2: β₂ in [0, 1), the decay of the mean square.
      eps: ε, outside the root.
      eps_root: added inside the root, for derivatives through the update.
      mu_dtype: the dtype or codec that m is stored in, as in `store`; None for the compute dtype,
        which is that of the arithmetic in any case.
      nesterov: let the mean look one step ahead.

    Memory: two values per parameter; one with b1=0.
    """
    no_mean = tree.is_static_zero(b1)

    def init(params: Any) -> AdamState:
        mu = None if no_mean else tree.zeros_like(params)
        return AdamState(tree.zero_count(), mu, tree.real_zeros_like(params))

    def update(updates: Any, state: AdamState) -> Any:
        t = tree.increment(state.count)
        c1 = tree.debias(b1, t)
        c2 = tree.debias(b2, t)
        c1_next = tree.debias(b1, tree.increment(t))

        def step(g: jax.Array, m: jax.Array | None, v: jax.Array) -> tuple[Any, ...]:
            v = b2 * v + (1 - b2) * tree.squared(g)
            g = tree.saturate(g)
            m = g if m is None else b1 * m + (1 - b1) * g
            m_hat = b1 * c1_next * m + (1 - b1) * c1 * g if nesterov else c1 * m
            return m_hat / (tree.sqrt(c2 * v + eps_root) + eps), m, v

        mu = tree.nones_like(updates) if no_mean else state.mu
        updates, mu, nu = tree.map(step, updates, mu, state.nu, outputs=3)
        return updates, AdamState(t, None if no_mean else mu, nu)

    return init, update


@composition
def adam(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: StoredMean = None,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    """Adam.

    Args:
      learning_rate: η ≥ 0.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      eps: ε, outside the root.
      eps_root: added inside the root.
      mu_dtype: the dtype or codec that m is stored in, as in `store`; None for the compute dtype.
      nesterov: let the mean look one step ahead.

    >>> import fnopt
    >>> fnopt.adam(1e-3, b2=0.99)
    adam(learning_rate=0.001, b1=0.9, b2=0.99, eps=1e-08, eps_root=0.0)
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
        scale_by_learning_rate(learning_rate),
    )
