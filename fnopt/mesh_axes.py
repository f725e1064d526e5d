"""The mesh axes of a `shard_map` or `pmap`: over which a value differs, and how a leaf is split.

Leaves in parts are split along their first dimension.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp


def varying(x: Any) -> frozenset[Any]:
    """The axes of a `shard_map` that an array's values differ over, as far as its type tells."""
    kind = x if isinstance(x, jax.ShapeDtypeStruct) else jax.typeof(x)
    manual = getattr(kind, "manual_axis_type", None)
    return frozenset(getattr(kind, "vma", None) or () if manual is None else manual.varying)


def vary(x: jax.Array, axes: frozenset[Any]) -> jax.Array:
    """x with the type of values that differ over these axes of a `shard_map` too.

    What starts a loop or ends a branch must have it where the other step or branch has.
    """
    missing = tuple(axes - varying(x))
    if not missing:
        return x
    if hasattr(jax.lax, "pcast"):
        return jax.lax.pcast(x, missing, to="varying")
    return vars(jax.lax)["pvary"](x, missing)  # its name in JAX 0.8


def split_axes(x: Any, axis_name: Any) -> tuple[Any, ...]:
    """Those of some mesh axes that x is split over, so that a sum of it has parts elsewhere.

    Where `shard_map` checks what varies, as it does by default, what every device has whole is
    not split. Under `check_vma=False` and in `pmap` types do not tell: then x is split over all.
    """
    if axis_name is None:
        return ()
    names = tuple(axis_name) if isinstance(axis_name, tuple | list) else (axis_name,)
    return tuple(n for n in names if n in varying(x) or n not in varying(jax.lax.axis_index(n)))


def parts(x: jax.Array, axis_name: Any) -> int:
    """In how many parts the leaf is that x is one of."""
    return math.prod(jax.lax.axis_size(name) for name in split_axes(x, axis_name))


def whole_shape(x: jax.Array, axis_name: Any) -> tuple[int, ...]:
    """The shape of the leaf that x is a part of, split along the first dimension."""
    return (x.shape[0] * parts(x, axis_name), *x.shape[1:]) if x.ndim else ()


def whole(x: jax.Array, axes: tuple[Any, ...]) -> jax.Array:
    """The leaf that x is a part of, over these mesh axes, on each device."""
    if not axes:
        return x
    if "to" in inspect.signature(jax.lax.all_gather).parameters:
        return jax.lax.all_gather(x, axes, tiled=True, to="invarying")
    total = jax.lax.psum(1, axes) * x.shape[0]  # JAX 0.8
    empty = vary(jnp.zeros((total, *x.shape[1:]), x.dtype), varying(x))
    start = jax.lax.axis_index(axes) * x.shape[0]
    return jax.lax.psum(jax.lax.dynamic_update_slice_in_dim(empty, x, start, 0), axes)


def part(x: jax.Array, axes: tuple[Any, ...]) -> jax.Array:
    """This device's part of a whole leaf that is split over these mesh axes."""
    if not axes:
        return x
    size = x.shape[0] // math.prod(map(jax.lax.axis_size, axes))
    start = jax.lax.axis_index(axes) * size
    return jax.lax.dynamic_slice_in_dim(x, start, size, allow_negative_indices=False)


def across(collective: Callable[..., jax.Array], x: jax.Array, axes: tuple[Any, ...]) -> jax.Array:
    """A collective over some axes; x itself if there are none."""
    return collective(x, axes) if axes else x


def switch(index: Any, cases: Sequence[Callable[[], Any]]) -> Any:
    """`jax.lax.switch` over functions of nothing, whose results may differ over other axes."""
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return jax.lax.switch(index, cases)
    kinds = [jax.tree.leaves(jax.eval_shape(case)) for case in cases]
    axes = [frozenset().union(*map(varying, same)) for same in zip(*kinds)]

    def conformed(case: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            found, treedef = jax.tree.flatten(case())
            return jax.tree.unflatten(treedef, list(map(vary, found, axes)))

        return run

    return jax.lax.switch(index, [conformed(case) for case in cases])


def cond(condition: Any, run: Callable[[], Any], skip: Callable[[], Any]) -> Any:
    """`jax.lax.cond` over functions of nothing, whose results may differ over other axes."""
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return jax.lax.cond(condition, run, skip)
    return switch(condition.astype("int32"), [skip, run])
