"""MoMo-Adam: MoMo's step in the metric of Adam.

    m ← β₁m + (1−β₁)g    f̄ ← β₁f̄ + (1−β₁)f    γ ← β₁γ + (1−β₁)⟨g, θ⟩    ρ = 1−β₁ᵗ
    v ← β₂v + (1−β₂)g²   D = √(v / (1−β₂ᵗ)) + ε
    h = (1+ηλ)(f̄ − ρf* − γ) + ⟨m, θ⟩
    τ = min(η/ρ, max(h, 0) / ⟨m, m/D⟩)
    θ ← (θ − τ m/D) / (1 + ηλ)

f is the loss at θ, given as the extra argument `value`; f* is `lower_bound`. Where η is small
enough this is Adam with the rate η; where it is not, the step ends at the model's lower bound.

Good for: Adam whose rate is hard to choose, on losses with a known lower bound.
Caveat: the weight decay divides the whole step as the paper and the authors' code have it; optax
divides the decay alone.
Memory: two values per parameter.
Source: Schaipp et al. 2023, arXiv 2305.07583, algorithm 4.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import reductions, tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.fusion import known_after, recompute
from fnopt.hyperparameters import Decay, LearningRate, NonNegative, Real
from fnopt.optimizers.momo import polyak
from fnopt.transforms.scaling import scale


class MomoAdamState(NamedTuple):
    """The count, int32 (); m, like the params; v, real, like them; f̄, γ and the lower bound, each
    a float scalar."""

    count: Any
    mu: Any
    nu: Any
    value: Any
    gamma: Any
    lower_bound: Any


def _over_root(m: Any, v: Any, c2: Any, eps: Any, tiny: Any) -> Any:
    """m / √D."""
    metric = jnp.sqrt(jnp.maximum(c2 * v, tiny)) + eps
    return m / jnp.sqrt(jnp.maximum(metric, tiny))


@gradient_transformation
def scale_by_momo_adam(
    learning_rate: LearningRate = 1e-2,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    lower_bound: Real = 0.0,
    weight_decay: NonNegative = 0.0,
    adapt_lower_bound: bool = False,
    *,
    axis_name: Any = None,
) -> Any:
    """u ← (τ m/D + ηλθ) / (1 + ηλ): the whole step but for its sign. See `momo_adam`.

    Memory: two values per parameter.
    """

    def init(params: Any) -> MomoAdamState:
        zero = jnp.zeros((), jnp.result_type(float))
        mu, nu = tree.zeros_like(params), tree.real_zeros_like(params)
        return MomoAdamState(tree.zero_count(), mu, nu, zero, zero, zero + lower_bound)

    def update(updates: Any, state: MomoAdamState, params: Any, *, value: Any) -> Any:
        t = tree.increment(state.count)
        c1 = tree.bias_correction(b1, t)
        c2 = tree.debias(b2, t)

        def moments(g: jax.Array, m: jax.Array, v: jax.Array) -> tuple[Any, ...]:
            v = b2 * v + (1 - b2) * tree.squared(g)
            return b * m + (1 - b) * tree.saturate(g), v

        def metric(v: jax.Array) -> jax.Array:
            return tree.sqrt(c2 * v) + eps

        # ⟨m, θ⟩ − γ is β₁ times what it is for the old m: no huge terms have to cancel
        change = b1 * (reductions.dot(state.mu, params, axis_name) - tree.weak(state.gamma))
        b = known_after(change, b1)
        mu, nu = tree.map(moments, updates, state.mu, state.nu, outputs=2)
        mean = b1 * tree.weak(state.value) + (1 - b1) * tree.weak(value)
        gamma = reductions.dot(mu, params, axis_name) - change

        def measured(m: jax.Array, v: jax.Array) -> jax.Array:
            tiny = float(jnp.finfo(v.dtype).tiny)
            return recompute(_over_root, m, v, c2, eps, tiny)

        norm = tree.weak(reductions.whole_norm(tree.map(measured, mu, nu), axis_name))
        shrink = 1 + learning_rate * weight_decay
        least = lower_bound
        if adapt_lower_bound:
            least = jnp.where(state.count == 0, least, tree.weak(state.lower_bound))
        height = shrink * mean + change - (shrink - 1) * gamma
        if adapt_lower_bound:
            reset = jnp.maximum(height / (2 * c1 * shrink), lower_bound)
            least = jnp.where(height < shrink * c1 * least, reset, least)
        tau = jnp.minimum(learning_rate / c1, polyak(height - shrink * c1 * least, norm))
        if adapt_lower_bound:
            least = (mean + change - 0.5 * tau * norm * norm) / c1
            least = jnp.maximum(least, lower_bound)

        def step(m: jax.Array, v: jax.Array, p: jax.Array) -> jax.Array:
            u = tau * (m / metric(v))
            if tree.is_static_zero(weight_decay):
                return u
            return u / shrink + (shrink - 1) / shrink * p

        updates = tree.map(step, mu, nu, params)
        return updates, MomoAdamState(t, mu, nu, mean, gamma, least)

    return init, update


@composition
def momo_adam(
    learning_rate: LearningRate = 1e-2,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    lower_bound: Real = 0.0,
    weight_decay: NonNegative = 0.0,
    adapt_lower_bound: bool = False,
    *,
    axis_name: Any = None,
) -> GradientTransformation:
    """Adam with a Polyak step: `update(..., value=loss)`.

    Args:
      learning_rate: η ≥ 0, the longest step: rather too large.
      b1: β₁ in [0, 1), the decay of the means.
      b2: β₂ in [0, 1), the decay of the mean square.
      eps: ε, outside the root.
      lower_bound: f*, what the loss is known not to fall below.
      weight_decay: λ ≥ 0; the step's end is divided by 1 + ηλ.
      adapt_lower_bound: estimate the bound as the run goes, from `lower_bound` upwards.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split.

    >>> import fnopt
    >>> fnopt.momo_adam()  # doctest: +ELLIPSIS
    momo_adam(learning_rate=0.01, b1=0.9, b2=0.999, eps=1e-08, lower_bound=0.0, ...)
    """
    step = scale_by_momo_adam(
        learning_rate,
        b1,
        b2,
        eps,
        lower_bound,
        weight_decay,
        adapt_lower_bound,
        axis_name=axis_name,
    )
    return chain(step, scale(-1.0))
