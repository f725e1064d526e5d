"""Where an optimizer's state lives on a mesh: told from shapes alone, and made there at once.

By the state law a leaf of the state that is like a parameter is split as the parameter is; any
other is on every device. So the params' shardings say all.
"""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fnopt.placement import sharding_of
from fnopt.tree import PyTree


def state_shardings(optimizer: Any, params: PyTree, mesh: Mesh | None = None) -> PyTree:
    """The sharding of every leaf of an optimizer's state, without making one.

    `jit` takes it as `in_shardings` and `out_shardings`, and a checkpoint is restored to it.

    Args:
      optimizer: a transformation.
      params: arrays, or `jax.ShapeDtypeStruct`s with shardings; a leaf without one is taken to be
        on every device of the mesh.
      mesh: that of the params by default.

    Returns:
      A tree like the state, of `NamedSharding`.

    Raises:
      ValueError: neither the params nor `mesh` say which mesh it is, or they name two.

    >>> import fnopt
    >>> mesh = jax.make_mesh((1,), ("data",))
    >>> w = jax.ShapeDtypeStruct((8, 4), "float32", sharding=NamedSharding(mesh, jax.P("data")))
    >>> places = fnopt.state_shardings(fnopt.sgd(0.1, momentum=0.9), {"w": w})
    >>> all(place.mesh == mesh for place in jax.tree.leaves(places))
    True
    """
    everywhere = NamedSharding(_mesh(params, mesh), PartitionSpec())

    def placed(x: Any) -> Any:
        if not hasattr(x, "shape") or not hasattr(x, "dtype"):
            return x
        own = sharding_of(x)
        place = own if isinstance(own, NamedSharding) else everywhere
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)

    state = optimizer.init(jax.tree.map(placed, params))
    return jax.tree.map(lambda x: getattr(x, "sharding", None) or everywhere, state)


def _mesh(params: PyTree, mesh: Mesh | None) -> Mesh:
    owns = (sharding_of(x) for x in jax.tree.leaves(params))
    found: set[Any] = {own.mesh for own in owns if isinstance(own, NamedSharding)}
    if mesh is not None:
        found.add(mesh)
    if len(found) != 1:
        said = "; ".join(map(str, found)) or "none: give them one, or mesh=..."
        raise ValueError(f"state_shardings: the params must be on one mesh, and are on {said}")
    return found.pop()


def init_sharded(optimizer: Any, params: PyTree) -> PyTree:
    """The first state of an optimizer, each part of it made on the device where it stays.

    No leaf is whole on one device on the way, however large the state is.

    Args:
      optimizer: a transformation.
      params: arrays on a mesh.

    Raises:
      ValueError: the params are on no mesh.
    """
    return jax.jit(optimizer.init, out_shardings=state_shardings(optimizer, params))(params)
