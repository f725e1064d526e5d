"""Meshes larger than this machine, and how params are split over them: told by the axes' names.

    model   tensor parallelism: of a leaf of two or more axes, the longest that it divides; the
            last of equally long ones
    fsdp    params split as data is: of any leaf, the first axis that is whole yet and divides
    data    params whole on each of its devices

So `up` (w, 4w) is split by columns, `down` (4w, w) by rows, and an embedding by its vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from fnopt.summaries import abstract
from fnopt.tree import PyTree

AXES = ("data", "fsdp", "model")
"""The axes that a mesh may have."""

NAMES = "data (params whole), fsdp and model (params split)"

BATCH = ("fsdp", "data")
"""Those over which the batch is split, so that gradients are summed over them."""


def sizes(text: str) -> dict[str, int]:
    """The sizes in `data=64,model=8`.

    Raises:
      ValueError: no such axis, one twice, or no size from 1 on.
    """
    found: dict[str, int] = {}
    for word in text.split(","):
        name, _, size = word.partition("=")
        if name not in AXES:
            raise ValueError(f"expected AXIS=N with commas between, of {NAMES}; got {word!r}")
        if name in found:
            raise ValueError(f"{name} is given twice")
        if not re.fullmatch(r"\d{1,9}", size) or int(size) < 1:
            raise ValueError(f"{name} needs a size from 1 on, as {name}=8; got {word!r}")
        found[name] = int(size)
    return found


def abstract_mesh(sizes: Mapping[str, int], kind: AxisType = AxisType.Auto) -> AbstractMesh:
    """A mesh without devices."""
    return AbstractMesh(tuple(sizes.values()), tuple(sizes), axis_types=(kind,) * len(sizes))


def split(params: PyTree, mesh: Any) -> PyTree:
    """The params' shapes, each with its sharding on a mesh by the rule of this module.

    Args:
      params: arrays or `jax.ShapeDtypeStruct`s.
      mesh: has the axes of `AXES`, or some of them.
    """

    def each(x: Any) -> Any:
        if not hasattr(x, "shape"):
            return x
        place = NamedSharding(mesh, PartitionSpec(*spec(x.shape, mesh.shape)))
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)

    return jax.tree.map(each, abstract(params))


def words(params: PyTree) -> str:
    """A line that says how many devices the params' mesh has, and how many leaves it splits."""
    leaves = [x for x in jax.tree.leaves(params) if hasattr(x, "shape")]
    mesh = leaves[0].sharding.mesh
    axes = ", ".join(f"{name}={size}" for name, size in mesh.shape.items())
    count = sum(any(names(x)) for x in leaves)
    few = "device" if mesh.size == 1 else "devices"
    return f"{mesh.size:,} {few}: {axes}; {count:,} of {len(leaves):,} leaves are split"


def spec(shape: tuple[int, ...], sizes: Mapping[str, int]) -> list[str | None]:
    """The mesh axis that splits each axis of a leaf of this shape."""
    found: list[str | None] = [None] * len(shape)
    model, fsdp = sizes.get("model", 1), sizes.get("fsdp", 1)
    if model > 1 and len(shape) > 1:
        good = [(n, i) for i, n in enumerate(shape) if n and n % model == 0]
        if good:
            found[max(good)[1]] = "model"
    if fsdp > 1:
        free = [i for i, n in enumerate(shape) if n and n % fsdp == 0 and found[i] is None]
        if free:
            found[free[0]] = "fsdp"
    while found and found[-1] is None:
        found.pop()
    return found


def names(x: Any) -> tuple[frozenset[str], ...]:
    """The mesh axes that split each axis of an array with a sharding."""
    place = getattr(x, "sharding", None)
    own = tuple(place.spec) if isinstance(place, NamedSharding) else ()
    filled = own + (None,) * (len(x.shape) - len(own))
    return tuple(
        frozenset(() if a is None else a if isinstance(a, tuple) else (a,)) for a in filled
    )


def local(x: Any) -> jax.ShapeDtypeStruct:
    """What one device holds of an array with a sharding."""
    place = getattr(x, "sharding", None)
    shape = x.shape if place is None else place.shard_shape(x.shape)
    return jax.ShapeDtypeStruct(shape, x.dtype)
