"""Averages of the parameters, to evaluate at: `ema_params`, `swa` and `polyak_average`.

    ema_params      θ̄ ← βθ̄ + (1−β)θ           after each step
    swa             θ̄ ← θ̄ + (θ − θ̄)/n         after every k-th step from the s-th on
    polyak_average  the same after each step

The optimizer steps as it would alone. `eval_params(state, params)` gives θ̄.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import leaves, tree
from fnopt.core import gradient_transformation
from fnopt.hyperparameters import Decay
from fnopt.rule import routed


def in_place_of(params: Any, averages: Any) -> Any:
    """The averages in the params' dtypes; leaves that have none stay."""
    every, treedef = leaves.flatten(params)
    known = leaves.flatten(averages)[0]
    return treedef.unflatten(
        p if a is None else leaves.cast(a, leaves.dtype_of(p)) for p, a in zip(every, known)
    )


class EmaParamsState(NamedTuple):
    """The count, int32 (); θ̄, like the params, in their compute dtype; the optimizer's state."""

    count: Any
    average: Any
    inner: Any

    def eval_params(self, params: Any) -> Any:
        """θ̄ in the params' dtypes."""
        return in_place_of(params, self.average)


@gradient_transformation
def ema_params(optimizer: Any, decay: Decay = 0.999, *, debias: bool = True) -> Any:
    """An optimizer that keeps an exponential moving average of the parameters to evaluate at.

    Args:
      optimizer: any whole optimizer, whose updates are applied as they are.
      decay: β in [0, 1).
      debias: let β rise as (1+t)/(10+t) until it is reached, so that the start is forgotten soon.

    Memory: one value per parameter, float32 for lower precisions, and the optimizer's.
    Source: Polyak and Juditsky 1992; the warm-up of β is TensorFlow's.
    """

    def init(params: Any) -> EmaParamsState:
        return EmaParamsState(tree.zero_count(), params, optimizer.init(params))

    def update(updates: Any, state: EmaParamsState, params: Any, **extra_args: Any) -> Any:
        new, inner = optimizer.update(updates, state.inner, params, **extra_args)
        count = tree.increment(state.count)
        t = tree.weak(count.astype(jnp.result_type(float)))
        kept = jnp.minimum(decay, (1 + t) / (10 + t)) if debias else decay

        def step(average: jax.Array, p: jax.Array, u: jax.Array) -> jax.Array:
            return kept * average + (1 - kept) * (p + u)

        return new, EmaParamsState(count, tree.map(step, state.average, params, new), inner)

    return init, update, lambda params: routed(optimizer, params)


class SwaState(NamedTuple):
    """The count and how many iterates θ̄ is of, int32 (); θ̄, like the params, in their compute
    dtype; the optimizer's state."""

    count: Any
    averaged: Any
    average: Any
    inner: Any

    def eval_params(self, params: Any) -> Any:
        """θ̄ in the params' dtypes; the params themselves before the first iterate is averaged."""
        every, treedef = leaves.flatten(params)
        known = leaves.flatten(in_place_of(params, self.average))[0]
        begun = self.averaged > 0
        return treedef.unflatten(
            jnp.where(begun, a, p) if leaves.is_inexact(p) else p for p, a in zip(every, known)
        )


def _mean_of_iterates(owner: str, optimizer: Any, start: int, period: int) -> Any:
    if start < 0 or period < 1:
        raise ValueError(f"{owner}: start must be at least 0 and period at least 1")

    def init(params: Any) -> SwaState:
        counts = tree.zero_count(), tree.zero_count()
        return SwaState(*counts, params, optimizer.init(params))

    def update(updates: Any, state: SwaState, params: Any, **extra_args: Any) -> Any:
        new, inner = optimizer.update(updates, state.inner, params, **extra_args)
        count = tree.increment(state.count)
        due = (count > start) & ((count - start) % period == 0)
        averaged = state.averaged + due.astype(jnp.int32)
        n = jnp.maximum(averaged, 1).astype(jnp.result_type(float))
        share = tree.weak(jnp.where(due, 1 / n, 0.0))

        def step(average: jax.Array, p: jax.Array, u: jax.Array) -> jax.Array:
            return average + share * ((p + u) - average)

        return new, SwaState(count, averaged, tree.map(step, state.average, params, new), inner)

    return init, update, lambda params: routed(optimizer, params)


@gradient_transformation
def swa(optimizer: Any, start: int, period: int = 1) -> Any:
    """An optimizer that keeps the mean of every `period`-th iterate after `start` steps.

    Args:
      optimizer: any whole optimizer; the method wants a constant or cyclic rate from `start` on.
      start: the steps before the first iterate that counts.
      period: the steps between two that count; the length of the rate's cycle.

    Batch-norm statistics must be computed anew at the mean.

    Memory: one value per parameter, float32 for lower precisions, and the optimizer's.
    Source: Izmailov et al. 2018, arXiv 1803.05407.

    Raises:
      ValueError: for a negative start or a period below 1.
    """
    return _mean_of_iterates("swa", optimizer, start, period)


@gradient_transformation
def polyak_average(optimizer: Any, *, start: int = 0) -> Any:
    """An optimizer that keeps the mean of all iterates after `start` steps: `swa` at each step.

    Args:
      optimizer: any whole optimizer.
      start: the steps before the first iterate that counts.

    Memory: one value per parameter, float32 for lower precisions, and the optimizer's.
    Source: Polyak and Juditsky 1992.

    Raises:
      ValueError: for a negative start.
    """
    return _mean_of_iterates("polyak_average", optimizer, start, 1)
