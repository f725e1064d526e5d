"""Which leaves are matrices, and how each is read as one: inputs, outputs, the rest a batch.

    shape           in_out                      out_in
    (a, b)          a inputs, b outputs         a outputs, b inputs
    (l, a, b)       a stack of l such matrices
    (…, a, b), 4+   a convolution (window, in, out), or with `out_in` (out, in, window): its window
                    and inputs are flattened into one side

`MatrixDimensionNumbers` says otherwise for a leaf, as optax's `MuonDimensionNumbers` does. Which
leaves are hidden matrices by default is read off their paths: those of `PATTERNS` are not.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import inspect
import logging
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import leaves, tree
from fnopt.linalg.low_rank import beside
from fnopt.tree import PyTree

LAYOUTS = ("in_out", "out_in")

PATTERNS: Mapping[str, str] = {
    "embedding": r"embed|(^|[/_])(wte|wpe|tok|tokens?|vocab|pos|positions?)([/_\d]|$)",
    "head": r"(^|/)((lm|output|cls|classification)_)?(head|logits|classifier)(_?\d+)?(/|$)",
    "norm": r"norm|(^|/)ln(_?\w)?(/|$)|(^|[/_])(scale|gain|gamma|beta)(/|$)",
    "bias": r"bias|(^|/)b(/|$)",
}
"""What a leaf is -> a regular expression that its path, as `decoder/wte`, then has, in any case."""

FALLBACK = "fallback"
WIDE = 8
"""How many times longer than the other a side is that looks like a vocabulary."""

_LOG = logging.getLogger("fnopt.matrices")


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
      shape: of the leaf.
      inputs: its axes that are the matrices' inputs.
      outputs: its axes that are their outputs.
    """

    shape: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

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
        """The leaf as (batch, rows, columns), whole on every device of an explicit mesh."""
        x = _whole(x)
        order = self._order
        if order != tuple(range(x.ndim)):
            x = jnp.transpose(x, order)
        return x.reshape(self.batch, self.rows, self.columns)

    def unstack(self, stack: jax.Array, like: jax.Array | None = None) -> jax.Array:
        """The leaf again, split over an explicit mesh as `like` is."""
        order = self._order
        x = stack.reshape([self.shape[i] for i in order])
        if order != tuple(range(x.ndim)):
            x = jnp.transpose(x, sorted(range(x.ndim), key=order.__getitem__))
        return x if like is None else beside(x, like)

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


def view(leaf: Any, numbers: Any = None, layout: str = "in_out", path: str = "a leaf") -> View:
    """The view of one leaf; a vector is a matrix of one row, a scalar one of one entry.

    Args:
      leaf: has a shape.
      numbers: its `MatrixDimensionNumbers`; None for those of its number of dimensions.
      layout: "in_out" or "out_in", where there are no numbers.
      path: of the leaf, for errors.

    Raises:
      ValueError: axes that the leaf does not have, or one named twice.
    """
    shape = tuple(leaf.shape)
    n = len(shape)
    if numbers is None:
        if n < 2:
            return View(shape, tuple(range(n)), ())
        first, second = ((n - 2,), (n - 1,)) if n < 4 else (tuple(range(n - 1)), (n - 1,))
        if layout == "in_out":
            return View(shape, first, second)
        first, second = ((n - 2,), (n - 1,)) if n < 4 else ((0,), tuple(range(1, n)))
        return View(shape, second, first)
    given = [_axes(a) for a in (numbers.reduction_axis, numbers.output_axis)]
    every = [a for axes in given for a in axes]
    inside = [a % n for a in every if -n <= a < n]
    if not all(given) or len(inside) < len(every) or len(set(inside)) < len(inside):
        raise ValueError(
            f"dimension numbers of {path}: its shape {shape} has axes 0 to {n - 1}; expected one "
            f"or more different ones for inputs and outputs, got {numbers}"
        )
    return View(shape, *(tuple(a % n for a in axes) for axes in given))


def _axes(axis: Any) -> tuple[int, ...]:
    return (axis,) if isinstance(axis, int) else tuple(axis)


# Which leaves


@dataclasses.dataclass(frozen=True)
class Choice:
    """What became of one leaf.

    Attributes:
      path: as `layer_0/kernel`.
      shape: of the leaf.
      view: how it is read as a matrix; None where it goes to the fallback.
      why: in words.
      doubtful: whether it was taken by its shape alone and looks like an embedding, a first or a
        last layer.
    """

    path: str
    shape: tuple[int, ...]
    view: View | None
    why: str
    doubtful: bool = False


def choices(
    params: PyTree, dimension_numbers: Any = None, layout: str = "in_out", *, name: str = "matrices"
) -> list[Choice]:
    """For each leaf whether it is a hidden matrix, and why.

    Args:
      params: arrays or shapes.
      dimension_numbers: a tree like the params of `MatrixDimensionNumbers`, with None for a leaf
        that goes to the fallback, or a function of the params that returns one; None to take all
        leaves of two or more dimensions whose paths have none of `PATTERNS`.
      layout: "in_out" or "out_in".
      name: of the optimizer, for errors.

    Raises:
      ValueError: an unknown layout, or dimension numbers that do not fit the params.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"{name}: layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    pairs = [(tree.path_name(p), x) for p, x in jax.tree_util.tree_flatten_with_path(params)[0]]
    if dimension_numbers is not None:
        given = _given(dimension_numbers, params, [path for path, _ in pairs], name)
        return [_told(path, x, given.get(path), layout) for path, x in pairs]
    found = [_guessed(path, x, layout) for path, x in pairs]
    sides = collections.Counter(
        side for c in found if c.view for side in (c.view.fan_in, c.view.fan_out)
    )
    return [_doubted(c, sides) if c.view and len(c.shape) == 2 else c for c in found]


def _given(numbers: Any, params: PyTree, paths: list[str], name: str) -> dict[str, Any]:
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


def _told(path: str, leaf: Any, numbers: Any, layout: str) -> Choice:
    shape = tuple(leaf.shape)
    if numbers is None:
        return Choice(path, shape, None, "given no dimension numbers")
    if not math.prod(shape):
        return Choice(path, shape, None, "empty")
    return Choice(path, shape, view(leaf, numbers, layout, path), "dimension numbers")


def _guessed(path: str, leaf: Any, layout: str) -> Choice:
    shape = tuple(leaf.shape)
    if len(shape) < 2:
        return Choice(path, shape, None, ("a scalar", "a vector")[len(shape)])
    if not math.prod(shape):
        return Choice(path, shape, None, "empty")
    for what, pattern in PATTERNS.items():
        if re.search(pattern, path, re.IGNORECASE):
            return Choice(path, shape, None, f"its path says {what}")
    kind = {2: "a matrix", 3: "a stack of matrices"}.get(len(shape), "a convolution")
    return Choice(path, shape, view(leaf, None, layout), kind)


def _doubted(choice: Choice, sides: Mapping[int, int]) -> Choice:
    assert choice.view is not None
    rows, columns = choice.view.rows, choice.view.columns
    alone = [side for side in (rows, columns) if sides[side] == 1]
    if alone:
        why = f"{choice.why}; no other has a side of {alone[0]}: first or last?"
    elif columns >= WIDE * rows:
        why = f"{choice.why}; {columns // rows} times as long as it is wide: an embedding?"
    else:
        return choice
    return dataclasses.replace(choice, why=why, doubtful=True)


def views(
    params: PyTree, dimension_numbers: Any = None, layout: str = "in_out", *, vectors: bool = False
) -> PyTree:
    """A View for each leaf of two or more dimensions, None for the others: what a rule reads.

    Paths say nothing here: a rule is given what is for it. See `choices`.

    Args:
      params: arrays or shapes; None leaves keep their places.
      dimension_numbers: as `choices` takes them.
      layout: "in_out" or "out_in".
      vectors: read a vector as a matrix of one row, and a scalar as one of one entry.
    """
    least = 0 if vectors else 2
    pairs, treedef = jax.tree_util.tree_flatten_with_path(params)
    named = [(tree.path_name(path), x) for path, x in pairs]
    if dimension_numbers is not None:
        given = _given(dimension_numbers, params, [path for path, _ in named], "matrices")
        return treedef.unflatten([_told(p, x, given.get(p), layout).view for p, x in named])
    plain = [view(x, None, layout) if x.ndim >= least and x.size else None for _, x in named]
    return treedef.unflatten(plain)


def labels(
    name: str, params: PyTree, dimension_numbers: Any = None, layout: str = "in_out"
) -> PyTree:
    """`name` or "fallback" for each leaf; tells of doubtful ones on the log `fnopt.matrices`."""
    found = choices(params, dimension_numbers, layout, name=name)
    if any(c.doubtful for c in found):
        _tell(MatrixReport(name, tuple(c for c in found if c.doubtful)))
    words = [name if c.view else FALLBACK for c in found]
    return jax.tree.unflatten(jax.tree.structure(params), words)


@functools.lru_cache(maxsize=64)
def _tell(report: MatrixReport) -> None:
    """Once for each report: `init` and `update` ask again and again."""
    _LOG.warning("%s", report)


@dataclasses.dataclass(frozen=True)
class MatrixReport:
    """Which leaves are hidden matrices and which go to the fallback; prints as a table.

    Attributes:
      name: of the optimizer.
      choices: one for each leaf.
    """

    name: str
    choices: tuple[Choice, ...]

    @property
    def doubtful(self) -> tuple[str, ...]:
        """The paths of leaves that were taken by their shape alone and may be none."""
        return tuple(c.path for c in self.choices if c.doubtful)

    def __str__(self) -> str:
        rows = [
            (
                c.path,
                str(c.shape),
                f"{self.name} {_sides(c.view)}" if c.view else FALLBACK,
                ("? " if c.doubtful else "") + c.why,
            )
            for c in self.choices
        ]
        widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
        lines = ["  ".join((*map(str.ljust, row[:3], widths), row[3])) for row in rows]
        if self.doubtful:
            lines.append(
                "? say so in dimension_numbers, with None for a leaf that is no hidden matrix"
            )
        return "\n".join(lines)


def _sides(view: View) -> str:
    sides = f"{view.fan_in} -> {view.fan_out}"
    return sides if view.batch == 1 else f"{view.batch} x ({sides})"


def matrix_report(
    params: PyTree,
    dimension_numbers: Any = None,
    layout: str = "in_out",
    *,
    name: str = "matrix",
) -> MatrixReport:
    """What a matrix optimizer makes of these params: which leaves it takes, and why.

    A leaf that was taken by its shape alone, and has a side that no other matrix has or is eight
    times as long as wide, is marked as doubtful: embeddings, first and last layers look so.

    Args:
      params: arrays or `jax.ShapeDtypeStruct`s.
      dimension_numbers: as the optimizer is given them.
      layout: "in_out" or "out_in", as the optimizer is given it.
      name: what the leaves that are taken are called.

    Raises:
      ValueError: an unknown layout, or dimension numbers that do not fit the params.

    >>> import jax.numpy as jnp
    >>> layer = {"kernel": jnp.ones((8, 8)), "bias": jnp.ones(8)}
    >>> wide = jnp.ones((70, 8))
    >>> print(matrix_report({"embed": wide, "layer": layer, "table": wide}))
    embed         (70, 8)  fallback        its path says embedding
    layer/bias    (8,)     fallback        a vector
    layer/kernel  (8, 8)   matrix 8 -> 8   a matrix
    table         (70, 8)  matrix 70 -> 8  ? a matrix; no other has a side of 70: first or last?
    ? say so in dimension_numbers, with None for a leaf that is no hidden matrix
    """
    cleaned = leaves.clean(params, params)
    return MatrixReport(name, tuple(choices(cleaned, dimension_numbers, layout, name=name)))
