"""Running a member or not: what wrappers that decide at run time have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnopt import leaves, mesh_axes


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
    return mesh_axes.cond(condition, conformed, skip)


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
