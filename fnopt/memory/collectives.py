"""The bytes that a step moves between devices, from shapes alone.

In a ring of N devices a reduction that leaves its parts (reduce-scatter), or a gathering of parts
(all-gather), makes each device send (N−1)/N of the whole array; a reduction that leaves the whole
(all-reduce) is both, 2(N−1)/N. With b the bytes that a device computes with, so of a leaf split
over `model` its part:

    gradients    all-reduce over each axis of the batch that does not split what they are for
                 reduce-scatter over one that does: fsdp the params, `zero`'s the state
    params       all-gather over fsdp, forward and backward: 2b(N−1)/N
    updates      all-gather over `zero`'s axis, in the compute dtype
    optimizer    what its rule asks for whole: hidden matrices, once or more; read off the program
                 of its update as traced for a mesh of explicit axes

Not counted: the activations of tensor parallelism, and sums of single numbers as a global norm's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from fnopt import leaves
from fnopt.bench.counts import needs
from fnopt.core import GradientTransformation
from fnopt.leaves import nbytes
from fnopt.memory.meshes import BATCH, local, names
from fnopt.memory.plans import wrapped
from fnopt.splits import more_split
from fnopt.summaries import abstract
from fnopt.tree import PyTree


class Collective(NamedTuple):
    """What one sort of collective operation moves in a step.

    Attributes:
      what: "gradients", "params", "updates" or "optimizer".
      kind: "all-reduce", "reduce-scatter" or "all-gather".
      axes: of the mesh, over which it goes.
      bytes: that each device sends, and receives.
    """

    what: str
    kind: str
    axes: tuple[str, ...]
    bytes: int


def collectives(
    optimizer: GradientTransformation,
    params: PyTree,
    gradients_dtype: Any = None,
    remedy: Callable[[GradientTransformation], GradientTransformation] | None = None,
    zero: str | None = None,
) -> list[Collective]:
    """Those of a training step, each sort once.

    Args:
      optimizer: a transformation.
      params: `jax.ShapeDtypeStruct`s or arrays with shardings on one mesh, whose axes have the
        names of `fnopt.memory.meshes.AXES`.
      gradients_dtype: of the real gradients; the params' where None.
      remedy: a wrapper for params of low precision.
      zero: the axis over which the state is split beyond its params, as `fnopt.zero` does.
    """
    params = abstract(params)
    trained = [x for x in jax.tree.leaves(params) if leaves.is_inexact(x)]
    moved = [one for x in trained for one in _of_leaf(x, gradients_dtype, zero)]
    moved += gathers(wrapped(optimizer, params, remedy, zero), params)
    counted: dict[tuple[str, str, tuple[str, ...]], float] = {}
    for what, kind, axes, size in moved:
        counted[what, kind, axes] = counted.get((what, kind, axes), 0.0) + size
    return [Collective(*key, round(size)) for key, size in counted.items() if size > 0.5]


Moved = tuple[str, str, tuple[str, ...], float]


def _of_leaf(x: Any, gradients_dtype: Any, zero: str | None) -> Iterator[Moved]:
    """The gradients' way, the params' and the updates', of one parameter."""
    if not isinstance(x.sharding, NamedSharding):
        return
    sizes = x.sharding.mesh.shape
    own = frozenset().union(*names(x))
    further = frozenset() if zero is None else frozenset().union(*names(_cut(x, zero))) - own
    real = jnp.issubdtype(x.dtype, jnp.floating)
    gradient = leaves.cast(x, gradients_dtype if real and gradients_dtype is not None else x.dtype)
    size: float = nbytes(local(gradient))
    for axis in sorted(BATCH, key=lambda axis: axis not in own | further):  # parts are summed last
        n = sizes.get(axis, 1)
        if axis in own:
            yield "gradients", "reduce-scatter", (axis,), size * (n - 1)
            yield "params", "all-gather", (axis,), 2 * nbytes(local(x)) * (n - 1)
        elif axis in further:
            yield "gradients", "reduce-scatter", (axis,), size * (n - 1) / n
            size /= n
        else:
            yield "gradients", "all-reduce", (axis,), 2 * size * (n - 1) / n
    for axis in further:
        n = sizes[axis]
        update = leaves.cast(x, leaves.compute_dtype(x.dtype))
        sent = nbytes(local(update)) * (n - 1) / n
        yield "updates", "all-gather", (axis,), sent
        yield "optimizer", "all-gather", (axis,), -sent  # they are in its program too


def _cut(x: Any, axis: str) -> Any:
    """A parameter as the optimizer in `zero` has it."""
    place = more_split(x.sharding, x.shape, axis)
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)


# What the optimizer's own rule gathers


def gathers(optimizer: GradientTransformation, params: PyTree) -> Iterator[Moved]:
    """The gatherings in an update as traced for a mesh of explicit axes.

    Args:
      optimizer: a transformation.
      params: shapes with shardings on any mesh.
    """
    places = [x.sharding for x in jax.tree.leaves(params) if hasattr(x, "shape")]
    meshes = {place.mesh for place in places if isinstance(place, NamedSharding)}
    if not meshes or max(mesh.size for mesh in meshes) == 1:
        return
    (given,) = meshes
    kinds = (AxisType.Explicit,) * len(given.axis_names)
    mesh = AbstractMesh(given.axis_sizes, given.axis_names, axis_types=kinds)

    def explicit(x: Any) -> Any:
        if not hasattr(x, "shape"):
            return x
        entries = tuple(x.sharding.spec) if isinstance(x.sharding, NamedSharding) else ()
        place = PartitionSpec(*entries, *[None] * (len(x.shape) - len(entries)))
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, place))

    params = jax.tree.map(explicit, params)
    trained = jax.tree.map(lambda x: x if leaves.is_inexact(x) else None, params)
    more = needs(optimizer, trained)
    arrays = {name: x for name, x in more["extras"].items() if not callable(x)}
    functions = {name: _objective for name in more["extras"] if name not in arrays}
    functions["value_fn"] = _objective  # which keeps `zero` on the explicit mesh

    def update(gradients: Any, state: Any, params: Any, arrays: Any) -> Any:
        return optimizer.update(gradients, state, params, **arrays, **functions)

    def of_one_example(x: Any) -> Any:
        place = NamedSharding(mesh, PartitionSpec(None, *x.sharding.spec))
        return jax.ShapeDtypeStruct((1, *x.shape), x.dtype, sharding=place)

    gradients = trained if more["gradients"] is None else jax.tree.map(of_one_example, trained)
    with jax.sharding.use_abstract_mesh(mesh):
        program = jax.make_jaxpr(update)(gradients, optimizer.init(params), params, arrays)
    for before, after, times in _moves(program.jaxpr, 1):
        axes, size = received(before, after)
        if size:
            yield "optimizer", "all-gather", axes, times * size


def _objective(params: Any) -> Any:
    """Stands for a loss that gathers nothing."""
    return sum(jnp.sum(jnp.real(x * jnp.conj(x))) for x in jax.tree.leaves(params))


def received(before: Any, after: Any) -> tuple[tuple[str, ...], float]:
    """The mesh axes over which an array is gathered when its sharding changes, and the bytes that
    each device lacks of its new part."""
    old, new = names(before), names(after)
    lost = frozenset().union(*(a - b for a, b in zip(old, new)))
    mesh = before.sharding.mesh
    axes = tuple(a for a in mesh.axis_names if a in lost and mesh.shape[a] > 1)
    return axes, nbytes(local(after)) * (1 - 1 / math.prod(mesh.shape[a] for a in axes))


def _moves(program: Any, times: int) -> Iterator[tuple[Any, Any, int]]:
    """The changes of sharding in a traced program: before, after, and how often."""
    for equation in program.eqns:
        name, given = equation.primitive.name, equation.params
        if name == "reshard":
            yield equation.invars[0].aval, equation.outvars[0].aval, times
        elif name == "cond":
            branches = [list(_moves(branch.jaxpr, times)) for branch in given["branches"]]
            yield from max(branches, key=lambda moves: sum(received(*m[:2])[1] for m in moves))
        else:
            often = times * given.get("length", 1) if name == "scan" else times
            for value in given.values():
                for one in value if isinstance(value, tuple | list) else (value,):
                    inner = getattr(one, "jaxpr", one)
                    if hasattr(inner, "eqns"):
                        yield from _moves(inner, often)
