"""Bounds on the updates: by value, by norm, by block, and relative to the parameters."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fnopt import leaves, mesh_axes, reductions, tree
from fnopt.core import gradient_transformation
from fnopt.hyperparameters import Bound, Positive


def global_norm(updates: Any, *, axis_name: Any = None) -> jax.Array:
    """√Σ|x|² over every float or complex entry of a tree: float32 (), float64 if a leaf is.

    True in every dtype: neither 1e20 nor 1e-30 is lost, and bf16 leaves are summed in a wider
    type. 0 for an empty tree; inf or NaN where an entry is.

    Args:
      updates: any pytree; leaves that are not float or complex are left out.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split.
    """
    return reductions.norm(leaves.clean(updates, updates), axis_name)


@gradient_transformation
def clip(max_delta: Bound) -> Any:
    """u ← min(max(u, −max_delta), max_delta), elementwise; by modulus for complex leaves.

    No state.
    """

    def bound(u: jax.Array) -> jax.Array:
        if jnp.iscomplexobj(u):
            return u * (max_delta / jnp.maximum(jnp.abs(u), max_delta))
        return jnp.clip(u, -max_delta, max_delta)

    return lambda params: (), lambda updates, state: (tree.map(bound, updates), state)


@gradient_transformation
def clip_by_global_norm(max_norm: Bound, *, axis_name: Any = None) -> Any:
    """u ← u · min(1, max_norm / ‖u‖), the norm taken over the whole tree.

    One scalar is computed and multiplied in, so the clipped tree is never stored. A tree with an
    infinite or NaN entry stays visibly so. No state.

    Args:
      max_norm: above 0.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split.

    Source: Pascanu et al. 2012, arXiv 1211.5063.
    """

    def update(updates: Any, state: Any) -> Any:
        norm = tree.weak(reductions.whole_norm(updates, axis_name))
        return tree.scale(max_norm / jnp.maximum(norm, max_norm), updates), state

    return lambda params: (), update


@gradient_transformation
def clip_by_block_rms(
    threshold: Bound,
    *,
    axis_name: Any = None,
) -> Any:
    """Each leaf u ← u / max(1, RMS(u) / threshold). No state.

    Args:
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split.

    Source: Shazeer and Stern 2018 (Adafactor), arXiv 1804.04235.
    """

    def bound(u: jax.Array) -> jax.Array:
        rms = reductions.rms(u, axis_name)
        return u * (threshold / jnp.maximum(rms, threshold))

    return lambda params: (), lambda updates, state: (tree.map(bound, updates), state)


def unit_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes over which one output unit's weights lie, as in `adaptive_grad_clip`."""
    ndim = len(shape)
    if sum(n != 1 for n in shape) < 2:
        return tuple(range(ndim))
    return (0,) if ndim < 4 else tuple(range(ndim - 1))


@gradient_transformation
def adaptive_grad_clip(
    clipping: Positive,
    eps: Positive = 1e-3,
    axis: Any = None,
    *,
    axis_name: Any = None,
) -> Any:
    """Each unit's u ← u · min(1, clipping · max(‖θ‖, ε) / ‖u‖). No state.

    A unit is a whole vector or scalar (also one with further axes of size 1), a column of a
    matrix (in, out) or of a stack of them (axis 0 is reduced), or an output channel of a kernel
    of four dimensions or more.

    Args:
      clipping: the largest ratio of update to weight norm.
      eps: the least weight norm, so that units at zero can move.
      axis: the axis or axes that a unit lies along, of every leaf; None for the above.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension.

    Source: Brock et al. 2021, arXiv 2102.06171.
    """

    def bound(u: jax.Array, p: jax.Array) -> jax.Array:
        axes = unit_axes(mesh_axes.whole_shape(u, axis_name)) if axis is None else axis
        size, weight = (reductions.axis_norm(x, axes, axis_name) for x in (u, p))
        most = clipping * jnp.maximum(weight, eps)
        return u * (most / jnp.maximum(size, most))

    def update(updates: Any, state: Any, params: Any) -> Any:
        return tree.map(bound, updates, params), state

    return lambda params: (), update
