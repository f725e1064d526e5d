"""Changing a state between steps: `reset`, `carry_over` and `resize`.

Each returns a state that the optimizer accepts, or raises an error that says what does not fit.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnopt import leaves, masks, tree
from fnopt.core import GradientTransformation
from fnopt.tree import PyTree


def _clean(params: PyTree) -> PyTree:
    return leaves.clean(params, params)


def _like(value: Any, old: Any) -> Any:
    """The value where the old leaf is."""
    if isinstance(old, jax.Array) and not isinstance(old, jax.core.Tracer) and old.committed:
        return jax.device_put(value, old.sharding)
    return value


def reset(
    optimizer: GradientTransformation, state: PyTree, params: PyTree, where: Any = None
) -> PyTree:
    """The state with that of some leaves as `init` makes it; counts and all other leaves stay.

        state = reset(optimizer, state, params, where="head")

    Args:
      optimizer: the optimizer of the state.
      state: its state.
      params: the present params, which become the start values of rules that keep them.
      where: a regular expression that is found in a leaf's path (`head/kernel`), a mask with the
        params' structure or a prefix of it, or a function of the params that returns one; None for
        the whole state, counts included.

    Raises:
      ValueError: where an expression is found in no path, a mask does not fit, or the state is not
        one of these params.
    """
    fresh = optimizer.init(params)
    leaves.require_same_structure("reset", ("state", "a state for these params"), state, fresh)
    if where is None:
        return jax.tree.map(_like, fresh, state)
    cleaned = _clean(params)
    meant = masks.meant("reset", where, cleaned)
    new = iter(jax.tree.leaves(fresh))
    result = [
        _like(n, old) if param_path in meant and param is not None else old
        for (_, old, param_path, param), n in zip(tree.align(state, cleaned), new)
    ]
    return jax.tree.unflatten(jax.tree.structure(state), result)


def carry_over(state: PyTree, fresh: PyTree) -> PyTree:
    """A fresh state of another optimizer, with every array that the old one has by the same name.

    For an optimizer that is replaced in a route or a chain while the others keep their state:

        state = carry_over(state, new_optimizer.init(params))

    Arrays of the same name must have the same shape and kind of dtype; what only the old state has
    is dropped.

    Args:
      state: the old optimizer's state.
      fresh: the new one's.

    Raises:
      ValueError: listing the arrays of one name whose shape or kind of dtype differs, and where no
        name is shared.
    """
    old = {tree.path_name(p): x for p, x in jax.tree_util.tree_flatten_with_path(state)[0]}
    pairs, treedef = jax.tree_util.tree_flatten_with_path(fresh)
    names = [tree.path_name(path) for path, _ in pairs]
    wrong = [
        f"{name} is {leaves.describe(old[name])}, expected {leaves.describe(x)}"
        for name, (_, x) in zip(names, pairs)
        if name in old
        and (
            np.shape(old[name]) != np.shape(x)
            or leaves.is_inexact(old[name]) != leaves.is_inexact(x)
        )
    ]
    if wrong:
        raise ValueError("carry_over: the states do not fit\n  " + "\n  ".join(wrong))
    if pairs and not any(name in old for name in names):
        raise ValueError(
            f"carry_over: the states share no name; the old one has {', '.join(sorted(old))}, the "
            f"fresh one {', '.join(names)}"
        )
    taken = [leaves.cast(old[n], x.dtype) if n in old else x for n, (_, x) in zip(names, pairs)]
    return jax.tree.unflatten(treedef, taken)


def _can_be_cut(leaf: Any, param: Any) -> bool:
    """Whether each axis of a state leaf is its parameter's, or of size 1: no subspace or blocks."""
    if param is None or np.ndim(leaf) != np.ndim(param):
        return False
    return all(m in (n, 1) for m, n in zip(np.shape(leaf), np.shape(param)))


def resize(
    optimizer: GradientTransformation, state: PyTree, old_params: PyTree, new_params: PyTree
) -> PyTree:
    """The state for params of which some leaves have grown or shrunk along some axes.

    What is left of a leaf keeps its state: the entries that both shapes have, from the first on.
    New entries get what `init` gives them. The number of dimensions stays.

    Args:
      optimizer: the optimizer of the state.
      state: its state for `old_params`.
      old_params: the params that it was made for.
      new_params: params of the same structure.

    Raises:
      ValueError: where the structures or numbers of dimensions differ, the state is not one of
        `old_params`, or a field of it has a form that cannot be cut (a projection, say), by name.
    """
    fresh = optimizer.init(new_params)
    leaves.require_same_structure("resize", ("old params", "new params"), old_params, new_params)
    leaves.require_same_structure("resize", ("state", "a state for new params"), state, fresh)
    old_rows = tree.align(state, _clean(old_params))
    new_rows = tree.align(fresh, _clean(new_params))
    result, wrong = [], []
    for (path, old, _, old_param), (_, new, _, new_param) in zip(old_rows, new_rows):
        if np.shape(old) == np.shape(new):
            result.append(old)
        elif (
            np.ndim(old) != np.ndim(new)
            or not _can_be_cut(old, old_param)
            or not _can_be_cut(new, new_param)
        ):
            wrong.append(
                f"{tree.path_name(path)} is {leaves.describe(old)}, and for the new params "
                f"{leaves.describe(new)}"
            )
        else:
            common = tuple(slice(0, min(m, n)) for m, n in zip(np.shape(old), np.shape(new)))
            result.append(jnp.asarray(new).at[common].set(old[common].astype(new.dtype)))
    if wrong:
        raise ValueError("resize: state that cannot be cut\n  " + "\n  ".join(wrong))
    return jax.tree.unflatten(jax.tree.structure(state), result)
