"""D-Adapted AdamW: AdamW whose rate is a growing lower bound on the distance to the solution.

    ρ ← dη                            (· √(1−β₂ᵗ) / (1−β₁ᵗ) with `bias_correction`)
    r ← √β₂ r + (1−√β₂) ρ⟨g, s / (√v + ε)⟩     with s and v of the step before
    m ← β₁m + (1−β₁) ρg
    v ← β₂v + (1−β₂) g²
    s ← √β₂ s + (1−√β₂) ρg
    d ← max(d, min(r / ((1−√β₂) ‖s‖₁), d·growth))
    θ ← θ − m / (√v + ε) − ρλθ        ρ from the old d

d is one number for the whole tree. η is a factor on it: 1, or a schedule that ends at 0.

Good for: a first run without a tuned rate; `prodigy` is its successor.
Caveat: the bias correction is off as in the authors' code; optax has it on (`bias_correction`).
`prodigy` finds d in fewer steps.
Memory: three values per parameter.
Source: Defazio and Mishchenko 2023, arXiv 2301.07733, and its code, facebookresearch/dadaptation.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import reductions, tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.fusion import known_after, recompute
from fnopt.hyperparameters import Bound, Decay, Initial, LearningRate, NonNegative
from fnopt.transforms.scaling import scale


class DAdaptAdamWState(NamedTuple):
    """The count, int32 (); m, like the params; v, real, like them; s, like them; d and r, each a
    float scalar."""

    count: Any
    mu: Any
    nu: Any
    gradient_sum: Any
    d: Any
    numerator: Any


@gradient_transformation
def scale_by_dadapt_adamw(
    learning_rate: LearningRate = 1.0,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    estim_lr0: Initial = 1e-6,
    weight_decay: NonNegative = 0.0,
    *,
    growth_rate: Bound = math.inf,
    bias_correction: bool = False,
    axis_name: Any = None,
) -> Any:
    """u ← m / (√v + ε) + ρλθ: the whole step but for its sign. See `dadapt_adamw`.

    Args:
      b1: β₁, the first of its `betas`.
      b2: β₂, the second.

    Memory: three values per parameter.
    """
    if tree.is_static_zero(estim_lr0):
        raise ValueError("scale_by_dadapt_adamw: estim_lr0 must be above 0, got 0")
    b3 = b2**0.5

    def init(params: Any) -> DAdaptAdamWState:
        zero = jnp.zeros((), jnp.result_type(float))
        m, v, s = tree.zeros_like(params), tree.real_zeros_like(params), tree.zeros_like(params)
        return DAdaptAdamWState(tree.zero_count(), m, v, s, zero + estim_lr0, zero)

    def update(updates: Any, state: DAdaptAdamWState, params: Any) -> Any:
        t = tree.increment(state.count)
        d = tree.weak(state.d)
        rate = d * learning_rate
        if bias_correction:
            rate = rate * tree.bias_correction(b2, t) ** 0.5 / tree.bias_correction(b1, t)

        def ratio(gs: Any, v: Any, eps: Any, tiny: Any) -> Any:
            return gs / (jnp.sqrt(jnp.maximum(v, tiny)) + eps)

        def along(g: jax.Array, v: jax.Array, s: jax.Array) -> jax.Array:
            tiny = float(jnp.finfo(v.dtype).tiny)
            return recompute(ratio, jnp.real(jnp.conj(g) * s), v, eps, tiny)

        ahead = reductions.total(tree.map(along, updates, state.nu, state.gradient_sum), axis_name)
        rate, new = known_after(ahead, rate), known_after(ahead, 1 - b2)

        def gather(g: jax.Array, m: jax.Array, v: jax.Array, s: jax.Array) -> tuple[Any, ...]:
            v = b2 * v + new * tree.squared(g)
            m = b1 * m + (1 - b1) * (rate * tree.saturate(g))
            s = b3 * s + (1 - b3) * (rate * g)
            return m, v, s, jnp.abs(s)

        fields = state.mu, state.nu, state.gradient_sum
        numerator = b3 * tree.weak(state.numerator) + (1 - b3) * rate * ahead
        mu, nu, s, sizes = tree.map(gather, updates, *fields, outputs=4)
        size = (1 - b3) * reductions.total(sizes, axis_name)
        estimate = numerator / jnp.where(size == 0, 1.0, size)
        # min(estimate, d · growth_rate), with a finite derivative at an infinite growth rate
        grown = estimate / jnp.maximum(1.0, estimate / d * (1 / growth_rate))
        d_new = jnp.where(size == 0, d, jnp.maximum(d, grown))

        def step(m: jax.Array, v: jax.Array, p: jax.Array) -> jax.Array:
            u = m / (tree.sqrt(v) + eps)
            return u if tree.is_static_zero(weight_decay) else u + rate * weight_decay * p

        updates = tree.map(step, mu, nu, params)
        return updates, DAdaptAdamWState(t, mu, nu, s, d_new, numerator)

    return init, update


@composition
def dadapt_adamw(
    learning_rate: LearningRate = 1.0,
    betas: tuple[Any, Any] = (0.9, 0.999),
    eps: NonNegative = 1e-8,
    estim_lr0: Initial = 1e-6,
    weight_decay: NonNegative = 0.0,
    *,
    growth_rate: Bound = math.inf,
    bias_correction: bool = False,
    axis_name: Any = None,
) -> GradientTransformation:
    """AdamW with its rate found by D-Adaptation.

    Args:
      learning_rate: η ≥ 0, a factor on the rate that is found.
      betas: (β₁, β₂), each in [0, 1).
      eps: ε, outside the root.
      estim_lr0: d₀ > 0, where d starts: too small rather than too large.
      weight_decay: λ ≥ 0, decoupled, multiplied by ρ.
      growth_rate: the most by which d is multiplied in one step; infinite for no limit.
      bias_correction: multiply ρ by √(1−β₂ᵗ) / (1−β₁ᵗ).
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split.

    >>> import fnopt
    >>> fnopt.dadapt_adamw()  # doctest: +ELLIPSIS
    dadapt_adamw(learning_rate=1.0, betas=(0.9, 0.999), eps=1e-08, estim_lr0=1e-06, ...)
    """
    step = scale_by_dadapt_adamw(
        learning_rate,
        *betas,
        eps,
        estim_lr0,
        weight_decay,
        growth_rate=growth_rate,
        bias_correction=bias_correction,
        axis_name=axis_name,
    )
    return chain(step, scale(-1.0))
