"""Running sums and averages of the updates: `trace` and `ema`."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from fnopt import tree
from fnopt.core import gradient_transformation
from fnopt.hyperparameters import Decay
from fnopt.storage import StoredAverage, StoredTrace


class TraceState(NamedTuple):
    """The velocity v, like the params in their compute dtype; None for a static decay of 0."""

    trace: Any


@gradient_transformation
def trace(decay: Decay, nesterov: bool = False, accumulator_dtype: StoredTrace = None) -> Any:
    """v ← γv + u; u ← v, or with Nesterov's look-ahead u ← γv + u.

    Args:
      decay: γ in [0, 1). A static 0 keeps no buffer.
      nesterov: apply the momentum once more, as if the step ahead were known.
      accumulator_dtype: the dtype or codec that v is stored in, as in `store`; None for the compute
        dtype.

    Memory: one value per parameter.
    Source: Polyak 1964; Sutskever et al. 2013 for the Nesterov form.
    """
    plain = tree.is_static_zero(decay)

    def init(params: Any) -> TraceState:
        return TraceState(None if plain else tree.zeros_like(params))

    def update(updates: Any, state: TraceState) -> Any:
        if plain:
            return updates, state
        v = tree.map(lambda v, u: decay * v + u, state.trace, updates)
        if nesterov:
            updates = tree.map(lambda v, u: decay * v + u, v, updates)
        else:
            updates = v
        return updates, TraceState(v)

    return init, update


class EmaState(NamedTuple):
    """The count, int32 (), and the average, like the params in their compute dtype."""

    count: Any
    ema: Any


@gradient_transformation
def ema(decay: Decay, debias: bool = True, accumulator_dtype: StoredAverage = None) -> Any:
    """m ← βm + (1−β)u; u ← m / (1−βᵗ), or m without debiasing.

    Args:
      decay: β in [0, 1).
      debias: divide by 1−βᵗ, so that the first averages are not pulled to zero.
      accumulator_dtype: the dtype or codec that m is stored in, as in `store`; None for the compute
        dtype.

    Memory: one value per parameter.
    """

    def init(params: Any) -> EmaState:
        return EmaState(tree.zero_count(), tree.zeros_like(params))

    def update(updates: Any, state: EmaState) -> Any:
        count = tree.increment(state.count)
        m = tree.lerp(state.ema, updates, decay)
        correction = tree.bias_correction(decay, count) if debias else 1.0
        return tree.scale(1 / correction, m), EmaState(count, m)

    return init, update


class ApplyEveryState(NamedTuple):
    """The count, int32 (), and the sum of the updates held back, like the params."""

    count: Any
    held: Any


@gradient_transformation
def apply_every(k: int = 1) -> Any:
    """u ← the sum of the last k updates at every k-th call, 0 at the others.

    Last in a chain it changes no moment, so it is not one step on a larger batch: that is
    `accumulate`.

    Args:
      k: at least 1.

    Memory: one value per parameter.

    Raises:
      ValueError: for a k below 1.
    """
    if k < 1:
        raise ValueError(f"apply_every: k must be at least 1, got {k}")

    def init(params: Any) -> ApplyEveryState:
        return ApplyEveryState(tree.zero_count(), tree.zeros_like(params))

    def update(updates: Any, state: ApplyEveryState) -> Any:
        due = (state.count + 1) % k == 0
        fresh = state.count % k == 0

        def step(u: Any, held: Any) -> tuple[Any, Any]:
            held = jnp.where(fresh, jnp.zeros_like(held), held) + u
            return jnp.where(due, held, jnp.zeros_like(held)), held

        updates, held = tree.map(step, updates, state.held, outputs=2)
        return updates, ApplyEveryState(tree.increment(state.count), held)

    return init, update
