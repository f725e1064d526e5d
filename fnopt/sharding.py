"""Where an optimizer's state lives on a mesh: told from shapes alone, and made there at once.

By the state law a leaf of the state that is like a parameter is split as the parameter is; any
other is on every device. So the params' shardings say all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fnopt.splits import ZeroPlan, ZeroState, one_mesh, sharding_of
from fnopt.tree import PyTree


def state_shardings(
    optimizer: Any, params: PyTree, mesh: Mesh | None = None, *, memory_kind: str | None = None
) -> PyTree:
    """The sharding of every leaf of an optimizer's state, without making one.

    `jit` takes it as `in_shardings` and `out_shardings`, and a checkpoint is restored to it.

    Args:
      optimizer: a transformation.
      params: arrays, or `jax.ShapeDtypeStruct`s with shardings; a leaf without one is taken to be
        on every device of the mesh.
      mesh: that of the params by default.
      memory_kind: of the leaves with dimensions, as "pinned_host" for `offload`; None for the
        device's own.

    Returns:
      A tree like the state, of `NamedSharding`.

    Raises:
      ValueError: neither the params nor `mesh` say which mesh it is, or they name two; or its
        devices have no such memory.

    >>> import fnopt
    >>> mesh = jax.make_mesh((1,), ("data",))
    >>> w = jax.ShapeDtypeStruct((8, 4), "float32", sharding=NamedSharding(mesh, jax.P("data")))
    >>> places = fnopt.state_shardings(fnopt.sgd(0.1, momentum=0.9), {"w": w})
    >>> all(place.mesh == mesh for place in jax.tree.leaves(places))
    True
    """
    everywhere = NamedSharding(one_mesh("state_shardings", params, mesh), PartitionSpec())

    def placed(x: Any) -> Any:
        if not hasattr(x, "shape") or not hasattr(x, "dtype"):
            return x
        own = sharding_of(x)
        place = own if isinstance(own, NamedSharding) else everywhere
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)

    state = optimizer.init(jax.tree.map(placed, params))

    def where(x: Any) -> NamedSharding:
        place = getattr(x, "sharding", None) or everywhere
        return place.with_memory_kind(memory_kind) if memory_kind and x.ndim else place

    return jax.tree.map(where, state)


def init_sharded(optimizer: Any, params: PyTree, *, memory_kind: str | None = None) -> PyTree:
    """The first state of an optimizer, each part of it made on the device where it stays.

    No leaf is whole on one device on the way, however large the state is.

    Args:
      optimizer: a transformation.
      params: arrays on a mesh.
      memory_kind: as in `state_shardings`.

    Raises:
      ValueError: the params are on no mesh, or its devices have no such memory.
    """
    places = state_shardings(optimizer, params, memory_kind=memory_kind)
    return jax.jit(optimizer.init, out_shardings=places)(params)


def _scattered(g: jax.Array, axis: str, cut: int) -> jax.Array:
    """Σ over a manual mesh axis, each device with its part; other axes may be explicit."""

    def scatter(g: jax.Array) -> jax.Array:
        return jax.lax.psum_scatter(g, axis, scatter_dimension=cut, tiled=True)

    place: Any = jax.typeof(g).sharding
    kinds = zip(place.mesh.axis_names, place.mesh.axis_types)
    explicit = tuple(name for name, kind in kinds if kind == AxisType.Explicit)
    if not explicit:
        return scatter(g)
    return jax.sharding.auto_axes(scatter, axes=explicit, out_sharding=place.spec)(g)


def scattered_value_and_grad(
    loss_fn: Callable[..., Any],
    axis: str | ZeroPlan = "data",
    *,
    has_aux: bool = False,
) -> Callable[..., tuple[Any, PyTree]]:
    """`jax.value_and_grad` whose gradients are reduced and cut over a mesh axis at once.

    Each device differentiates the mean loss of its own rows, and the gradients are scattered as
    they are added up: no device has a whole one. That is what `zero` asks of them. The compilers
    of GPU and TPU make it of a plain gradient; a CPU's does not.

        f = scattered_value_and_grad(loss_fn)
        loss, gradients = f(params, batch)

    Args:
      loss_fn: (params, *batch) -> loss, the mean over the rows of the batch, a float scalar; or
        (loss, aux) with `has_aux`.
      axis: the mesh axis that the batch's first dimension is split over and the params are not;
        or a `zero_plan` of the params. The mesh is that of the arrays.
      has_aux: whether the loss comes with a tree of other results, of which the mean is given.

    Returns:
      (params, *batch) -> (loss, gradients), or ((loss, aux), gradients), the gradients in the
      params' shapes and dtypes.

    Raises:
      ValueError: the params' mesh has no such axis, or a plan is needed, as `zero` has it.
    """
    plan = axis if isinstance(axis, ZeroPlan) else None
    name = axis.axis if isinstance(axis, ZeroPlan) else axis

    def value_and_grad(params: PyTree, *batch: Any) -> tuple[Any, PyTree]:
        zero = ZeroState(None, name, plan)
        pairs, treedef = jax.tree_util.tree_flatten_with_path(params)
        places: list[Any] = [zero.place(x, path, x, params) for path, x in pairs]
        if not places or places[0] is None:
            return jax.value_and_grad(loss_fn, has_aux=has_aux)(params, *batch)
        mesh: Any = places[0].mesh

        def along(spec: Any) -> Any:
            found = [i for i, entry in enumerate(spec) if entry == name]
            return found[0] if found else None

        cuts = [along(place.spec) for place in places]
        size = mesh.shape[name]

        def local(params: PyTree, *batch: Any) -> tuple[Any, PyTree]:
            value, gradients = jax.value_and_grad(loss_fn, has_aux=has_aux)(params, *batch)
            parts = [
                jax.lax.pmean(g, name) if cut is None else _scattered(g, name, cut) / size
                for g, cut in zip(jax.tree.leaves(gradients), cuts)
            ]
            return jax.lax.pmean(value, name), jax.tree.unflatten(treedef, parts)

        specs = [jax.P() if cut is None else jax.P(*[None] * cut, name) for cut in cuts]
        return jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(jax.P(), *[jax.P(name)] * len(batch)),
            out_specs=(jax.P(), jax.tree.unflatten(treedef, specs)),
            axis_names={name},
            check_vma=False,
        )(params, *batch)

    return value_and_grad
