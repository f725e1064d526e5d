"""Which leaves of a model are its hidden matrices, by paths and shapes, and a report that says so.

A matrix optimizer takes leaves of two or more dimensions whose paths have none of `PATTERNS`; the
others go to its fallback. What it takes by the shape alone, and may be an embedding or a head under
a name that nobody knows, is doubted aloud.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import logging
import math
import re
from collections.abc import Mapping
from typing import Any

import jax

from fnopt import leaves, tree
from fnopt.matrices import LAYOUTS, View, numbers_of, view
from fnopt.tree import PyTree

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

_LOG = logging.getLogger("fnopt.hidden_matrices")


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
        given = numbers_of(dimension_numbers, params, name)
        return [_told(path, x, given.get(path), layout) for path, x in pairs]
    found = [_guessed(path, x, layout) for path, x in pairs]
    sides = collections.Counter(
        side for c in found if c.view for side in (c.view.fan_in, c.view.fan_out)
    )
    return [_doubted(c, sides) if c.view and len(c.shape) == 2 else c for c in found]


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


def labels(
    name: str, params: PyTree, dimension_numbers: Any = None, layout: str = "in_out"
) -> PyTree:
    """`name` or "fallback" for each leaf; doubtful ones are told of on the log of this module."""
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
