"""Questions to a state, through any nesting of chains and wrappers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from fnopt import leaves, tree
from fnopt.core import GradientTransformation
from fnopt.placement import sharding_of
from fnopt.rule import inside, is_transformation, routed
from fnopt.tree import PyTree

S = TypeVar("S")


def step_count(state: PyTree) -> jax.Array:
    """The number of updates made: the outermost field `count` of a state, int32.

    Raises:
      ValueError: if no transformation in it counts.
    """
    counts = [
        (len(path), leaf)
        for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]
        if path and tree.key_name(path[-1]) == "count"
    ]
    if not counts:
        raise ValueError("step_count: no transformation in this state counts its updates")
    return min(counts, key=lambda pair: pair[0])[1]


def find(state: PyTree, kind: type[S]) -> S:
    """The one state of a class, as `find(state, AdamState)`.

    Raises:
      ValueError: if there is none or more than one; it lists what there is.
    """
    found = [node for _, node in tree.nodes(state, lambda x: isinstance(x, kind))]
    if len(found) != 1:
        raise ValueError(
            f"find: {len(found)} states of class {kind.__name__}, expected 1; the state holds "
            f"{', '.join(sorted(_classes(state))) or 'none'}"
        )
    return found[0]


def _classes(state: PyTree) -> set[str]:
    names: set[str] = set()

    def visit(node: Any) -> bool:
        if isinstance(node, tuple) and hasattr(node, "_fields"):
            names.add(type(node).__name__)
        return False

    jax.tree.leaves(state, is_leaf=visit)
    return names


def tree_get(state: PyTree, name: str) -> Any:
    """The one field or dict entry of that name, as `tree_get(state, "mu")`.

    Raises:
      ValueError: if none or several have it; it lists the names or the places.
    """
    found: dict[str, Any] = {}
    known: set[str] = set()

    def visit(prefix: tuple[str, ...], node: Any) -> None:
        if isinstance(node, Mapping):
            items = [(str(k), v) for k, v in node.items()]
        elif isinstance(node, tuple) and hasattr(node, "_fields"):
            items = list(zip(node._fields, node))
        elif isinstance(node, list | tuple):
            items = [(str(i), v) for i, v in enumerate(node)]
        else:
            return
        for key, child in items:
            known.add(key)
            if key == name:
                found["/".join((*prefix, key))] = child
            else:
                visit((*prefix, key), child)

    visit((), state)
    if len(found) != 1:
        detail = f"it is at {', '.join(found)}" if found else f"known: {', '.join(sorted(known))}"
        raise ValueError(f"tree_get: {len(found)} fields named {name!r}, expected 1; {detail}")
    return next(iter(found.values()))


def eval_params(state: PyTree, params: PyTree) -> PyTree:
    """The parameters to evaluate and deploy: averages where a method keeps them, else `params`.

    A state class takes part by a method `eval_params(params) -> params`; it is called through any
    nesting of chains and wrappers. The result has the params' dtypes.
    """
    for _, node in tree.nodes(state, lambda x: hasattr(type(x), "eval_params")):
        params = node.eval_params(params)
    return params


# Checkpoints by name


def named_arrays(state: PyTree) -> dict[str, jax.Array]:
    """Every array of a state by name: `{"scale_by_adam/mu/layer/w": ..., ...}`."""
    pairs = jax.tree_util.tree_flatten_with_path(state)[0]
    return {tree.path_name(path): leaf for path, leaf in pairs}


def restore(state_like: PyTree, arrays: Mapping[str, Any]) -> PyTree:
    """A state with the structure, dtypes and shardings of `state_like` and the values of `arrays`.

    Args:
      state_like: a fresh state, or an abstract one of `jax.eval_shape(optimizer.init, params)`.
      arrays: what `named_arrays` gave, as JAX or NumPy arrays.

    Raises:
      ValueError: listing every name that is missing, every one that is unknown, and every array
        whose shape or kind of dtype differs.
    """
    pairs = jax.tree_util.tree_flatten_with_path(state_like)[0]
    wanted = {tree.path_name(path): leaf for path, leaf in pairs}
    problems = [f"missing: {name}" for name in wanted if name not in arrays]
    problems += [f"unknown: {name}" for name in arrays if name not in wanted]
    for name, like in wanted.items():
        if name in arrays and np.shape(arrays[name]) != np.shape(like):
            problems.append(f"shape: {name} is {np.shape(arrays[name])}, expected {np.shape(like)}")
        elif name in arrays and leaves.is_inexact(arrays[name]) != leaves.is_inexact(like):
            problems.append(
                f"dtype: {name} is {leaves.describe(arrays[name])}, "
                f"expected {leaves.describe(like)}"
            )
    if problems:
        raise ValueError("restore: the arrays do not fit the state\n  " + "\n  ".join(problems))
    values = []
    for name, like in wanted.items():
        value = jnp.asarray(arrays[name], like.dtype)
        committed = not isinstance(like, jax.Array) or getattr(like, "committed", False)
        sharding = sharding_of(like) if committed else None
        if sharding is not None and not isinstance(value, jax.core.Tracer):
            value = jax.device_put(value, sharding)
        values.append(value)
    return jax.tree.unflatten(jax.tree.structure(state_like), values)


# What an optimizer will keep


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
class Summary:
    """Which rule each leaf got, and its state; prints as a table.

    Attributes:
      rows: one for each leaf of the params, then one for the state that belongs to no leaf.
      param_bytes: the params' size in bytes.
      state_bytes: the whole state's size in bytes.
    """

    rows: tuple[Row, ...]
    param_bytes: int
    state_bytes: int

    def __str__(self) -> str:
        head = ("leaf", "shape", "rule", "state", "bytes", "sharding")
        body = [(r.path, r.shape, r.rule, r.state, f"{r.bytes:,}", r.sharding) for r in self.rows]
        widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
        lines = [
            "  ".join(w.ljust(n) for w, n in zip(line, widths)).rstrip() for line in [head, *body]
        ]
        ratio = self.state_bytes / self.param_bytes if self.param_bytes else 0.0
        total = (
            f"params {self.param_bytes:,} bytes, state {self.state_bytes:,} bytes "
            f"({ratio:.2f} of the params)"
        )
        return "\n".join([*lines, total])


def summary(optimizer: GradientTransformation, params: PyTree) -> Summary:
    """A table of which rule each leaf of `params` gets, its state's bytes, dtypes and sharding.

    Nothing is allocated: params may be arrays or `jax.ShapeDtypeStruct`s.

    Raises:
      TypeError: if `optimizer` is no transformation.
    """
    if not is_transformation(optimizer):
        raise TypeError(f"summary: expected a transformation, got {optimizer!r}")
    abstract = jax.tree.map(_abstract, params)
    state = optimizer.init(abstract)
    pairs = jax.tree_util.tree_flatten_with_path(abstract, is_leaf=tree.is_none)[0]
    inexact = jax.tree.map(lambda x: x if leaves.is_inexact(x) else None, abstract)
    routes = iter(jax.tree.leaves(routed(inside(optimizer, "summary"), inexact)))
    below: dict[Any, list[Any]] = {}
    shared = []
    for path, leaf, param_path, param in tree.align(state, inexact):
        if param is None:
            shared.append((path, leaf))
        else:
            below.setdefault(param_path, []).append((path, leaf))
    rows = []
    for path, leaf in pairs:
        own = below.get(path, [])
        seen = leaves.is_inexact(leaf)
        rows.append(
            Row(
                jax.tree_util.keystr(path) or "params",
                leaves.describe(leaf) if hasattr(leaf, "shape") else type(leaf).__name__,
                next(routes) if seen else "passed through",
                ", ".join(f"{_field(p, path)} {leaves.describe(x)}" for p, x in own) or "-",
                sum(map(_bytes, (x for _, x in own))),
                _sharding(leaf),
            )
        )
    if shared:
        words = ", ".join(dict.fromkeys(tree.key_name(p[-1]) for p, _ in shared if p))
        rows.append(Row("(shared)", "", "", words, sum(_bytes(x) for _, x in shared), ""))
    param_bytes = sum(_bytes(x) for _, x in pairs if hasattr(x, "shape"))
    return Summary(tuple(rows), param_bytes, sum(map(_bytes, jax.tree.leaves(state))))


def _abstract(x: Any) -> Any:
    if not hasattr(x, "shape") or not hasattr(x, "dtype"):
        return (
            jax.ShapeDtypeStruct((), jnp.result_type(type(x)))
            if isinstance(x, float | complex)
            else x
        )
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding_of(x))


def _field(path: tuple[Any, ...], param_path: tuple[Any, ...]) -> str:
    """The state's field that a leaf stands in: the last word before the parameter's own path."""
    for start in range(len(path) - len(param_path), -1, -1):
        if path[start : start + len(param_path)] == param_path and start > 0:
            return tree.key_name(path[start - 1])
    return tree.path_name(path)


def _bytes(x: Any) -> int:
    return math.prod(x.shape) * jnp.dtype(x.dtype).itemsize


def _sharding(x: Any) -> str:
    sharding = getattr(x, "sharding", None)
    if sharding is None:
        return "-"
    return str(getattr(sharding, "spec", None) or "one device").replace("PartitionSpec", "P")
