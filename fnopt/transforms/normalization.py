"""Updates in a size of their own or of the parameters': signs, norms, ratios, zero mean."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fnopt import reductions, tree
from fnopt.core import gradient_transformation
from fnopt.hyperparameters import NonNegative, Positive, Real


@gradient_transformation
def scale_by_sign() -> Any:
    """u ← sign(u), with sign(0) = 0; a complex entry keeps its direction. No state.

    Source: Bernstein et al. 2018, arXiv 1802.04434.
    """
    return lambda params: (), lambda updates, state: (tree.map(jnp.sign, updates), state)


@gradient_transformation
def normalize_by_update_norm(
    scale_factor: Real = 1.0, eps: NonNegative = 1e-6, *, axis_name: Any = None
) -> Any:
    """u ← scale_factor · u / (‖u‖ + ε), the norm taken over the whole tree. No state.

    One scalar is computed and multiplied in. A zero tree stays zero, with ε = 0 too.

    Args:
      scale_factor: the norm of the result, but for ε.
      eps: ε ≥ 0.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split.
    """

    def update(updates: Any, state: Any) -> Any:
        size = tree.weak(reductions.whole_norm(updates, axis_name)) + eps
        return tree.scale(scale_factor * reciprocal(size), updates), state

    return lambda params: (), update


def reciprocal(x: Any) -> jax.Array:
    """1/x for a scalar x ≥ 0, and 0 at 0: its derivative there is 0 as well."""
    positive = x > 0
    return jnp.where(positive, 1 / jnp.where(positive, x, 1.0), 0.0 * x)


def trust_ratio(
    param_norm: jax.Array,
    update_norm: jax.Array,
    min_norm: Any = 0.0,
    trust_coefficient: Any = 1.0,
    eps: Any = 0.0,
) -> jax.Array:
    """trust_coefficient · ‖θ‖ / (‖u‖ + ε), weakly typed; 1 where either norm is 0.

    Args:
      param_norm: ‖θ‖.
      update_norm: ‖u‖.
      min_norm: what both norms are raised to.
      trust_coefficient: a factor of the ratio, but not of the 1.
      eps: ε.
    """
    p = jnp.maximum(tree.weak(param_norm), min_norm)
    u = jnp.maximum(tree.weak(update_norm), min_norm)
    # NaN counts as defined, so that it stays visible
    defined = jnp.logical_not((p == 0) | (u == 0))
    ratio = trust_coefficient * p / jnp.where(defined, u + eps, 1.0)
    return jnp.where(defined, jnp.minimum(ratio, 1e30), 1.0)


@gradient_transformation
def scale_by_trust_ratio(
    min_norm: NonNegative = 0.0,
    trust_coefficient: Positive = 1.0,
    eps: NonNegative = 0.0,
    *,
    axis_name: Any = None,
) -> Any:
    """Each leaf u ← u · trust_coefficient · ‖θ‖ / (‖u‖ + ε); unchanged where a norm is 0.

    A step becomes a fraction of the weights it changes. No state.

    Args:
      min_norm: what both norms are raised to.
      trust_coefficient: a factor of the ratio.
      eps: ε.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split.

    Source: You et al., arXiv 1708.03888 and 1904.00962.
    """

    def scaled(u: jax.Array, p: jax.Array) -> jax.Array:
        norms = reductions.norm([p], axis_name), reductions.norm([u], axis_name)
        return u * trust_ratio(*norms, min_norm, trust_coefficient, eps)

    return lambda params: (), lambda updates, state, params: (
        tree.map(scaled, updates, params),
        state,
    )


@gradient_transformation
def scale_by_param_block_norm(
    min_scale: NonNegative = 1e-3,
    *,
    axis_name: Any = None,
) -> Any:
    """Each leaf u ← u · max(‖θ‖, min_scale). No state.

    Args:
      min_scale: the least factor, so that a leaf of zeros can move.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split.
    """

    def scaled(u: jax.Array, p: jax.Array) -> jax.Array:
        return u * jnp.maximum(tree.weak(reductions.norm([p], axis_name)), min_scale)

    return lambda params: (), lambda updates, state, params: (
        tree.map(scaled, updates, params),
        state,
    )


@gradient_transformation
def scale_by_param_block_rms(
    min_scale: NonNegative = 1e-3,
    *,
    axis_name: Any = None,
) -> Any:
    """Each leaf u ← u · max(RMS(θ), min_scale). No state.

    Args:
      min_scale: the least factor, so that a leaf of zeros can move.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split.

    Source: Shazeer and Stern 2018 (Adafactor), arXiv 1804.04235.
    """

    def scaled(u: jax.Array, p: jax.Array) -> jax.Array:
        return u * jnp.maximum(reductions.rms(p, axis_name), min_scale)

    return lambda params: (), lambda updates, state, params: (
        tree.map(scaled, updates, params),
        state,
    )


@gradient_transformation
def centralize(
    *,
    output_axis: int = -1,
    axis_name: Any = None,
) -> Any:
    """Each leaf of two dimensions or more: u ← u − mean(u) over one output unit's weights.

    Vectors and scalars stay as they are. No state.

    Args:
      output_axis: the axis of the units, over which no mean is taken: the last for kernels
        (…, in, out) as JAX's libraries have them; 0 for (out, in, …), which optax takes them for.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension.

    Source: Yong et al. 2020 (gradient centralization), arXiv 2004.01461.
    """

    def centered(u: jax.Array) -> jax.Array:
        if u.ndim < 2 or not u.size:
            return u
        axes = tuple(axis for axis in range(u.ndim) if axis != output_axis % u.ndim)
        return u - reductions.axis_mean(u, axes, axis_name)

    return lambda params: (), lambda updates, state: (tree.map(centered, updates), state)
