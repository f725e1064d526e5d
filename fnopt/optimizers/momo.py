"""MoMo: a model of the loss by its average value and gradient, stepped down to a lower bound.

    m ← βm + (1−β)g      f̄ ← βf̄ + (1−β)f      γ ← βγ + (1−β)⟨g, θ⟩     first of them: g, f, ⟨g, θ⟩
    h = (1+ηλ)(f̄ − f* − γ) + ⟨m, θ⟩
    τ = min(η, max(h, 0) / ‖m‖²)
    θ ← (θ − τm) / (1 + ηλ)

f is the loss at θ, given as the extra argument `value`; f* is `lower_bound`. η is the longest step.

Good for: SGD with momentum whose rate is hard to choose, on losses with a known lower bound.
Caveat: the weight decay divides the whole step as the paper and the authors' code have it; optax
divides the decay alone. f̄, γ and the norms go over the whole tree.
Memory: one value per parameter; none with beta=0.
Source: Schaipp et al. 2023, arXiv 2305.07583, algorithms 1 to 3.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import reductions, tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.fusion import known_after
from fnopt.hyperparameters import Decay, LearningRate, NonNegative, Real
from fnopt.transforms.scaling import scale


class MomoState(NamedTuple):
    """The count, int32 (); m, like the params, None for a static beta of 0; f̄, γ and the lower
    bound, each a float scalar."""

    count: Any
    mu: Any
    value: Any
    gamma: Any
    lower_bound: Any


def polyak(height: Any, norm: Any) -> Any:
    """max(h, 0) / ‖m‖² without squaring; 0 where the norm is."""
    safe = jnp.where(norm == 0, 1.0, norm)
    return jnp.where(norm == 0, 0.0, jnp.maximum(height, 0.0) / safe / safe)


@gradient_transformation
def scale_by_momo(
    learning_rate: LearningRate = 1.0,
    beta: Decay = 0.9,
    lower_bound: Real = 0.0,
    weight_decay: NonNegative = 0.0,
    adapt_lower_bound: bool = False,
    *,
    axis_name: Any = None,
) -> Any:
    """u ← (τm + ηλθ) / (1 + ηλ): the whole step but for its sign. See `momo`.

    Memory: one value per parameter; none with beta=0.
    """
    plain = tree.is_static_zero(beta)

    def init(params: Any) -> MomoState:
        zero = jnp.zeros((), jnp.result_type(float))
        mu = None if plain else tree.zeros_like(params)
        return MomoState(tree.zero_count(), mu, zero, zero, zero + lower_bound)

    def update(updates: Any, state: MomoState, params: Any, *, value: Any) -> Any:
        b = jnp.where(state.count == 0, 0.0, beta)
        updates = tree.map(tree.saturate, updates)
        mu, change = updates, 0.0
        if not plain:
            # ⟨m, θ⟩ − γ is β times what it is for the old m: no huge terms have to cancel
            before = reductions.dot(state.mu, params, axis_name) - tree.weak(state.gamma)
            b = known_after(before, b)
            mu, change = tree.lerp(state.mu, updates, b), b * before
        mean = b * tree.weak(state.value) + (1 - b) * tree.weak(value)
        gamma = reductions.dot(mu, params, axis_name) - change
        norm = tree.weak(reductions.whole_norm(mu, axis_name))
        shrink = 1 + learning_rate * weight_decay
        least = lower_bound
        if adapt_lower_bound:
            least = jnp.where(state.count == 0, least, tree.weak(state.lower_bound))
        height = shrink * mean + change - (shrink - 1) * gamma
        if adapt_lower_bound:
            reset = jnp.maximum(height / (2 * shrink), lower_bound)
            least = jnp.where(height < shrink * least, reset, least)
        tau = jnp.minimum(learning_rate, polyak(height - shrink * least, norm))
        if adapt_lower_bound:
            least = jnp.maximum(mean + change - 0.5 * tau * norm * norm, lower_bound)

        def step(m: jax.Array, p: jax.Array) -> jax.Array:
            if tree.is_static_zero(weight_decay):
                return tau * m
            return tau / shrink * m + (shrink - 1) / shrink * p

        new = MomoState(tree.increment(state.count), None if plain else mu, mean, gamma, least)
        return tree.map(step, mu, params), new

    return init, update


@composition
def momo(
    learning_rate: LearningRate = 1.0,
    beta: Decay = 0.9,
    lower_bound: Real = 0.0,
    weight_decay: NonNegative = 0.0,
    adapt_lower_bound: bool = False,
    *,
    axis_name: Any = None,
) -> GradientTransformation:
    """SGD with momentum and a Polyak step: `update(..., value=loss)`.

    Args:
      learning_rate: η ≥ 0, the longest step: rather too large.
      beta: β in [0, 1), the decay of the means. A static 0 keeps none.
      lower_bound: f*, what the loss is known not to fall below.
      weight_decay: λ ≥ 0; the step's end is divided by 1 + ηλ.
      adapt_lower_bound: estimate the bound as the run goes, from `lower_bound` upwards.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split.

    >>> import fnopt
    >>> fnopt.momo(0.5)
    momo(learning_rate=0.5, beta=0.9, lower_bound=0.0, weight_decay=0.0)
    """
    step = scale_by_momo(
        learning_rate, beta, lower_bound, weight_decay, adapt_lower_bound, axis_name=axis_name
    )
    return chain(step, scale(-1.0))
