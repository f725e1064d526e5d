"""NAdam: Adam with Nesterov's look-ahead; NAdamW with the decay taken out of the moments.

    m ← β₁m + (1−β₁)g                 m̂ = β₁m / (1−β₁ᵗ⁺¹) + (1−β₁)g / (1−β₁ᵗ)
    v ← β₂v + (1−β₂)g²                v̂ = v / (1−β₂ᵗ)
    θ ← θ − η (m̂ / (√v̂ + ε) + λθ)

With `momentum_decay` ψ the look-ahead is warmed up, as Dozat proposes and PyTorch does (ψ = 4e-3):

    μₜ = β₁(1 − ½·0.96^(tψ))          πₜ = μ₁μ₂⋯μₜ
    m̂ = μₜ₊₁m / (1−πₜ₊₁) + (1−μₜ)g / (1−πₜ)

Good for: wherever Adam is; NAdamW is the baseline of the AlgoPerf benchmark (arXiv 2502.15015).
Caveat: by default μ is constant, as in optax; a run moved over from PyTorch wants
`momentum_decay=4e-3`. NAdamW's decay is scaled by the learning rate.
Memory: two values per parameter; one with b1=0.
Source: Dozat 2016, ICLR workshop.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Decay, LearningRate, NonNegative
from fnopt.optimizers.adam import scale_by_adam
from fnopt.storage import StoredMean
from fnopt.transforms.decay import add_decayed_weights
from fnopt.transforms.scaling import scale_by_learning_rate


class NadamState(NamedTuple):
    """The count, int32 (); π, float (); m, like the params, or None; v, real, like them."""

    count: Any
    product: Any
    mu: Any
    nu: Any


@gradient_transformation
def scale_by_nadam(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: StoredMean = None,
    *,
    momentum_decay: NonNegative = 4e-3,
) -> Any:
    """u ← m̂ / (√(v̂ + eps_root) + ε), m̂ with the warmed-up look-ahead.

    Args:
      b1: β₁ in [0, 1), the decay of the mean and the limit of μ. A static 0 keeps no mean.
      b2: β₂ in [0, 1), the decay of the mean square.
      eps: ε, outside the root.
      eps_root: added inside the root, for derivatives through the update.
      mu_dtype: the dtype or codec that m is stored in, as in `store`; None for the compute dtype.
      momentum_decay: ψ, how fast μ rises to β₁; at 0 it stays at β₁/2.

    Memory: two values per parameter; one with b1=0.
    """
    no_mean = tree.is_static_zero(b1)

    def init(params: Any) -> NadamState:
        mu = None if no_mean else tree.zeros_like(params)
        one = jnp.ones((), jnp.result_type(float))
        return NadamState(tree.zero_count(), one, mu, tree.real_zeros_like(params))

    def momentum(t: jax.Array) -> Any:
        time = tree.weak(t.astype(jnp.result_type(float)))
        return b1 * (1 - 0.5 * 0.96 ** (time * momentum_decay))

    def update(updates: Any, state: NadamState) -> Any:
        t = tree.increment(state.count)
        now, later = momentum(t), momentum(tree.increment(t))
        product = tree.weak(state.product) * now
        of_g, of_m = (1 - now) / (1 - product), later / (1 - product * later)
        c2 = tree.debias(b2, t)

        def step(g: jax.Array, m: jax.Array | None, v: jax.Array) -> tuple[Any, ...]:
            v = b2 * v + (1 - b2) * tree.squared(g)
            g = tree.saturate(g)
            m = g if m is None else b1 * m + (1 - b1) * g
            return (of_m * m + of_g * g) / (tree.sqrt(c2 * v + eps_root) + eps), m, v

        mu = tree.nones_like(updates) if no_mean else state.mu
        updates, mu, nu = tree.map(step, updates, mu, state.nu, outputs=3)
        kept = product.astype(state.product.dtype)
        return updates, NadamState(t, kept, None if no_mean else mu, nu)

    return init, update


def _rule(
    b1: Any,
    b2: Any,
    eps: Any,
    eps_root: Any,
    mu_dtype: Any,
    nesterov: bool,
    momentum_decay: Any,
) -> GradientTransformation:
    if momentum_decay is None:
        return scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov)
    if not nesterov:
        raise ValueError("nadam: momentum_decay is a schedule of the look-ahead: nesterov=True")
    return scale_by_nadam(b1, b2, eps, eps_root, mu_dtype, momentum_decay=momentum_decay)


@composition
def nadam(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: StoredMean = None,
    *,
    nesterov: bool = True,
    momentum_decay: NonNegative | None = None,
) -> GradientTransformation:
    """NAdam.

    Args:
      learning_rate: η ≥ 0.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      eps: ε, outside the root.
      eps_root: added inside the root.
      mu_dtype: the dtype or codec that m is stored in, as in `store`; None for the compute dtype.
      nesterov: False is Adam.
      momentum_decay: ψ of the warm-up of the look-ahead; None for none.

    >>> import fnopt
    >>> fnopt.nadam(1e-3)
    nadam(learning_rate=0.001, b1=0.9, b2=0.999, eps=1e-08, eps_root=0.0, nesterov=True)
    """
    return chain(
        _rule(b1, b2, eps, eps_root, mu_dtype, nesterov, momentum_decay),
        scale_by_learning_rate(learning_rate),
    )


@composition
def nadamw(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: StoredMean = None,
    weight_decay: NonNegative = 1e-4,
    mask: Any = None,
    *,
    nesterov: bool = True,
    momentum_decay: NonNegative | None = None,
) -> GradientTransformation:
    """NAdam with decoupled weight decay.

    Args:
      learning_rate: η ≥ 0.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      eps: ε, outside the root.
      eps_root: added inside the root.
      mu_dtype: the dtype or codec that m is stored in, as in `store`; None for the compute dtype.
      weight_decay: λ ≥ 0, multiplied by the learning rate.
      mask: which leaves decay: a tree of bools with the params' structure or a prefix of it, or a
        function of the params that returns one.
      nesterov: False is AdamW.
      momentum_decay: ψ of the warm-up of the look-ahead; None for none.

    >>> import fnopt
    >>> fnopt.nadamw(1e-3, weight_decay=0.1).arguments.arguments["weight_decay"]
    0.1
    """
    return chain(
        _rule(b1, b2, eps, eps_root, mu_dtype, nesterov, momentum_decay),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
