"""How an optimizer's state is split over one more mesh axis than its params: what `zero` plans.

A leaf is cut along its first dimension that is whole and that the axis divides; else along the
first whose parts it divides once more; one that has neither, or is split over the axis already,
stays as it is.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec, Sharding

from fnopt import tree
from fnopt.tree import PyTree


def sharding_of(x: Any) -> Sharding | None:
    """An array's or abstract array's sharding; for a tracer the one in its type."""
    if isinstance(x, jax.core.Tracer):
        return jax.typeof(x).sharding
    return getattr(x, "sharding", None)


def parts(mesh: Any, axis: Any) -> int:
    """Into how many parts an entry of a PartitionSpec splits a dimension."""
    return math.prod(mesh.shape[name] for name in names_of(axis))


def names_of(axis: Any) -> tuple[str, ...]:
    """The mesh axes in an entry of a PartitionSpec."""
    return axis if isinstance(axis, tuple) else () if axis is None else (axis,)


def like(shape: tuple[int, ...], param: Any, sharding: Any = None) -> Sharding | None:
    """The sharding of a leaf of this shape that belongs to `param`, whose own may be told."""
    sharding = sharding_of(param) if sharding is None else sharding
    if not isinstance(sharding, NamedSharding) or tuple(shape) == tuple(param.shape):
        return sharding
    mesh, spec = sharding.mesh, _entries(sharding, len(shape))
    kept = [axis if m % parts(mesh, axis) == 0 else None for axis, m in zip(spec, shape)]
    return _spelled(mesh, kept)


def more_split(sharding: NamedSharding, shape: Sequence[int], axis: str) -> NamedSharding:
    """A leaf's sharding with one more mesh axis in it, where the shape allows it."""
    mesh, spec = sharding.mesh, _entries(sharding, len(shape))
    if any(axis in names_of(entry) for entry in spec):
        return sharding
    size = mesh.shape[axis]
    order = sorted(range(len(shape)), key=lambda i: spec[i] is not None)  # whole ones first
    for i in order:
        if shape[i] and shape[i] % (parts(mesh, spec[i]) * size) == 0:
            spec[i] = (*names_of(spec[i]), axis) if spec[i] is not None else axis
            break
    return _spelled(mesh, spec)


def _entries(sharding: NamedSharding, ndim: int) -> list[Any]:
    return list(sharding.spec) + [None] * (ndim - len(sharding.spec))


def _spelled(mesh: Any, spec: list[Any]) -> NamedSharding:
    while spec and spec[-1] is None and AxisType.Explicit not in mesh.axis_types:
        spec = spec[:-1]  # as programs spell what they put out
    return NamedSharding(mesh, PartitionSpec(*spec))


# The plan


@dataclasses.dataclass(frozen=True)
class ZeroPlan:
    """Where params are, so that a compiled update knows it on an automatic mesh too.

    Attributes:
      axis: the mesh axis that the state is split over beyond its params.
      mesh: abstract, without its devices.
      specs: each parameter's path and PartitionSpec.
    """

    axis: str
    mesh: AbstractMesh
    specs: tuple[tuple[str, PartitionSpec], ...]

    @functools.cached_property
    def by_path(self) -> dict[str, PartitionSpec]:
        """The specs by path."""
        return dict(self.specs)


def zero_plan(params: PyTree, axis: str = "data", mesh: Mesh | None = None) -> ZeroPlan:
    """A plan for `zero`: where these params are, and over which axis their state is split.

    Args:
      params: arrays, or `jax.ShapeDtypeStruct`s with shardings; a leaf without one is taken to be
        on every device of the mesh.
      axis: a name of the mesh's axes.
      mesh: that of the params by default.

    Raises:
      ValueError: the params and `mesh` do not name one mesh, or it has no such axis.
    """
    mesh = one_mesh("zero_plan", params, mesh)
    require_axis("zero_plan", mesh, axis)
    specs = []
    for path, x in jax.tree_util.tree_flatten_with_path(params)[0]:
        place = sharding_of(x)
        spec = place.spec if isinstance(place, NamedSharding) else PartitionSpec()
        specs.append((tree.path_name(path), spec))
    abstract = mesh if isinstance(mesh, AbstractMesh) else mesh.abstract_mesh
    return ZeroPlan(axis, abstract, tuple(specs))


def one_mesh(owner: str, params: PyTree, mesh: Any = None) -> Any:
    """The mesh that all params are on, or the one given.

    Raises:
      ValueError: there is none, or there are two.
    """
    owns = (sharding_of(x) for x in jax.tree.leaves(params))
    found: set[Any] = {own.mesh for own in owns if isinstance(own, NamedSharding)}
    if mesh is not None:
        found.add(mesh)
    if len(found) != 1:
        said = "; ".join(map(str, found)) or "none: give them one, or mesh=..."
        raise ValueError(f"{owner}: the params must be on one mesh, and are on {said}")
    return found.pop()


def require_axis(owner: str, mesh: Any, axis: str) -> None:
    """Raises ValueError for a mesh without the axis."""
    if axis not in mesh.axis_names:
        known = ", ".join(mesh.axis_names)
        raise ValueError(f"{owner}: the mesh has the axes {known}, and no {axis!r}")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ZeroState:
    """The state of an optimizer in `zero`, split over one more axis than its params.

    Attributes:
      inner: the optimizer's state.
      axis: the mesh axis.
      plan: where the params are; None where it is read off them.
    """

    inner: Any
    axis: str = dataclasses.field(metadata={"static": True})
    plan: ZeroPlan | None = dataclasses.field(metadata={"static": True})

    def own(self, path: Sequence[Any], param: Any, params: PyTree) -> NamedSharding | None:
        """Where a parameter is, as far as is known; None on one device.

        Args:
          path: of the parameter; () for a leaf of the state that belongs to none.
          param: the parameter; None for such a leaf.
          params: all of them.

        Raises:
          ValueError: the mesh has no such axis, the plan no such parameter, or the mesh is an
            automatic one of several axes, on which a compiled update does not know where the
            params are, and there is no plan.
        """
        mesh = self._mesh(params)
        if mesh is None:
            return None
        if param is None:
            return NamedSharding(mesh, PartitionSpec())
        place = sharding_of(param)
        if self.plan is None or AxisType.Explicit in mesh.axis_types:
            known = isinstance(place, NamedSharding) and place.mesh.axis_names == mesh.axis_names
            return NamedSharding(mesh, place.spec if known else PartitionSpec())  # type: ignore[union-attr]
        name = tree.path_name(path)
        if name not in self.plan.by_path:
            raise ValueError(f"zero: the plan has no parameter {name!r}")
        return NamedSharding(mesh, self.plan.by_path[name])

    def _mesh(self, params: PyTree) -> Any:
        places = (sharding_of(x) for x in jax.tree.leaves(params))
        meshes = (p.mesh for p in places if isinstance(p, NamedSharding))
        planned: Any = self.plan.mesh if self.plan else None
        mesh: Any = next((m for m in meshes if not m.empty), planned)
        if mesh is None or mesh.size == 1:
            return None
        require_axis("zero", mesh, self.axis)
        others = [a for a, n in mesh.shape.items() if n > 1 and a != self.axis]
        if others and self.plan is None and AxisType.Explicit not in mesh.axis_types:
            raise ValueError(
                "zero: on an automatic mesh of several axes a compiled update does not know where "
                f"the params are; give it a plan: zero(optimizer, zero_plan(params, {self.axis!r}))"
            )
        return mesh

    def place(
        self, leaf: Any, path: Sequence[Any], param: Any, params: PyTree
    ) -> NamedSharding | None:
        """Where a leaf of the state is, or a gradient or parameter while the optimizer has it."""
        own = self.own(path, param, params)
        if own is None:
            return None
        base: Any = own if param is None else like(tuple(leaf.shape), param, own)
        return more_split(base, tuple(leaf.shape), self.axis)

    def beside(
        self, leaf: Any, path: Sequence[Any], param: Any, params: PyTree
    ) -> NamedSharding | None:
        """Where it meets its parameter, cut, on an explicit mesh; whole if it belongs to none."""
        if param is None:
            return self.own(path, param, params)
        cut = self.place(param, path, param, params)
        return like(tuple(leaf.shape), param, cut)  # type: ignore[return-value]


_SHARING: contextvars.ContextVar[str | None] = contextvars.ContextVar("sharing", default=None)


@contextlib.contextmanager
def sharing(axis: str) -> Iterator[None]:
    """While it is open, stacks of matrices are shared out over a mesh axis."""
    token = _SHARING.set(axis)
    try:
        yield
    finally:
        _SHARING.reset(token)


def shared_over(x: Any) -> str | None:
    """The mesh axis that work on an array is to be shared out over, if its mesh has it."""
    axis, mesh = _SHARING.get(), getattr(sharding_of(x), "mesh", None)
    if axis is None or mesh is None or mesh.shape.get(axis, 1) == 1:
        return None
    return axis


def zero_states(state: PyTree) -> list[tuple[tuple[Any, ...], ZeroState]]:
    """The `ZeroState`s in a state, with their paths."""
    return list(tree.nodes(state, lambda x: isinstance(x, ZeroState)))


def is_explicit(t: PyTree) -> bool:
    """Whether arrays are on an explicit mesh."""
    return any(
        isinstance(x, jax.Array) and AxisType.Explicit in jax.typeof(x).sharding.mesh.axis_types
        for x in jax.tree.leaves(t)
    )


def automatically(f: Callable[..., Any], places: PyTree) -> Callable[..., Any]:
    """f(*trees of arrays) with an explicit mesh's axes automatic inside.

    Args:
      f: gives a tree of arrays.
      places: a tree of the NamedShardings that these come out with.
    """
    mesh: Any = jax.tree.leaves(places)[0].mesh
    run = jax.sharding.auto_axes(f, axes=tuple(mesh.axis_names), out_sharding=places)
    return jax.jit(run)


def put(x: Any, place: NamedSharding | None) -> Any:
    """x in a sharding: moved, or in a program constrained to it; what is no array stays."""
    if place is None or not isinstance(x, jax.Array):
        return x
    if not isinstance(x, jax.core.Tracer):
        return x if isinstance(place.mesh, AbstractMesh) else jax.device_put(x, place)
    if AxisType.Explicit in place.mesh.axis_types:
        return x if jax.typeof(x).sharding == place else jax.sharding.reshard(x, place)
    return jax.lax.with_sharding_constraint(x, place)
