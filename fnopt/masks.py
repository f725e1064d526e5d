"""Which leaves something applies to: masks and labels, as trees or functions, spread over params.

A mask or a tree of labels has the params' structure or is a prefix of it, in any container type.
What is given as a tree is never called, so that a module which is a pytree and callable too can be
one; a function of the params is a Python function, method or `functools.partial`.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from fnopt import tree
from fnopt.tree import PyTree


def resolve(given: Any, params: PyTree) -> Any:
    """What is given, or what it gives for the params if it is a plain function."""
    if inspect.isroutine(given) or isinstance(given, functools.partial):
        return given(params)
    return given


def spread(
    owner: str,
    words: str,
    given: PyTree,
    params: PyTree,
    is_leaf: Callable[[Any], bool] | None = None,
) -> PyTree:
    """A tree like `params` whose leaves are those of `given` that stand at or above them.

    Args:
      owner: whose error it is.
      words: what `given` is, in an error: "mask".
      given: a tree with the structure of `params` or a prefix of it.
      params: clean params.
      is_leaf: what is a leaf of `given`, as in `jax.tree.map`.

    Raises:
      ValueError: where it is no prefix, naming the paths that only one of the two has.
    """
    try:
        return jax.tree.map(
            lambda one, below: jax.tree.map(lambda _: one, below), given, params, is_leaf=is_leaf
        )
    except (ValueError, TypeError) as error:
        raise ValueError(_difference(owner, words, given, params, is_leaf)) from error


def _difference(owner: str, words: str, given: Any, params: Any, is_leaf: Any) -> str:
    here = [p for p, _ in jax.tree_util.tree_flatten_with_path(given, is_leaf=is_leaf)[0]]
    leaves = jax.tree_util.tree_flatten_with_path(params, is_leaf=tree.is_none)[0]
    there = [p for p, _ in leaves]
    show = jax.tree_util.keystr
    unknown = [words + show(p) for p in here if not any(q[: len(p)] == p for q in there)]
    missing = ["params" + show(q) for q in there if not any(q[: len(p)] == p for p in here)]
    parts = [
        f"only {name} has {', '.join(paths[:4])}{' ...' if len(paths) > 4 else ''}"
        for name, paths in ((f"the {words}", unknown), ("the tree of params", missing))
        if paths
    ] or [f"the containers differ: {jax.tree.structure(given)} and {jax.tree.structure(params)}"]
    return (
        f"{owner}: the {words} must have the params' structure or be a prefix of it: "
        f"{'; '.join(parts)}"
    )


def chosen(mask: Any, params: PyTree, owner: str = "mask") -> PyTree:
    """A mask as a tree of bools like `params`: from a prefix tree, a function, or None for all.

    A leaf that is no array for the rule (an integer, say) has no place in it.

    Raises:
      ValueError: where the mask is no prefix of the params.
      TypeError: where a leaf of it is no bool.
    """
    given = resolve(mask, params)
    if given is None:
        return jax.tree.map(lambda _: True, params)

    def as_bool(x: Any) -> bool:
        concrete = not isinstance(x, jax.core.Tracer)
        if concrete and (isinstance(x, bool | np.bool_) or _is_bool_array(x)):
            return bool(x)
        raise TypeError(f"{owner}: a mask's leaves must be bools, known when traced, got {x!r}")

    return jax.tree.map(as_bool, spread(owner, "mask", given, params))


def meant(owner: str, where: Any, params: PyTree) -> set[tuple[Any, ...]]:
    """The paths of the leaves that are meant: by a regular expression, a mask, or a function.

    Raises:
      ValueError: where an expression is found in no path, or a mask does not fit.
    """
    pairs = jax.tree_util.tree_flatten_with_path(params)[0]
    if isinstance(where, str):
        found = {p for p, _ in pairs if re.search(where, tree.path_name(p))}
        if not found:
            names = ", ".join(tree.path_name(p) for p, _ in pairs)
            raise ValueError(f"{owner}: {where!r} is found in no path; the paths are {names}")
        return found
    mask = chosen(where, params, owner)
    return {p for p, on in jax.tree_util.tree_flatten_with_path(mask)[0] if on}


def _is_bool_array(x: Any) -> bool:
    return hasattr(x, "dtype") and x.dtype == bool and np.shape(x) == ()


def only(t: PyTree, mask: PyTree) -> PyTree:
    """The leaves where the mask is true; None in the places of the others.

    A tree that is one leaf, left out, becomes (): None would be no tree at all.
    """
    kept = jax.tree.map(lambda on, x: x if on else None, mask, t)
    return () if kept is None else kept
