"""Lookahead: fast steps that return every few of them to slow weights, which follow half way.

    every k steps:  φ ← φ + α(θ − φ);  θ ← φ

On plain params: the slow weights are in the state, and `eval_params(state, params)` gives them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import tree
from fnopt.core import gradient_transformation
from fnopt.hyperparameters import Fraction
from fnopt.rule import routed
from fnopt.wrappers.averaging import in_place_of
from fnopt.wrappers.branching import pick


class SlowWeightsState(NamedTuple):
    """The count, int32 (); φ, like the params, in their compute dtype."""

    count: Any
    slow: Any

    def eval_params(self, params: Any) -> Any:
        """φ in the params' dtypes; leaves that have none stay."""
        return in_place_of(params, self.slow)


@gradient_transformation
def return_to_slow_weights(sync_period: int = 6, slow_step_size: Fraction = 0.5) -> Any:
    """Every `sync_period` updates φ ← φ + α(θ + u − φ) and u ← φ − θ; else u as it is.

    The last member of a chain: it needs the updates as they will be applied.

    Args:
      sync_period: k, at least 1.
      slow_step_size: α in [0, 1]; at 1 it does nothing.

    Memory: one value per parameter.
    Source: Zhang et al. 2019, arXiv 1907.08610.

    Raises:
      ValueError: for a period below 1.
    """
    if sync_period < 1:
        raise ValueError(f"return_to_slow_weights: sync_period must be >= 1, got {sync_period}")

    def update(updates: Any, state: SlowWeightsState, params: Any) -> Any:
        count = tree.increment(state.count)
        back = count % sync_period == 0

        def step(u: jax.Array, p: jax.Array, slow: jax.Array) -> tuple[jax.Array, jax.Array]:
            u = jnp.where(back, (slow + slow_step_size * ((p + u) - slow)) - p, u)
            return u, jnp.where(back, p + u, slow)  # where the params will be, and in one pass

        updates, slow = tree.map(step, updates, params, state.slow, outputs=2)
        return updates, SlowWeightsState(count, slow)

    return lambda params: SlowWeightsState(tree.zero_count(), params), update


class LookaheadState(NamedTuple):
    """The slow weights' state, and the fast optimizer's."""

    slow_weights: Any
    inner: Any


@gradient_transformation
def lookahead(
    fast_optimizer: Any,
    sync_period: int,
    slow_step_size: Fraction,
    reset_state: bool = False,
) -> Any:
    """An optimizer that returns every `sync_period` steps to its slow weights.

    Args:
      fast_optimizer: any whole optimizer.
      sync_period: k, at least 1.
      slow_step_size: α in [0, 1].
      reset_state: make the fast optimizer's state anew at each return.

    Params are plain, where optax has pairs of them. Evaluate at `eval_params(state, params)`.

    Memory: one value per parameter, and the optimizer's.
    Source: Zhang et al. 2019, arXiv 1907.08610.

    Raises:
      ValueError: for a period below 1.
    """
    back = return_to_slow_weights(sync_period, slow_step_size).rule

    def init(params: Any) -> LookaheadState:
        return LookaheadState(back.init(params), fast_optimizer.init(params))

    def update(updates: Any, state: LookaheadState, params: Any, **extra_args: Any) -> Any:
        new, inner = fast_optimizer.update(updates, state.inner, params, **extra_args)
        new, slow = back.update(new, state.slow_weights, params)
        if reset_state:
            inner = pick(slow.count % sync_period == 0, fast_optimizer.init(params), inner)
        return new, LookaheadState(slow, inner)

    return init, update, lambda params: routed(fast_optimizer, params)
