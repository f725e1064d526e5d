"""Gradients of a large batch in the memory of a small one: `microbatch`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnopt import leaves, tree


def microbatch(
    loss_fn: Callable[..., jax.Array], slices: int, *, weighted: bool = False
) -> Callable[..., tuple[jax.Array, Any]]:
    """A function (params, batch) -> (loss, gradients) that takes the batch in slices, one by one.

        value_and_grad = microbatch(loss_fn, 8)
        loss, gradients = value_and_grad(params, batch)

    It is the mean over slices, by `lax.scan`: one slice's activations are alive at a time. Equal to
    the gradient of the whole batch where the loss is a mean over its rows.

    Args:
      loss_fn: (params, batch) -> loss, a mean over the batch's rows; with `weighted`
        -> (loss, weight), a mean and the weight of it (the number of tokens, say).
      slices: how many; it must divide the rows of every array of the batch.
      weighted: whether slices count by the weight that `loss_fn` returns.

    The loss is float32 (or float64), the gradients are in the params' compute dtypes.

    Raises:
      ValueError: where the slices do not divide the rows, with the shapes.
    """
    if slices < 1:
        raise ValueError(f"microbatch: slices must be at least 1, got {slices}")

    def run(params: Any, batch: Any) -> tuple[jax.Array, Any]:
        for path, x in jax.tree_util.tree_flatten_with_path(batch)[0]:
            if jnp.ndim(x) == 0 or jnp.shape(x)[0] % slices:
                raise ValueError(
                    f"microbatch: {slices} slices do not divide the first axis of "
                    f"batch{jax.tree_util.keystr(path)}, which has shape {jnp.shape(x)}"
                )
        parts = jax.tree.map(lambda x: x.reshape(slices, -1, *x.shape[1:]), batch)
        every, treedef = leaves.flatten(params)
        live = [leaves.is_inexact(x) for x in every]
        point = [x for x, on in zip(every, live) if on]

        def loss(point: list[Any], part: Any) -> tuple[jax.Array, jax.Array]:
            given = iter(point)
            whole = treedef.unflatten(next(given) if on else x for x, on in zip(every, live))
            value, weight = loss_fn(whole, part) if weighted else (loss_fn(whole, part), 1.0)
            value, weight = (jnp.asarray(x, jnp.result_type(float)) for x in (value, weight))
            return weight * value, weight

        def step(carry: Any, part: Any) -> tuple[Any, None]:
            (value, weight), gradient = jax.value_and_grad(loss, has_aux=True)(point, part)
            return jax.tree.map(
                lambda a, b: a + b.astype(a.dtype), carry, (value, weight, gradient)
            ), None

        zero = jnp.zeros((), jnp.result_type(float))
        start = zero, zero, [jnp.zeros_like(x, leaves.compute_dtype(x.dtype)) for x in point]
        (value, weight, gradient), _ = jax.lax.scan(step, start, parts)
        mean = iter(tree.scale(1 / tree.weak(weight), gradient))
        nothing = [None if not hasattr(x, "dtype") else x for x in every]
        return value / weight, treedef.unflatten(
            next(mean) if on else other for on, other in zip(live, nothing)
        )

    return run
