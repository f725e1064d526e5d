"""The last step of the protocol: `apply_updates`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fnopt import leaves, mesh_axes, tree
from fnopt.codecs import random_bits, round_stochastically
from fnopt.tree import PyTree

ROUNDINGS = ("nearest", "stochastic")


def apply_updates(
    params: PyTree,
    updates: PyTree,
    rounding: str = "nearest",
    key: Any = None,
    *,
    axis_name: Any = None,
) -> PyTree:
    """params + updates, added in the compute dtype and cast to the params' dtypes last.

    Leaves that are not float or complex arrays, and leaves whose update is None, stay as they
    are.

    Args:
      params: the params.
      updates: what `update` gave, of the params' structure and shapes.
      rounding: "nearest"; or "stochastic", which rounds params of 8 and 16 bits up or down at
        random so that their mean is the sum, and updates too small to see are not lost. Wider
        params are rounded as ever.
      key: for "stochastic", a key of `jax.random`, another at each step.
      axis_name: for "stochastic" inside `shard_map` or `pmap`, the mesh axes over which leaves are
        split, each along its first dimension; without it all parts of a leaf draw alike.

    Raises:
      ValueError: where structures or shapes differ, naming the leaf; for an unknown rounding, and
        for a stochastic one without a key.
    """
    if rounding not in ROUNDINGS:
        names = " or ".join(map(repr, ROUNDINGS))
        raise ValueError(f"apply_updates: rounding must be {names}, got {rounding!r}")
    if rounding == "stochastic" and key is None:
        raise ValueError("apply_updates: rounding='stochastic' needs key=..., another at each step")
    leaves.require_same_structure("apply_updates", ("updates", "params"), updates, params)
    old, treedef = leaves.flatten(params)
    new = leaves.flatten(updates)[0]
    live = [leaves.is_inexact(p) and u is not None for p, u in zip(old, new)]
    leaves.require_same_shapes("apply_updates", updates, params, none_allowed=True)
    pairs = [(p, u) for p, u, on in zip(old, new, live) if on]
    narrow = [rounding == "stochastic" and leaves.is_narrow(leaves.dtype_of(p)) for p, _ in pairs]
    seeds = jax.random.bits(key, (len(pairs),), jnp.uint32) if any(narrow) else None

    def add(p: Any, u: Any, seed: Any) -> jax.Array:
        dtype = leaves.dtype_of(p)
        compute = leaves.compute_dtype(dtype)
        total = leaves.cast(p, compute) + leaves.cast(u, compute)
        if seed is None:
            return leaves.cast(total, dtype)
        axes = mesh_axes.split_axes(total, axis_name) if total.ndim else ()
        return round_stochastically(total, dtype, random_bits(total.shape, seed, axes=axes))

    each = [None if seeds is None or not on else seeds[i] for i, on in enumerate(narrow)]
    added = iter(tree.map(add, [p for p, _ in pairs], [u for _, u in pairs], each))
    return treedef.unflatten(next(added) if on else p for p, on in zip(old, live))
