"""What an optimizer will keep for params, from their shapes alone: `summary`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import codecs, leaves, tree
from fnopt.core import GradientTransformation
from fnopt.leaves import nbytes
from fnopt.rule import inside, is_transformation, routed
from fnopt.splits import sharding_of
from fnopt.tree import PyTree

MANY = 24
"""Lines of a printed table; with more, those that differ in an index alone are one."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a summary: a leaf of the params, or state that belongs to no leaf."""

    path: str
    shape: str
    rule: str
    state: str
    bytes: int
    sharding: str


@dataclasses.dataclass(frozen=True)
class Total:
    """What a group of leaves, or one dtype, takes.

    Attributes:
      parameters: the entries of the params.
      param_bytes: their bytes.
      state_bytes: the state's.
    """

    parameters: int = 0
    param_bytes: int = 0
    state_bytes: int = 0

    def __add__(self, other: Total) -> Total:
        return Total(
            self.parameters + other.parameters,
            self.param_bytes + other.param_bytes,
            self.state_bytes + other.state_bytes,
        )


@dataclasses.dataclass(frozen=True)
class Summary:
    """Which rule each leaf got, and its state; prints as a table.

    Attributes:
      rows: one for each leaf of the params, then one for the state that belongs to no leaf.
      param_bytes: the params' size in bytes.
      state_bytes: the whole state's size in bytes.
      groups: totals by the first key of the params' paths: `groups["layer_0"].state_bytes`; the
        state that belongs to no leaf is `groups["(shared)"]`.
      dtypes: totals by dtype: `dtypes["float32"].state_bytes`.
    """

    rows: tuple[Row, ...]
    param_bytes: int
    state_bytes: int
    groups: dict[str, Total]
    dtypes: dict[str, Total]

    def __str__(self) -> str:
        parts = [_columns(("leaf", "shape", "rule", "state", "bytes", "sharding"), _merged(self))]
        groups = _merged_groups(self.groups)
        if len(self.groups.keys() - {SHARED}) > 1:
            parts.append(_columns(("group", *TOTALS), _lines(groups)))
        parts.append(_columns(("dtype", *TOTALS), _lines(self.dtypes)))
        ratio = self.state_bytes / self.param_bytes if self.param_bytes else 0.0
        parts.append(
            f"params {self.param_bytes:,} bytes, state {self.state_bytes:,} bytes "
            f"({ratio:.2f} of the params)"
        )
        return "\n\n".join(parts)


SHARED = "(shared)"
TOTALS = ("parameters", "param bytes", "state bytes")


def summary(optimizer: GradientTransformation, params: PyTree) -> Summary:
    """A table of which rule each leaf of `params` gets, its state's bytes, dtypes and sharding.

    With totals by group and by dtype. Nothing is allocated: params may be arrays or
    `jax.ShapeDtypeStruct`s. 4-bit entries count half a byte.

    Raises:
      TypeError: if `optimizer` is no transformation.
    """
    if not is_transformation(optimizer):
        raise TypeError(f"summary: expected a transformation, got {optimizer!r}")
    params = abstract(params)
    pairs = jax.tree_util.tree_flatten_with_path(params, is_leaf=tree.is_none)[0]
    seen = jax.tree.map(lambda x: x if leaves.is_inexact(x) else None, params)
    routes = iter(jax.tree.leaves(routed(inside(optimizer, "summary"), seen)))
    kept = state_leaves(optimizer, params)
    below: dict[Any, list[StateLeaf]] = {}
    for leaf in kept:
        below.setdefault(leaf.owner, []).append(leaf)
    rows = []
    for path, param in pairs:
        own = below.get(path, [])
        rows.append(
            Row(
                jax.tree_util.keystr(path) or "params",
                leaves.describe(param) if hasattr(param, "shape") else type(param).__name__,
                next(routes) if leaves.is_inexact(param) else "passed through",
                ", ".join(str(x) for x in own if x.code != "scales") or "-",
                sum(nbytes(x.leaf) for x in own),
                _sharding(param),
            )
        )
    if shared := below.get(None, []):
        words = ", ".join(dict.fromkeys(x.field for x in shared))
        rows.append(Row(SHARED, "", "", words, sum(nbytes(x.leaf) for x in shared), ""))
    groups: dict[str, Total] = {}
    dtypes: dict[str, Total] = {}
    for path, param in pairs:
        if hasattr(param, "shape"):
            one = Total(param.size, nbytes(param), 0)
            _count(groups, _group(path), one)
            _count(dtypes, str(param.dtype), one)
    for x in kept:
        one = Total(state_bytes=nbytes(x.leaf))
        _count(groups, SHARED if x.owner is None else _group(x.owner), one)
        _count(dtypes, str(x.leaf.dtype), one)
    total = sum(groups.values(), Total())
    return Summary(tuple(rows), total.param_bytes, total.state_bytes, groups, dtypes)


class StateLeaf(NamedTuple):
    """One array of a state.

    Attributes:
      path: where it is in the state.
      field: the name of the field that it stands in, as `mu`.
      code: of an encoded array the codes' name, as `int8_128`, or "scales"; else "".
      leaf: the abstract array, with its sharding if its parameter has one.
      owner: the path of the parameter that it belongs to; None if it belongs to none.
    """

    path: tuple[Any, ...]
    field: str
    code: str
    leaf: Any
    owner: tuple[Any, ...] | None

    def __str__(self) -> str:
        words = leaves.describe(self.leaf)
        if self.code:
            words = self.code + words[words.index("[") :]
        return f"{self.field} {words}"


def state_leaves(optimizer: Any, params: PyTree) -> list[StateLeaf]:
    """Every array of the state for abstract params, with its field and, by the state law, its
    parameter."""
    own = isinstance(optimizer, GradientTransformation)
    state = optimizer.init(params) if own else jax.eval_shape(optimizer.init, params)
    seen = jax.tree.map(lambda x: x if leaves.is_inexact(x) else None, params)
    encoded = {path for path, _ in tree.nodes(state, codecs.is_encoded)}
    found = []
    for path, leaf, owner, param in tree.align(state, seen):
        node, code = (path[:-1], tree.key_name(path[-1])) if path[:-1] in encoded else (path, "")
        field = tree.field_of(node, owner) if param is not None else tree.path_name(node[-1:])
        found.append(StateLeaf(path, field, code, leaf, None if param is None else owner))
    return found


def abstract(params: PyTree) -> PyTree:
    """The params' shapes, dtypes and shardings; what is no array stays."""

    def each(x: Any) -> Any:
        if hasattr(x, "shape") and hasattr(x, "dtype"):
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding_of(x))
        number = isinstance(x, float | complex)
        return jax.ShapeDtypeStruct((), jnp.result_type(type(x))) if number else x

    return jax.tree.map(each, params)


def _group(path: Sequence[Any]) -> str:
    return tree.key_name(path[0]) if path else "params"


def _count(totals: dict[str, Total], name: str, one: Total) -> None:
    totals[name] = totals.get(name, Total()) + one


def _sharding(x: Any) -> str:
    sharding = getattr(x, "sharding", None)
    if sharding is None:
        return "-"
    return str(getattr(sharding, "spec", None) or "one device").replace("PartitionSpec", "P")


# The printed tables


def _merged(found: Summary) -> list[tuple[str, ...]]:
    """The lines of the rows; of many, rows that differ in an index alone are one line."""
    alike: dict[Any, int] = {}
    for row in found.rows:
        path = _pattern(row.path) if len(found.rows) > MANY else row.path
        line = dataclasses.replace(row, path=path)
        alike[line] = alike.get(line, 0) + 1
    return [
        (
            r.path,
            r.shape,
            r.rule,
            r.state,
            f"{n} × {r.bytes:,}" if n > 1 else f"{r.bytes:,}",
            r.sharding,
        )
        for r, n in alike.items()
    ]


def _merged_groups(groups: dict[str, Total]) -> dict[str, Total]:
    if len(groups) <= MANY:
        return groups
    merged: dict[str, Total] = {}
    for name, total in groups.items():
        _count(merged, _pattern(name), total)
    return merged


def _pattern(path: str) -> str:
    return re.sub(r"\d+", "*", path)


def _lines(totals: dict[str, Total]) -> list[tuple[str, ...]]:
    return [
        (name, f"{t.parameters:,}", f"{t.param_bytes:,}", f"{t.state_bytes:,}")
        for name, t in totals.items()
    ]


def _columns(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    table = [head, *body]
    widths = [max(len(line[i]) for line in table) for i in range(len(head))]
    padded = ("  ".join(w.ljust(n) for w, n in zip(line, widths)) for line in table)
    return "\n".join(line.rstrip() for line in padded)
