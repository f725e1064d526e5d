"""bfloat16 params that lose no update: `master_weights`, `split_master` and `kahan`.

A bfloat16 has 8 bits: beside 1 an update of 1e-3 rounds away, at every step anew. With θ a narrow
parameter and u the optimizer's update,

    master_weights  M ← M + u,  θ ← round(M)                 M in float32
    split_master    the same, of M only the bits that θ does not have
    kahan           y = u + c,  θ ← round(θ + y),  c ← y − (new θ − θ)    c in θ's own dtype

The updates that they give are differences of narrow numbers, so that `apply_updates` ends exactly
at the rounded sum: nothing may change them afterwards, so the wrapper stands outside of a chain.
Finite sums beyond the dtype's largest number stay at it. Wider params have nothing to be added and
step as they would alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import leaves, tree
from fnopt.core import gradient_transformation
from fnopt.rounding import joined, landing, nearest, split
from fnopt.rule import Rule, routed

# What is kept for a narrow parameter: a whole master {"bfloat16": M}, which so tells the
# parameter's dtype, or an array. None is kept for any other.


def whole(p: jax.Array, dtype: Any) -> Any:
    """A master of its own: {the parameter's dtype: float32}."""
    return {jnp.dtype(dtype).name: p}


def master(p: jax.Array, kept: Any) -> jax.Array:
    """The parameter to full precision. Where p is no rounded master it was set, and counts."""
    if kept is None:
        return p
    if isinstance(kept, dict):
        ((name, x),) = kept.items()
        return jnp.where(nearest(x, name) == p, x, p)
    return joined(p, kept) if kept.dtype == jnp.int16 else p + kept.astype(p.dtype)


def to_master(u: jax.Array, p: jax.Array, kept: Any) -> tuple[jax.Array, Any]:
    """(update, kept) after a step of the master."""
    if kept is None:
        return u, None
    x = master(p, kept) + u
    if isinstance(kept, dict):
        (name,) = kept
        return nearest(x, name) - p, {name: x}
    return split(x, p)


def compensated(u: jax.Array, p: jax.Array, kept: Any) -> tuple[jax.Array, Any]:
    """(update, kept) after a step of compensated summation."""
    if kept is None or isinstance(kept, dict):
        return to_master(u, p, kept)
    y = u + kept.astype(p.dtype)
    update = nearest(p + y, kept.dtype) - p
    c = y - (landing(p, update, kept.dtype) - p)
    return update, nearest(jnp.where(jnp.isfinite(c), c, 0), kept.dtype).astype(kept.dtype)


def _beside(
    kind: Callable[..., Any],
    optimizer: Rule,
    keep: Callable[[jax.Array, Any], Any],
    seen: Callable[[jax.Array, Any], jax.Array],
    step: Callable[[jax.Array, jax.Array, Any], tuple[jax.Array, Any]],
) -> Any:
    """The pair and routes of a wrapper that keeps something beside each narrow parameter.

    Args:
      kind: the state's class, of what is kept and the optimizer's state.
      optimizer: which is told that all params are as wide as they are computed.
      keep: (parameter, dtype) -> what is kept for a narrow one.
      seen: (parameter, kept) -> the parameter that the optimizer sees.
      step: (optimizer's update, parameter, kept) -> (update, kept).
    """

    def init(params: Any) -> Any:
        def first(p: jax.Array) -> Any:
            dtype = leaves.stored_dtype(p)
            return keep(p, dtype) if leaves.is_narrow(dtype) else None

        kept = jax.tree.map(first, params)
        computed = [getattr(p, "dtype", None) for p in leaves.flatten(params)[0]]
        with leaves.storing(params, computed):
            return kind(kept, optimizer.init(params))

    def update(updates: Any, state: Any, params: Any, **extra_args: Any) -> Any:
        kept, inner = state
        wide = tree.map(seen, params, kept) if jax.tree.leaves(kept) else params
        new, inner = optimizer.update(updates, inner, wide, **extra_args)
        if jax.tree.leaves(kept):
            new, kept = tree.map(step, new, params, kept, outputs=2)
        return new, kind(kept, inner)

    return init, update, lambda params: routed(optimizer, params)


def _in_float32(params: Any, kept: Any) -> Any:
    every, treedef = leaves.flatten(params)
    return treedef.unflatten(
        master(leaves.cast(p, jnp.float32), own) if jax.tree.leaves(own) else p
        for p, own in zip(every, treedef.flatten_up_to(kept))
    )


class MasterWeightsState(NamedTuple):
    """M, like the params: {a narrow parameter's dtype: float32}, None for any other; the
    optimizer's state."""

    master: Any
    inner: Any

    def master_params(self, params: Any) -> Any:
        """M in the places of the narrow params."""
        return _in_float32(params, self.master)


@gradient_transformation
def master_weights(optimizer: Any) -> Any:
    """An optimizer that steps a float32 copy of params of 8 and 16 bits, which are its rounding.

    Args:
      optimizer: any whole optimizer. It sees the copy as its params.

    A parameter that was set from outside starts its copy anew. `master_params(state, params)` gives
    the copy.

    Memory: one float32 per narrow parameter, and the optimizer's.
    Source: Micikevicius et al. 2018, arXiv 1710.03740.
    """
    return _beside(MasterWeightsState, optimizer, whole, master, to_master)


class SplitMasterState(NamedTuple):
    """The lower 16 bits of M, int16 like the params; {dtype: M}, M float32, for narrow params that
    are no bfloat16; None for any other; the optimizer's state."""

    low: Any
    inner: Any

    def master_params(self, params: Any) -> Any:
        """M in the places of the narrow params."""
        return _in_float32(params, self.low)


@gradient_transformation
def split_master(optimizer: Any) -> Any:
    """An optimizer of bfloat16 params that steps float32 ones at four bytes in all.

    A bfloat16 parameter is the upper half of a float32, rounded, and the state has the lower half.
    Any other narrow parameter is no such half, and has a whole copy as behind `master_weights`.

    Args:
      optimizer: any whole optimizer. It sees the float32 params.

    `master_params(state, params)` gives them, exact but for magnitudes under 1e-35. Params and
    state belong together: a parameter that is set from outside keeps the lower bits it had.

    Memory: two bytes per bfloat16 parameter, four per other narrow one, and the optimizer's.
    Source: Kalamkar et al. 2020, arXiv 2005.04680; there the parameter is the upper half as it is.
    """

    def keep(p: jax.Array, dtype: Any) -> Any:
        return jnp.zeros_like(p, jnp.int16) if dtype == jnp.bfloat16 else whole(p, dtype)

    return _beside(SplitMasterState, optimizer, keep, master, to_master)


class KahanState(NamedTuple):
    """c, like the params and in their dtypes of 16 bits; {dtype: M}, M float32, for params of 8
    bits; None for any other; the optimizer's state."""

    compensation: Any
    inner: Any

    def master_params(self, params: Any) -> Any:
        """θ + c in float32 in the places of the narrow params."""
        return _in_float32(params, self.compensation)


@gradient_transformation
def kahan(optimizer: Any) -> Any:
    """An optimizer that keeps what rounding takes from an update, and adds it to the next one.

    c has the parameter's own dtype: all but 2⁻⁹ of what is lost to a bfloat16. A float16 c
    keeps nothing under 3e-8. Params of 8 bits, whose c would be as coarse, have a whole copy as
    behind `master_weights`.

    Args:
      optimizer: any whole optimizer. It sees the params as they are.

    `master_params(state, params)` gives θ + c.

    Memory: two bytes per parameter of 16 bits, and the optimizer's.
    Source: Kahan 1965; for bfloat16 params Zamirai et al. 2020, arXiv 2010.06192.
    """

    def keep(p: jax.Array, dtype: Any) -> Any:
        wide = jnp.dtype(dtype).itemsize < 2
        return whole(p, dtype) if wide else jnp.zeros_like(p, dtype)

    def seen(p: jax.Array, kept: Any) -> jax.Array:
        return master(p, kept) if isinstance(kept, dict) else p

    return _beside(KahanState, optimizer, keep, seen, compensated)


def master_params(state: Any, params: Any) -> Any:
    """The params to the precision that their optimizer keeps: float32 where a wrapper has more.

    Through any nesting, behind `master_weights`, `split_master` and `kahan`; other params as they
    are.

    Args:
      state: the optimizer's.
      params: the params that belong to it.
    """
    for _, node in tree.nodes(state, lambda x: hasattr(type(x), "master_params")):
        params = node.master_params(params)
    return params
