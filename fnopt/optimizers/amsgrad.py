"""AMSGrad: Adam whose second moment never falls.

    m ← β₁m + (1−β₁)g                 m̂ = m / (1−β₁ᵗ)
    v ← β₂v + (1−β₂)g²
    s ← max(s, v)                     ŝ = s / (1−β₂ᵗ)
    θ ← θ − η m̂ / (√ŝ + ε)

A rare large gradient is remembered for good, which mends an example on which Adam diverges.

Good for: rare large gradients that throw Adam off; elsewhere seldom better than Adam.
Caveat: the paper has no bias correction at all (`bias_correction_mu=False,
bias_correction_nu=False`). Corrected, the maximum is taken before the correction, as in PyTorch;
optax takes it after (`max_of_corrected=True`), so that the first gradient counts in full forever.
Memory: three values per parameter; two with b1=0.
Source: Reddi, Kale and Kumar 2018, arXiv 1904.09237.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Decay, LearningRate, NonNegative
from fnopt.storage import StoredMean
from fnopt.transforms.scaling import scale_by_learning_rate


class AmsgradState(NamedTuple):
    """The count, int32 (); m, like the params, or None; v and its maximum, real, like them."""

    count: Any
    mu: Any
    nu: Any
    nu_max: Any


@gradient_transformation
def scale_by_amsgrad(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: StoredMean = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    *,
    max_of_corrected: bool = False,
) -> Any:
    """u ← m̂ / (√(ŝ + eps_root) + ε), s being the largest second moment so far.

    Args:
      b1: β₁ in [0, 1), the decay of the mean. A static 0 keeps no mean.
      b2: β₂ in [0, 1), the decay of the mean square.
      eps: ε, outside the root.
      eps_root: added inside the root, for derivatives through the update.
      mu_dtype: the dtype or codec that m is stored in, as in `store`; None for the compute dtype.
      bias_correction_mu: divide m by 1−β₁ᵗ.
      bias_correction_nu: divide the second moment by 1−β₂ᵗ.
      max_of_corrected: take the maximum after that division instead of before it.

    Memory: three values per parameter; two with b1=0.
    """
    no_mean = tree.is_static_zero(b1)

    def init(params: Any) -> AmsgradState:
        mu = None if no_mean else tree.zeros_like(params)
        nu, nu_max = tree.real_zeros_like(params), tree.real_zeros_like(params)
        return AmsgradState(tree.zero_count(), mu, nu, nu_max)

    def update(updates: Any, state: AmsgradState) -> Any:
        t = tree.increment(state.count)
        c1 = tree.debias(b1, t) if bias_correction_mu else 1.0
        c2 = tree.debias(b2, t) if bias_correction_nu else 1.0
        before, after = (c2, 1.0) if max_of_corrected else (1.0, c2)

        def step(g: jax.Array, m: jax.Array | None, v: jax.Array, s: jax.Array) -> tuple[Any, ...]:
            v = b2 * v + (1 - b2) * tree.squared(g)
            s = jnp.maximum(s, before * v)
            g = tree.saturate(g)
            m = g if m is None else b1 * m + (1 - b1) * g
            return c1 * m / (tree.sqrt(after * s + eps_root) + eps), m, v, s

        mu = tree.nones_like(updates) if no_mean else state.mu
        updates, mu, nu, nu_max = tree.map(step, updates, mu, state.nu, state.nu_max, outputs=4)
        return updates, AmsgradState(t, None if no_mean else mu, nu, nu_max)

    return init, update


@composition
def amsgrad(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: StoredMean = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    *,
    max_of_corrected: bool = False,
) -> GradientTransformation:
    """AMSGrad.

    Args:
      learning_rate: η ≥ 0.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      eps: ε, outside the root.
      eps_root: added inside the root.
      mu_dtype: the dtype or codec that m is stored in, as in `store`; None for the compute dtype.
      bias_correction_mu: divide m by 1−β₁ᵗ.
      bias_correction_nu: divide the second moment by 1−β₂ᵗ.
      max_of_corrected: take the maximum after that division instead of before it.

    >>> import fnopt
    >>> fnopt.amsgrad(1e-3, bias_correction_mu=False, bias_correction_nu=False).name
    'amsgrad'
    """
    return chain(
        scale_by_amsgrad(
            b1,
            b2,
            eps,
            eps_root,
            mu_dtype,
            bias_correction_mu,
            bias_correction_nu,
            max_of_corrected=max_of_corrected,
        ),
        scale_by_learning_rate(learning_rate),
    )
