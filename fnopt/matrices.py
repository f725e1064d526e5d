"""Which leaves are matrices, and how each is read as one: inputs, outputs, the rest a batch.

    shape           in_out                      out_in
    (a, b)          a inputs, b outputs         a outputs, b inputs
    (l, a, b)       a stack of l such matrices
    (…, a, b), 4+   a convolution (window, in, out), or with `out_in` (out, in, window): its window
                    and inputs are flattened into one side

`MatrixDimensionNumbers` says otherwise for a leaf, as optax's `MuonDimensionNumbers` does.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import mesh_axes, tree
from fnopt.linalg.low_rank import beside
from fnopt.tree import PyTree

LAYOUTS = ("in_out", "out_in")


class MatrixDimensionNumbers(NamedTuple):
    """The axes of a leaf that are a matrix's inputs and outputs; the others are a batch.

    Attributes:
      reduction_axis: that the layer sums over, its inputs: one axis or several.
      output_axis: that stay, its outputs.
    """

    reduction_axis: int | Sequence[int] = 0
    output_axis: int | Sequence[int] = 1


def _is_numbers(x: Any) -> bool:
    """Ours, or optax's of the same fields."""
    return hasattr(x, "reduction_axis") and hasattr(x, "output_axis")


@dataclasses.dataclass(frozen=True)
class View:
    """How a leaf is read as `batch` matrices of rows × columns, the shorter side first.

    Attributes:
      shape: of the leaf, the whole one if this device has a part of it.
      inputs: its axes that are the matrices' inputs.
      outputs: its axes that are their outputs.
      over: the mesh axes of a `shard_map` over which its first axis is split, if matrices are.
    """

    shape: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    over: tuple[Any, ...] = ()

    @functools.cached_property
    def others(self) -> tuple[int, ...]:
        """The axes of the batch."""
        return tuple(i for i in range(len(self.shape)) if i not in self.inputs + self.outputs)

    @functools.cached_property
    def batch(self) -> int:
        """How many matrices there are."""
        return self._size(self.others)

    @functools.cached_property
    def fan_in(self) -> int:
        """How many inputs a matrix has."""
        return self._size(self.inputs)

    @functools.cached_property
    def fan_out(self) -> int:
        """How many outputs a matrix has."""
        return self._size(self.outputs)

    @property
    def rows(self) -> int:
        """The shorter side."""
        return min(self.fan_in, self.fan_out)

    @property
    def columns(self) -> int:
        """The longer side."""
        return max(self.fan_in, self.fan_out)

    @property
    def inputs_first(self) -> bool:
        """Whether the rows are the inputs; of a square matrix, whichever axes stand first."""
        if self.fan_in == self.fan_out:
            return self.inputs < self.outputs
        return self.fan_in < self.fan_out

    def stack(self, x: jax.Array) -> jax.Array:
        """The leaf as (batch, rows, columns), whole on every device of an explicit mesh, and of
        a `shard_map` that it is split in."""
        x = mesh_axes.whole(_whole(x), self.over)
        order = self._order
        if order != tuple(range(x.ndim)):
            x = jnp.transpose(x, order)
        return x.reshape(self.batch, self.rows, self.columns)

    def unstack(self, stack: jax.Array, like: jax.Array | None = None) -> jax.Array:
        """The leaf again, or this device's part; split over an explicit mesh as `like` is."""
        order = self._order
        x = stack.reshape([self.shape[i] for i in order])
        if order != tuple(range(x.ndim)):
            x = jnp.transpose(x, sorted(range(x.ndim), key=order.__getitem__))
        x = mesh_axes.part(x, self.over)
        return x if like is None else beside(x, like)

    def vary(self, x: jax.Array, leaf: jax.Array) -> jax.Array:
        """What is kept of the matrices, with the type of values that differ where matrices do."""
        return mesh_axes.vary(x, mesh_axes.varying(leaf) - {*self.over})

    @property
    def _order(self) -> tuple[int, ...]:
        both = (self.inputs, self.outputs) if self.inputs_first else (self.outputs, self.inputs)
        return (*self.others, *both[0], *both[1])

    def _size(self, axes: tuple[int, ...]) -> int:
        return math.prod(self.shape[i] for i in axes)


def _whole(x: jax.Array) -> jax.Array:
    """x whole on each device of an explicit mesh; elsewhere as it is."""
    place = jax.typeof(x).sharding
    if all(axis is None for axis in place.spec):
        return x
    return jax.sharding.reshard(x, jax.sharding.NamedSharding(place.mesh, jax.P()))


def view(
    leaf: Any,
    numbers: Any = None,
    layout: str = "in_out",
    path: str = "a leaf",
    axis_name: Any = None,
) -> View:
    """The view of one leaf; a vector is a matrix of one row, a scalar one of one entry.

    Args:
      leaf: has a shape.
      numbers: its `MatrixDimensionNumbers`; None for those of its number of dimensions.
      layout: "in_out" or "out_in", where there are no numbers.
      path: of the leaf, for errors.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each
        along its first dimension. If that is one of a batch, each device has matrices of its own.

    Raises:
      ValueError: axes that the leaf does not have, or one named twice.
    """
    seen = _view(tuple(leaf.shape), numbers, layout, path)
    over = mesh_axes.split_axes(leaf, axis_name) if seen.shape and 0 not in seen.others else ()
    if not over:
        return seen
    return dataclasses.replace(seen, shape=mesh_axes.whole_shape(leaf, axis_name), over=over)


def _view(shape: tuple[int, ...], numbers: Any, layout: str, path: str) -> View:
    n = len(shape)
    if numbers is None:
        if n < 2:
            return View(shape, tuple(range(n)), ())
        every = tuple(range(n))
        if layout == "in_out":
            return View(shape, every[-2:-1] if n < 4 else every[:-1], every[-1:])
        return View(shape, every[-1:] if n < 4 else every[1:], every[-2:-1] if n < 4 else every[:1])
    given = [_axes(a) for a in (numbers.reduction_axis, numbers.output_axis)]
    said = [a for axes in given for a in axes]
    inside = [a % n for a in said if -n <= a < n]
    if not all(given) or len(inside) < len(said) or len(set(inside)) < len(inside):
        raise ValueError(
            f"dimension numbers of {path}: its shape {shape} has axes 0 to {n - 1}; expected one "
            f"or more different ones for inputs and outputs, got {numbers}"
        )
    return View(shape, *(tuple(a % n for a in axes) for axes in given))


def _axes(axis: Any) -> tuple[int, ...]:
    return (axis,) if isinstance(axis, int) else tuple(axis)


def numbers_of(numbers: Any, params: PyTree, name: str) -> dict[str, Any]:
    """Dimension numbers by path, of a tree or function of the params; none where it has None.

    Raises:
      ValueError: something else than numbers and None.
    """
    if inspect.isroutine(numbers) or inspect.isfunction(numbers):
        numbers = numbers(params)
    pairs = jax.tree_util.tree_flatten_with_path(numbers, is_leaf=_is_numbers)[0]
    given = {tree.path_name(path): x for path, x in pairs}
    for path, x in given.items():
        if not _is_numbers(x):
            raise ValueError(
                f"{name}: dimension numbers at {path or 'the whole tree'} must be "
                f"MatrixDimensionNumbers or None, got {x!r}"
            )
    return given


def views(
    params: PyTree,
    dimension_numbers: Any = None,
    layout: str = "in_out",
    *,
    vectors: bool = False,
    axis_name: Any = None,
) -> PyTree:
    """A View for each leaf of two or more dimensions, None for the others: what a rule reads.

    Paths say nothing here: a rule is given what is for it.

    Args:
      params: arrays or shapes; None leaves keep their places.
      dimension_numbers: as `choices` of `hidden_matrices` takes them.
      layout: "in_out" or "out_in".
      vectors: read a vector as a matrix of one row, and a scalar as one of one entry.
      axis_name: as in `view`.
    """
    least = 0 if vectors else 2
    pairs, treedef = jax.tree_util.tree_flatten_with_path(params)
    given = None if dimension_numbers is None else numbers_of(dimension_numbers, params, "matrices")
    found = []
    for keys, x in pairs:
        path = tree.path_name(keys)
        taken = x.size and (x.ndim >= least if given is None else path in given)
        numbers = given and given[path]
        found.append(view(x, numbers, layout, path, axis_name) if taken else None)
    return jax.tree.unflatten(treedef, found)
