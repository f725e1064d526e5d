"""Running a member or not: what wrappers that decide at run time have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnopt import leaves


def either(owner: str, condition: Any, run: Callable[[], Any], skip: Callable[[], Any]) -> Any:
    """run() where the condition holds, else skip(): trees of one structure.

    The results of `run` are cast to the dtypes of those of `skip`; a foreign rule may give others.

    Args:
      owner: whose error it is.
      condition: bool, or bool ().
      run: () -> tree.
      skip: () -> tree, whose types decide.
    """
    if isinstance(condition, bool):
        return run() if condition else skip()
    wanted = jax.eval_shape(skip)
    conformed = lambda: leaves.conform(owner, run(), wanted)
    if not any(_varying(x) for x in jax.tree.leaves(wanted)):
        return jax.lax.cond(condition, conformed, skip)
    # inside shard_map both branches must vary over the same axes of the mesh
    pairs = zip(jax.tree.leaves(wanted), jax.tree.leaves(jax.eval_shape(conformed)))
    axes = [_varying(a) | _varying(b) for a, b in pairs]
    return jax.lax.cond(condition, lambda: _vary(conformed(), axes), lambda: _vary(skip(), axes))


def _varying(x: Any) -> frozenset[Any]:
    """The axes of a `shard_map` that an array's values differ over."""
    kind = x if isinstance(x, jax.ShapeDtypeStruct) else jax.typeof(x)
    manual = getattr(kind, "manual_axis_type", None)
    return frozenset(getattr(kind, "vma", None) or () if manual is None else manual.varying)


def _vary(t: Any, axes: list[frozenset[Any]]) -> Any:
    def cast(x: jax.Array, wanted: frozenset[Any]) -> jax.Array:
        missing = tuple(wanted - _varying(x))
        if not missing:
            return x
        if hasattr(jax.lax, "pcast"):
            return jax.lax.pcast(x, missing, to="varying")
        return vars(jax.lax)["pvary"](x, missing)  # its name in JAX 0.8

    found, treedef = jax.tree.flatten(t)
    return jax.tree.unflatten(treedef, [cast(x, wanted) for x, wanted in zip(found, axes)])


def all_finite(*trees: Any, axis_name: Any = None) -> jax.Array:
    """Whether no float or complex entry of the trees is infinite or NaN: bool ().

    Args:
      *trees: any trees.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which they are split.
    """
    live = [x for x in jax.tree.leaves(trees) if leaves.is_inexact(x)]
    finite = [jnp.all(jnp.isfinite(x)) for x in live]
    good = jnp.stack(finite).all() if finite else jnp.array(True)
    if axis_name is None:
        return good
    return jax.lax.pmin(good.astype(jnp.int32), axis_name) > 0


def pick(condition: Any, new: Any, old: Any) -> Any:
    """The leaves of one tree where the condition holds, of the other elsewhere."""
    return jax.tree.map(lambda n, o: jnp.where(condition, n, o), new, old)
