"""A loss scale that finds itself: for gradients in float16, which vanish below 6e-8."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import reductions, tree
from fnopt.core import gradient_transformation
from fnopt.hyperparameters import Initial, Positive
from fnopt.rule import routed
from fnopt.state import find
from fnopt.wrappers.branching import either


class LossScaleState(NamedTuple):
    """The count of steps taken and of steps rejected, int32 (); the finite steps since the scale
    changed, int32 (); the scale, float (); the optimizer's state."""

    count: Any
    rejected: Any
    steady: Any
    scale: Any
    inner: Any


@gradient_transformation
def dynamic_loss_scale(
    optimizer: Any,
    *,
    initial_scale: Initial = 2.0**15,
    growth_interval: int = 2000,
    factor: Positive = 2.0,
    min_scale: Positive = 1.0,
    max_scale: Positive = 2.0**24,
    axis_name: Any = None,
) -> Any:
    """An optimizer on gradients of a scaled loss: they are divided, and overflows are not taken.

        def loss_fn(params, scale): return scale * loss(params)
        gradients = jax.grad(loss_fn)(params, loss_scale(state))
        updates, state = optimizer.update(gradients, state, params)

    An infinite or NaN gradient divides the scale by `factor` and is rejected: its update is zero,
    and the optimizer's state stays. `growth_interval` finite ones in a row multiply the scale.

    Args:
      optimizer: any transformation.
      initial_scale: the first scale.
      growth_interval: the finite steps in a row after which the scale grows.
      factor: by how much it grows and shrinks, above 1.
      min_scale: the least scale.
      max_scale: the largest scale.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split. It does
        not reach the optimizer, which has its own.

    Memory: the optimizer's.
    Source: Micikevicius et al. 2017, arXiv 1710.03740.
    """

    def init(params: Any) -> LossScaleState:
        scale = jnp.full((), initial_scale, jnp.result_type(float))
        zeros = tree.zero_count(), tree.zero_count(), tree.zero_count()
        return LossScaleState(zeros[0], zeros[1], zeros[2], scale, optimizer.init(params))

    def update(updates: Any, state: LossScaleState, params: Any = None, **extra_args: Any) -> Any:
        finite = jnp.isfinite(reductions.whole_norm(updates, axis_name))

        def run() -> Any:
            whole = tree.scale(1 / tree.weak(state.scale), updates)
            return optimizer.update(whole, state.inner, params, **extra_args)

        new, inner = either(
            "dynamic_loss_scale", finite, run, lambda: (tree.zeros_like(updates), state.inner)
        )
        steady = jnp.where(finite, state.steady + 1, 0)
        grows = steady >= growth_interval
        changed = jnp.where(finite, jnp.where(grows, factor, 1.0), 1 / factor)
        scale = jnp.clip(tree.weak(state.scale) * changed, min_scale, max_scale)
        one = finite.astype(jnp.int32)
        return new, LossScaleState(
            state.count + one,
            state.rejected + (1 - one),
            jnp.where(grows, 0, steady),
            scale.astype(state.scale.dtype),
            inner,
        )

    return init, update, lambda params: routed(optimizer, params)


def loss_scale(state: Any) -> jax.Array:
    """What to multiply the loss by before its gradient is taken: float (), at any depth."""
    return find(state, LossScaleState).scale
