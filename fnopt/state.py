"""Questions to a state, through any nesting of chains and wrappers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from fnopt import codecs, leaves, tree
from fnopt.splits import ZeroState, sharding_of
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
        if isinstance(node, ZeroState) or (isinstance(node, tuple) and hasattr(node, "_fields")):
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
        elif isinstance(node, ZeroState):
            items = [("inner", node.inner)]
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
    state = codecs.decoded(state)
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

    Arrays that `store` kept in another codec, or in blocks of another size, are decoded and encoded
    anew.

    Args:
      state_like: a fresh state, or an abstract one of `jax.eval_shape(optimizer.init, params)`.
      arrays: what `named_arrays` gave, as JAX or NumPy arrays.

    Raises:
      ValueError: listing every name that is missing, every one that is unknown, and every array
        whose shape or kind of dtype differs.
    """
    arrays = _recoded(state_like, arrays)
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


def _recoded(state_like: PyTree, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Named arrays in the codes of a state: what is there in other codes or blocks, or in none, is
    decoded, and encoded if the state wants it so.

    Args:
      state_like: the state that the arrays are for, of arrays or abstract ones.
      arrays: by name, as `fnopt.named_arrays` gives them.
    """
    result = dict(arrays)
    pairs = jax.tree_util.tree_flatten_with_path(state_like, is_leaf=codecs.is_encoded)[0]
    for path, like in pairs:
        name = tree.path_name(path)
        wanted = f"{name}/{like.name}" if codecs.is_encoded(like) else name
        if wanted in arrays or not jnp.issubdtype(_dtype(like), jnp.floating):
            continue
        found = _taken(name, result)
        if found is None:
            continue
        if not codecs.is_encoded(like):
            result[name] = found
        elif found.ndim:
            new = codecs.encode(found, like.codec, block=like.block)
            result[wanted], result[f"{name}/scales"] = new.codes, new.scales
    return result


def _dtype(leaf: Any) -> Any:
    return jnp.float32 if codecs.is_encoded(leaf) else getattr(leaf, "dtype", jnp.int32)


def _taken(name: str, arrays: dict[str, Any]) -> jax.Array | None:
    """Takes the array of a name, in whatever codes, out of the others; None if it is not there."""
    if name in arrays:
        return jnp.asarray(arrays.pop(name)).astype(jnp.float32)
    for key in list(arrays):
        codec, _, block = key.removeprefix(f"{name}/").rpartition("_")
        if key.startswith(f"{name}/") and codec in codecs.CODECS and block.isdigit():
            scales = arrays.pop(f"{name}/scales", None)
            if scales is None:
                return None
            parts = jnp.asarray(arrays.pop(key)), jnp.asarray(scales)
            return codecs.decode(codecs.Encoded(*parts, codec, int(block)))
    return None
