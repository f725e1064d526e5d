"""Adafactor: Adam's second moment, of a matrix kept as its row and column means.

    β = 1 − t^{−0.8}
    R ← βR + (1−β) mean_row(g² + ε);  C ← βC + (1−β) mean_col(g² + ε)
    u ← g / √(R Cᵀ / mean(R));        u ← u / max(1, RMS(u)/d)
    m ← β₁m + (1−β₁) max(10⁻³, RMS(θ)) u          with `momentum`, otherwise m is the summand
    θ ← θ − η (m + λθ)

A leaf is factored over its two largest axes where both are at least `min_dim_size_to_factor`
long; other leaves keep all of v ← βv + (1−β)(g² + ε).

Good for: models whose second moment does not fit in memory; T5 was trained with it.
Caveat: without a learning rate it is the paper's min(10⁻², 1/√t), relative to the weights, where
optax takes 1. The decay is scaled by the learning rate, but not by RMS(θ); optax does not scale
it, and its `decay_offset` gives NaN. The rate is multiplied in after the momentum.
Memory: for a factored (m, n) leaf m + n values; otherwise one per parameter; one more per
parameter with momentum.
Source: Shazeer and Stern 2018, arXiv 1804.04235.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import reductions, tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Bound, Decay, LearningRate, NonNegative
from fnopt.masks import chosen
from fnopt.storage import StoredMean
from fnopt.transforms.factored import Factored, factored_zeros, large_leaves, weight_of_new
from fnopt.transforms.scaling import scale_by_learning_rate


class AdafactorState(NamedTuple):
    """The count, int32 (); R and C of factored leaves; v of the others; m or None.

    R and C have size 1 for the mean's axis. Where a leaf has no part in a field, None stands in
    its place.
    """

    count: Any
    v_row: Any
    v_col: Any
    v: Any
    mu: Any


@gradient_transformation
def scale_by_adafactor(
    min_dim_size_to_factor: int = 128,
    decay_rate: NonNegative = 0.8,
    decay_offset: NonNegative = 0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: Bound | None = 1.0,
    momentum: Decay | None = None,
    dtype_momentum: StoredMean = None,
    weight_decay_rate: NonNegative | None = None,
    eps: NonNegative = 1e-30,
    factored: bool = True,
    weight_decay_mask: Any = None,
    *,
    axis_name: Any = None,
) -> Any:
    """All of `adafactor` but the learning rate.

    One rule and not a chain, so that u need not be stored for its RMS.

    Args:
      min_dim_size_to_factor: the least size of the two largest axes of a factored leaf.
      decay_rate: the exponent in β = 1 − t^{−decay_rate}.
      decay_offset: t = count + 1 − decay_offset, at least 1.
      multiply_by_parameter_scale: multiply the update by max(10⁻³, RMS(θ)) of the leaf.
      clipping_threshold: d, the largest RMS of a leaf's update, or None.
      momentum: β₁ in [0, 1), or None for none.
      dtype_momentum: the dtype or codec that m is stored in, as in `store`; None for the compute
        dtype.
      weight_decay_rate: λ ≥ 0, or None for none.
      eps: ε, added to g².
      factored: False keeps v whole for every leaf.
      weight_decay_mask: which leaves decay.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension.

    Memory: for a factored (m, n) leaf m + n values; otherwise one per parameter; one more per
    parameter with momentum.
    """
    beta: Any = 0.0 if momentum is None else momentum
    no_mean = tree.is_static_zero(beta)
    no_decay = weight_decay_rate is None or tree.is_static_zero(weight_decay_rate)
    large = large_leaves(factored, min_dim_size_to_factor, axis_name)

    def init(params: Any) -> AdafactorState:
        mu = None if no_mean else tree.zeros_like(params)
        row, col, v = factored_zeros(params, large, axis_name=axis_name)
        return AdafactorState(tree.zero_count(), row, col, v, mu)

    def update(updates: Any, state: AdafactorState, params: Any) -> Any:
        count = tree.increment(state.count)
        gain = weight_of_new(count, decay_rate, decay_offset)

        def step(g: Any, row: Any, col: Any, v: Any, m: Any, p: Any, on: Any) -> tuple[Any, ...]:
            new = Factored(row, col, v, None, axis_name).step(g, 1 - gain, gain, eps)
            factor: Any = 1.0
            if clipping_threshold is not None:
                size = new.rms_of_rescaled(g)
                factor = clipping_threshold / jnp.maximum(size, clipping_threshold)
            if multiply_by_parameter_scale:
                factor = factor * jnp.maximum(reductions.rms(p, axis_name), 1e-3)
            u = factor * new.rescale(g)
            m = u if no_mean else beta * m + (1 - beta) * u
            u = m if on is None or no_decay else m + weight_decay_rate * p
            return u, new.row, new.col, new.full, m

        mu = tree.nones_like(updates) if no_mean else state.mu
        marks = jax.tree.map(lambda on: on or None, chosen(weight_decay_mask, params))
        old = (state.v_row, state.v_col, state.v, mu)
        updates, row, col, v, mu = tree.map(step, updates, *old, params, marks, outputs=5)
        return updates, AdafactorState(count, row, col, v, None if no_mean else mu)

    return init, update


def relative_step(count: jax.Array) -> jax.Array:
    """min(10⁻², 1/√t), the paper's rate, as a schedule."""
    return jnp.minimum(1e-2, jax.lax.rsqrt(count.astype(jnp.result_type(float)) + 1))


@composition
def adafactor(
    learning_rate: LearningRate | None = None,
    min_dim_size_to_factor: int = 128,
    decay_rate: NonNegative = 0.8,
    decay_offset: NonNegative = 0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: Bound | None = 1.0,
    momentum: Decay | None = None,
    dtype_momentum: StoredMean = None,
    weight_decay_rate: NonNegative | None = None,
    eps: NonNegative = 1e-30,
    factored: bool = True,
    weight_decay_mask: Any = None,
    *,
    axis_name: Any = None,
) -> GradientTransformation:
    """Adafactor.

    Args:
      learning_rate: η ≥ 0, relative to RMS(θ); None for min(10⁻², 1/√t).
      min_dim_size_to_factor: the least size of the two largest axes of a factored leaf.
      decay_rate: the exponent in β = 1 − t^{−decay_rate}.
      decay_offset: t = count + 1 − decay_offset, at least 1: where a restored count starts anew.
      multiply_by_parameter_scale: multiply the update by max(10⁻³, RMS(θ)) of the leaf.
      clipping_threshold: d, the largest RMS of a leaf's update, or None.
      momentum: β₁ in [0, 1), or None for none.
      dtype_momentum: the dtype or codec that m is stored in, as in `store`; None for the compute
        dtype.
      weight_decay_rate: λ ≥ 0, multiplied by the learning rate, or None for none.
      eps: ε, added to g².
      factored: False keeps v whole for every leaf.
      weight_decay_mask: which leaves decay: a tree of bools with the params' structure or a
        prefix of it, or a function of the params that returns one.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension.

    >>> import fnopt
    >>> fnopt.adafactor(1e-2, momentum=0.9).name
    'adafactor'
    """
    rule = scale_by_adafactor(
        min_dim_size_to_factor,
        decay_rate,
        decay_offset,
        multiply_by_parameter_scale,
        clipping_threshold,
        momentum,
        dtype_momentum,
        weight_decay_rate,
        eps,
        factored,
        weight_decay_mask,
        axis_name=axis_name,
    )
    rate = relative_step if learning_rate is None else learning_rate
    return chain(rule, scale_by_learning_rate(rate))
