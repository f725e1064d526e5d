"""Where a fresh state lives: beside its params on the mesh, in buffers of its own."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from fnopt import leaves, mesh_axes, splits, tree
from fnopt.splits import like, parts, sharding_of
from fnopt.tree import PyTree


def place(state: PyTree, params: PyTree, original: PyTree = None) -> PyTree:
    """A fresh state, strongly typed, placed with its params, sharing no buffer.

    A leaf that is like a parameter takes its sharding (an axis that is too short for it, of size
    1, of blocks or of a subspace, is replicated); any other is replicated on the params' mesh. In
    a `ZeroState` both are split over its axis beyond that.

    Args:
      state: arrays, tracers or ShapeDtypeStructs.
      params: the clean params that it was made for.
      original: the user's params, whose buffers must not be shared either.
    """
    mesh = mesh_of(params)
    anchor = _anchor(params)
    seen = {id(x) for x in jax.tree.leaves((params, original))}
    zeros = splits.zero_states(state)
    placed = []
    for path, leaf, param_path, param in tree.align(state, params):
        if not hasattr(leaf, "dtype") or jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
            placed.append(leaf)
            continue
        if id(leaf) in seen:
            leaf = jnp.copy(leaf)
        seen.add(id(leaf))
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            leaf = leaves.cast(leaf, leaf.dtype)
        zero = next((z for head, z in zeros if path[: len(head)] == head), None)
        if zero is None:
            placed.append(_put(leaf, param, mesh, anchor))
        else:
            placed.append(_put_split(leaf, zero.place(leaf, param_path, param, params), anchor))
    return jax.tree.unflatten(jax.tree.structure(state), placed)


def mesh_of(params: PyTree) -> Any:
    """The mesh of the first parameter that has one of more than one device; None elsewhere."""
    for x in jax.tree.leaves(params):
        sharding = sharding_of(x)
        if isinstance(sharding, NamedSharding) and sharding.mesh.size > 1:
            return sharding.mesh
    return None


def every_nth(x: Any, axis: int, size: int) -> Any:
    """x[::n] along an axis, `size` entries of it, split as `like` says on a mesh."""
    sharding = jax.typeof(x).sharding
    spec = list(sharding.spec)
    if size % parts(sharding.mesh, spec[axis]):
        spec[axis] = None
        x = jax.sharding.reshard(x, NamedSharding(sharding.mesh, PartitionSpec(*spec)))
    stride = x.shape[axis] // size
    return jax.lax.slice_in_dim(x, 0, size * stride, stride, axis)


def _put(leaf: Any, param: Any, mesh: Any, anchor: Any) -> Any:
    if param is not None:
        target = like(leaf.shape, param)
    else:
        target = None if mesh is None else NamedSharding(mesh, PartitionSpec())
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return _abstract(leaf, None if mesh is None else target)
    if anchor is not None:
        if param is not None and param.size:
            return _beside(param, leaf)
        return _tied(leaf, anchor)
    if isinstance(leaf, jax.core.Tracer):  # made in a program that does not trace the params
        return leaf
    if target is None or leaf.sharding == target:
        return leaf
    if param is not None and not param.committed:
        return leaf
    return jax.device_put(leaf, target)


def _put_split(leaf: Any, target: Any, anchor: Any) -> Any:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return _abstract(leaf, target)
    if anchor is not None:
        return splits.put(_tied(leaf, anchor), target)
    return leaf if isinstance(leaf, jax.core.Tracer) else splits.put(leaf, target)


def _tied(leaf: Any, anchor: Any) -> Any:
    """The leaf, in a program that reads the parameter and so runs on its devices.

    Inside `shard_map` a leaf that is the same on each device stays so.
    """
    if mesh_axes.varying(anchor) - mesh_axes.varying(leaf):
        return leaf
    return jnp.where(jnp.any(_never(anchor)), jnp.zeros_like(leaf), leaf)


def _abstract(leaf: Any, place: Any) -> jax.ShapeDtypeStruct:
    if place is None:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)


def _anchor(params: PyTree) -> Any:
    """The smallest traced parameter, which ties a traced state to the params' devices."""
    traced = [x for x in jax.tree.leaves(params) if isinstance(x, jax.core.Tracer) and x.size]
    return min(traced, key=lambda x: x.size, default=None)


def _never(param: Any) -> Any:
    """False everywhere, which the compiler cannot know."""
    real = jnp.real(param)
    return jnp.isnan(real) & jnp.isinf(real)


def _beside(param: Any, leaf: Any) -> Any:
    """The leaf, tied to a traced parameter so that the partitioner places both alike.

    A selection between the two by a condition that never holds: shardings propagate through it.
    It costs one pass over the params, in `init` alone. Where the leaf has blocks, they meet their
    first entry.
    """
    other = param if jnp.iscomplexobj(leaf) else jnp.real(param)
    for axis, (m, n) in enumerate(zip(leaf.shape, param.shape)):
        if m != n:
            other = every_nth(other, axis, m)
    place: Any = sharding_of(other)
    if not place.mesh.empty and sharding_of(leaf) != place:  # by the types of an explicit mesh
        leaf = jax.sharding.reshard(leaf, place)
    return jax.lax.select(_never(other), other.astype(leaf.dtype), leaf)


# Reshapes of the last axis, which an explicit mesh wants to be told the sharding of


def split_last(x: Any, count: int, size: int) -> Any:
    """The last axis as two, of `count` and of `size`; the first keeps its split if it divides."""
    shape = (*x.shape[:-1], count, size)
    x = _divisible_last(x, count)
    spec = _spec(x)
    if spec is None:
        return x.reshape(shape)
    target = NamedSharding(jax.typeof(x).sharding.mesh, PartitionSpec(*spec, None))
    return jnp.reshape(x, shape, out_sharding=target)


def pad_last(x: Any, size: int) -> Any:
    """The last axis with zeros up to `size`; it keeps its split if that divides."""
    more = [(0, 0)] * (x.ndim - 1) + [(0, size - x.shape[-1])]
    return jnp.pad(_divisible_last(x, size), more)


def _divisible_last(x: Any, size: int) -> Any:
    """x, whose last axis is replicated on an explicit mesh unless its split divides `size`."""
    spec = _spec(x)
    if spec is None or spec[-1] is None:
        return x
    mesh = jax.typeof(x).sharding.mesh
    if size % parts(mesh, spec[-1]) == 0:
        return x
    return jax.sharding.reshard(x, NamedSharding(mesh, PartitionSpec(*spec[:-1], None)))


def merge_last(x: Any) -> Any:
    """The last two axes as one, split as the first of them is."""
    shape = (*x.shape[:-2], x.shape[-2] * x.shape[-1])
    spec = _spec(x)
    if spec is None:
        return x.reshape(shape)
    target = NamedSharding(jax.typeof(x).sharding.mesh, PartitionSpec(*spec[:-1]))
    return jnp.reshape(x, shape, out_sharding=target)


def beside(x: Any, other: Any) -> Any:
    """x in the sharding of an array of its shape, where a mesh is explicit."""
    spec, wanted = _spec(x), _spec(other)
    if wanted is None or spec == wanted:
        return x
    return jax.sharding.reshard(x, jax.typeof(other).sharding)


def _spec(x: Any) -> list[Any] | None:
    """The sharding in an array's type, an entry for each axis; None where there is none."""
    sharding: Any = jax.typeof(x).sharding
    if sharding.mesh.empty or not any(t == AxisType.Explicit for t in sharding.mesh.axis_types):
        return None
    return list(sharding.spec) + [None] * (x.ndim - len(sharding.spec))
