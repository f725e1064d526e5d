"""The arithmetic of `fnopt memory`: the arrays that a training step keeps, and their bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import leaves, tree
from fnopt.core import GradientTransformation
from fnopt.memory.meshes import local
from fnopt.splits import zero_plan
from fnopt.summaries import StateLeaf, abstract, state_leaves
from fnopt.tree import PyTree
from fnopt.wrappers.zero import zero as split_over

SCALARS = "scalars"
"""The name of the single numbers of a state that belong to no parameter: counts and rates."""


class Kept(NamedTuple):
    """One array of a training step.

    Attributes:
      part: "params", "gradients", "state", or the name of the remedy that keeps it.
      name: the state's field, as `mu`, or `mu scales` of one in codes; "" elsewhere.
      leaf: the abstract array, with its sharding if its parameter has one.
    """

    part: str
    name: str
    leaf: Any


class Row(NamedTuple):
    """The arrays of one part, name and dtype.

    Attributes:
      part: as in `Kept`.
      name: as in `Kept`.
      dtype: of them all; "" for scalars, which have several.
      entries: how many they have.
      bytes: what they take.
    """

    part: str
    name: str
    dtype: str
    entries: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a training step needs.

    Attributes:
      rows: in the order params, gradients, state, and what a remedy keeps.
      parameters: the float and complex entries of the params, which are trained.
    """

    rows: tuple[Row, ...]
    parameters: int

    @property
    def parts(self) -> dict[str, int]:
        """The bytes of each part."""
        found: dict[str, int] = {}
        for row in self.rows:
            found[row.part] = found.get(row.part, 0) + row.bytes
        return found

    @property
    def bytes(self) -> int:
        """Those of all parts."""
        return sum(row.bytes for row in self.rows)


def plan(
    optimizer: GradientTransformation,
    params: PyTree,
    gradients_dtype: Any = None,
    remedy: Callable[[GradientTransformation], GradientTransformation] | None = None,
    zero: str | None = None,
    *,
    per_device: bool = False,
) -> Plan:
    """What a training step needs in memory: params, gradients, state, and a remedy's copy.

    Activations, updates and other temporaries are not in it. Nothing is allocated.

    Args:
      optimizer: a transformation.
      params: arrays or `jax.ShapeDtypeStruct`s.
      gradients_dtype: of the real gradients; the params' where None.
      remedy: a wrapper for params of low precision, as `master_weights`.
      zero: the mesh axis over which the state is split beyond its params, as `fnopt.zero` does.
      per_device: count what one device of the mesh holds of params that have shardings.
    """
    params = abstract(params)
    part_of = local if per_device else lambda x: x
    counted: dict[tuple[str, str, str], tuple[int, int]] = {}
    for part, name, leaf in arrays(optimizer, params, gradients_dtype, remedy, zero):
        leaf = part_of(leaf)
        key = (part, name, "" if name == SCALARS else str(leaf.dtype))
        count, size = counted.get(key, (0, 0))
        counted[key] = (count + leaf.size, size + leaves.nbytes(leaf))
    rows = tuple(Row(*key, *numbers) for key, numbers in counted.items())
    trained = [x for x in jax.tree.leaves(params) if leaves.is_inexact(x)]
    return Plan(rows, sum(part_of(x).size for x in trained))


def arrays(
    optimizer: GradientTransformation,
    params: PyTree,
    gradients_dtype: Any = None,
    remedy: Callable[[GradientTransformation], GradientTransformation] | None = None,
    zero: str | None = None,
) -> Iterator[Kept]:
    """Every array that `plan` counts, for abstract params."""
    whole = [x for x in jax.tree.leaves(params) if hasattr(x, "shape")]
    for x in whole:
        yield Kept("params", "", x)
    each = getattr(getattr(optimizer, "rule", None), "per_example", False)
    for x in whole:
        if leaves.is_inexact(x):
            real = jnp.issubdtype(x.dtype, jnp.floating)
            dtype = gradients_dtype if real and gradients_dtype is not None else x.dtype
            yield Kept("gradients", "of each example" if each else "", leaves.cast(x, dtype))
    whole_optimizer = wrapped(optimizer, params, remedy, zero)
    found = sorted(state_leaves(whole_optimizer, params), key=lambda x: _name(x) == SCALARS)
    above = 0 if zero is None else 1
    own = [remedy is None or tree.path_name(x.path[above:][:1]) == "inner" for x in found]
    yield from (Kept("state", _name(x), x.leaf) for x, is_own in zip(found, own) if is_own)
    if remedy is not None:
        part = getattr(remedy, "__name__", "remedy")
        yield from (Kept(part, _name(x), x.leaf) for x, is_own in zip(found, own) if not is_own)


def wrapped(
    optimizer: GradientTransformation,
    params: PyTree,
    remedy: Callable[[GradientTransformation], GradientTransformation] | None = None,
    zero: str | None = None,
) -> GradientTransformation:
    """The optimizer in a remedy, and that in `zero` over a mesh axis.

    Raises:
      ValueError: the params are on no mesh that has the axis.
    """
    whole = optimizer if remedy is None else remedy(optimizer)
    return whole if zero is None else split_over(whole, zero_plan(params, zero))


def _name(x: StateLeaf) -> str:
    if x.owner is None and x.leaf.size == 1:
        return SCALARS
    return f"{x.field} scales" if x.code == "scales" else x.field
