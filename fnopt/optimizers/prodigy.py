"""Prodigy: AdamW that finds its own rate, from how far the gradients say the start was off.

    ρ  = dη                           (· √(1−β₂ᵗ) / (1−β₁ᵗ) with `bias_correction`)
    r ← β₃r + (d/d₀) ρ⟨g, θ₀ − θ⟩      s ← β₃s + (d/d₀) ρg
    m ← β₁m + (1−β₁) dg               v ← β₂v + (1−β₂) d²g²
    d̂ = c r / ‖s‖₁                    d' = d̂ may replace d while d = d₀, then only raise it
    θ ← θ − ρm / (√v + d'ε) − ρλθ     ρ from the old d

d is one number for the whole tree. η is a factor on it: 1, or a schedule that ends at 0.

Good for: runs without a tuned rate, with a cosine schedule from 1; in use for fine-tuning.
Caveat: the bias correction is off as in the authors' code; optax has it on (`bias_correction`).
With a warm-up set `safeguard_warmup`, which leaves η out of s. If d stays at d₀ raise `estim_lr0`;
if the run diverges lower `estim_lr_coef`.
Memory: four values per parameter; s and θ₀ shrink with `slice_p`.
Source: Mishchenko and Defazio 2023, arXiv 2306.06101, and github.com/konstmish/prodigy.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import mesh_axes, reductions, tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Bound, Decay, Initial, LearningRate, NonNegative, Positive
from fnopt.placement import every_nth
from fnopt.transforms.scaling import scale


class ProdigyState(NamedTuple):
    """The count, int32 (); m, like the params; v, real, like them; s and θ₀, like them or sliced;
    d, d's largest estimate and r, each a float scalar."""

    count: Any
    mu: Any
    nu: Any
    gradient_sum: Any
    start: Any
    d: Any
    d_max: Any
    numerator: Any


def _stride(x: jax.Array, slice_p: int, axis_name: Any) -> tuple[int, int]:
    """The axis and k ≤ slice_p of `sliced`."""
    shape = mesh_axes.whole_shape(x, axis_name)
    fits = [max((k for k in range(1, slice_p + 1) if n % k == 0), default=1) for n in shape]
    k = max(fits, default=1) if x.size else 1
    return (fits.index(k) if k > 1 else 0), k


def sliced(x: jax.Array, slice_p: int, axis_name: Any = None) -> jax.Array:
    """Every k-th entry along one axis: the axis and k ≤ slice_p with the largest k that fits.

    `axis_name` names the mesh axes over which x is split along its first axis. Where k does not
    divide a part's length, every device gets the entries of all parts.
    """
    axis, k = _stride(x, slice_p, axis_name)
    if k == 1:
        return x
    n = x.shape[axis]
    if n % k == 0:
        return every_nth(x, axis, n // k)
    axes = mesh_axes.split_axes(x, axis_name)
    size = mesh_axes.whole_shape(x, axis_name)[0] // k
    place = jax.lax.axis_index(axes) * n + jnp.arange(n)
    rows = jnp.where(place % k == 0, place // k, size)  # the others are dropped
    every = jnp.zeros((size, *x.shape[1:]), x.dtype).at[rows].set(x, mode="drop")
    return jax.lax.psum(every, axes)


def _once(x: jax.Array, leaf: jax.Array, slice_p: int, axis_name: Any) -> jax.Array:
    """x of a leaf's sliced entries, divided by the devices that it will be added up over if each
    has all of them."""
    axis, k = _stride(leaf, slice_p, axis_name)
    shared = leaf.ndim > 0 and leaf.shape[axis] % k > 0
    return x / mesh_axes.parts(x, axis_name) if shared else x


@gradient_transformation
def scale_by_prodigy(
    learning_rate: LearningRate = 1.0,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    beta3: Decay | None = None,
    eps: NonNegative = 1e-8,
    estim_lr0: Initial = 1e-6,
    estim_lr_coef: Positive = 1.0,
    weight_decay: NonNegative = 0.0,
    safeguard_warmup: bool = False,
    *,
    growth_rate: Bound = math.inf,
    slice_p: int = 1,
    bias_correction: bool = False,
    axis_name: Any = None,
) -> Any:
    """u ← ρm / (√v + d'ε) + ρλθ: the whole step but for its sign. See `prodigy`.

    Args:
      b1: β₁, the first of its `betas`.
      b2: β₂, the second.

    Memory: four values per parameter, less with `slice_p`.
    """
    b3 = b2**0.5 if beta3 is None else beta3
    if tree.is_static_zero(estim_lr0):
        raise ValueError("scale_by_prodigy: estim_lr0 must be above 0, got 0")
    if slice_p < 1:
        raise ValueError(f"scale_by_prodigy: slice_p must be at least 1, got {slice_p}")

    def init(params: Any) -> ProdigyState:
        start = tree.map(lambda p: sliced(p, slice_p, axis_name), params)
        zero = jnp.zeros((), jnp.result_type(float))
        d = zero + estim_lr0
        mu, nu = tree.zeros_like(params), tree.real_zeros_like(params)
        return ProdigyState(tree.zero_count(), mu, nu, tree.zeros_like(start), start, d, d, zero)

    def update(updates: Any, state: ProdigyState, params: Any) -> Any:
        t = tree.increment(state.count)
        d = tree.weak(state.d)
        rate = d * learning_rate
        if bias_correction:
            rate = rate * tree.bias_correction(b2, t) ** 0.5 / tree.bias_correction(b1, t)
        weight = d / estim_lr0 * (d if safeguard_warmup else rate)

        def gather(
            g: jax.Array, m: jax.Array, v: jax.Array, s: jax.Array, p0: jax.Array, p: jax.Array
        ) -> tuple[Any, ...]:
            v = b2 * v + (1 - b2) * tree.squared(d * g)
            m = b1 * m + (1 - b1) * tree.saturate(d * g)
            g, p = (sliced(x, slice_p, axis_name) for x in (g, p))
            s = b3 * s + weight * g
            ahead = jnp.real(jnp.conj(g) * (p0 - p))
            ahead, size = (_once(x, v, slice_p, axis_name) for x in (ahead, jnp.abs(s)))
            return m, v, s, ahead, size

        fields = state.mu, state.nu, state.gradient_sum, state.start, params
        mu, nu, s, ahead, sizes = tree.map(gather, updates, *fields, outputs=5)
        numerator = b3 * tree.weak(state.numerator)
        numerator = numerator + d / estim_lr0 * rate * reductions.total(ahead, axis_name)
        size = reductions.total(sizes, axis_name)
        estimate = estim_lr_coef * numerator / jnp.where(size == 0, 1.0, size)
        raised = jnp.where(state.d == estim_lr0, jnp.maximum(d, estimate), d)
        d_max = jnp.maximum(tree.weak(state.d_max), estimate)
        # min(d_max, raised · growth_rate), with a finite derivative at an infinite growth rate
        grown = d_max / jnp.maximum(1.0, d_max / raised * (1 / growth_rate))
        d_max = jnp.where(size == 0, tree.weak(state.d_max), d_max)
        d_new = jnp.where(size == 0, d, grown)

        def step(m: jax.Array, v: jax.Array, p: jax.Array) -> jax.Array:
            u = rate * (m / (tree.sqrt(v) + d_new * eps))
            return u if tree.is_static_zero(weight_decay) else u + rate * weight_decay * p

        updates = tree.map(step, mu, nu, params)
        return updates, ProdigyState(t, mu, nu, s, state.start, d_new, d_max, numerator)

    return init, update


@composition
def prodigy(
    learning_rate: LearningRate = 1.0,
    betas: tuple[Any, Any] = (0.9, 0.999),
    beta3: Decay | None = None,
    eps: NonNegative = 1e-8,
    estim_lr0: Initial = 1e-6,
    estim_lr_coef: Positive = 1.0,
    weight_decay: NonNegative = 0.0,
    safeguard_warmup: bool = False,
    *,
    growth_rate: Bound = math.inf,
    slice_p: int = 1,
    bias_correction: bool = False,
    axis_name: Any = None,
) -> GradientTransformation:
    """Prodigy.

    Args:
      learning_rate: η ≥ 0, a factor on the rate that is found.
      betas: (β₁, β₂), each in [0, 1).
      beta3: β₃ in [0, 1), the decay of r and s; None for √β₂.
      eps: ε, outside the root, in units of d.
      estim_lr0: d₀ > 0, where d starts: too small rather than too large.
      estim_lr_coef: c, a factor on every estimate of d.
      weight_decay: λ ≥ 0, decoupled, multiplied by ρ.
      safeguard_warmup: leave η out of s, for schedules that warm up.
      growth_rate: the most by which d is multiplied in one step; infinite for no limit.
      slice_p: estimate d from about one entry in `slice_p` (of the axis and divisor that fit).
        Where that does not divide a part of a leaf, every device has the entries of all parts.
      bias_correction: multiply ρ by √(1−β₂ᵗ) / (1−β₁ᵗ).
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split.

    >>> import fnopt
    >>> fnopt.prodigy()  # doctest: +ELLIPSIS
    prodigy(learning_rate=1.0, betas=(0.9, 0.999), eps=1e-08, estim_lr0=1e-06, ...)
    """
    step = scale_by_prodigy(
        learning_rate,
        *betas,
        beta3=beta3,
        eps=eps,
        estim_lr0=estim_lr0,
        estim_lr_coef=estim_lr_coef,
        weight_decay=weight_decay,
        safeguard_warmup=safeguard_warmup,
        growth_rate=growth_rate,
        slice_p=slice_p,
        bias_correction=bias_correction,
        axis_name=axis_name,
    )
    return chain(step, scale(-1.0))
