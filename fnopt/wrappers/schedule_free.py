"""Schedule-free: an average that is evaluated in place of a rate that falls.

    z ← z + u                         u the base optimizer's update, at y
    w = tʳ (max γ)ᵖ                   γ the rate, r = 0 and p = 2 by default
    x ← (1−c)x + cz,  c = w / Σw
    y ← βx + (1−β)z

The params of the training loop are y, where gradients are taken. Evaluate and deploy at x:
`eval_params(state, params)`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import tree
from fnopt.core import gradient_transformation
from fnopt.hyperparameters import Decay, LearningRate, NonNegative
from fnopt.rule import Rule, routed
from fnopt.storage import StoredIterate
from fnopt.wrappers.averaging import in_place_of


class ScheduleFreeState(NamedTuple):
    """The count, int32 (); max γ and Σw, each float (); z and x, like the params, in their compute
    dtype; the base optimizer's state.

    Both are kept, and not the one computed from the rounded other and y, so that bfloat16 params
    and β = 0 are no special cases.
    """

    count: Any
    largest_rate: Any
    weight_sum: Any
    z: Any
    x: Any
    inner: Any

    def eval_params(self, params: Any) -> Any:
        """x in the params' dtypes."""
        return in_place_of(params, self.x)


def interpolated(
    base: Rule,
    rate: Any,
    b1: Any,
    weight_lr_power: Any,
    weight_step_power: Any = 0.0,
    *,
    warmup_steps: int | None = None,
    scaled: bool = True,
) -> Any:
    """The pair of a schedule-free method.

    Args:
      base: the rule of z.
      rate: γ but for the warm-up.
      b1: β.
      weight_lr_power: p.
      weight_step_power: r.
      warmup_steps: γ rises over so many steps, by t/T.
      scaled: whether the base's updates hold γ already; else z ← z − γu.
    """

    def init(params: Any) -> ScheduleFreeState:
        zero = jnp.zeros((), jnp.result_type(float))
        return ScheduleFreeState(
            tree.zero_count(), zero, jnp.copy(zero), params, params, base.init(params)
        )

    def update(updates: Any, state: ScheduleFreeState, params: Any, **extra_args: Any) -> Any:
        u, inner = base.update(updates, state.inner, params, **extra_args)
        count = tree.increment(state.count)
        t = tree.weak(count.astype(jnp.result_type(float)))
        warm = 1.0 if warmup_steps is None else jnp.minimum(t / warmup_steps, 1.0)
        gamma = rate * warm
        largest = jnp.maximum(tree.weak(state.largest_rate), gamma)
        weight = t**weight_step_power * largest**weight_lr_power
        total = tree.weak(state.weight_sum) + weight
        c = jnp.where(total == 0, 0.0, weight / jnp.where(total == 0, 1.0, total))
        factor = warm if scaled else -gamma

        def step(u: jax.Array, p: jax.Array, z: jax.Array, x: jax.Array) -> tuple[Any, ...]:
            z = z + factor * u
            x = (1 - c) * x + c * z
            return (b1 * x + (1 - b1) * z) - p, z, x

        updates, z, x = tree.map(step, u, params, state.z, state.x, outputs=3)
        largest, total = (s.astype(state.weight_sum.dtype) for s in (largest, total))
        return updates, ScheduleFreeState(count, largest, total, z, x, inner)

    return init, update, lambda params: routed(base, params)


@gradient_transformation
def schedule_free(
    base_optimizer: Any,
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    weight_lr_power: NonNegative = 2.0,
    state_dtype: StoredIterate = None,
    *,
    weight_step_power: NonNegative = 0.0,
) -> Any:
    """Makes an optimizer schedule-free.

        schedule_free(chain(scale_by_rms(), scale_by_learning_rate(rate)), rate)

    Args:
      base_optimizer: a whole optimizer without momentum of its own, which b1 takes the place of.
      learning_rate: γ, the base optimizer's rate: the same number or schedule, seen at the same
        count.
      b1: β in [0, 1); at 0 gradients are taken at z.
      weight_lr_power: p ≥ 0.
      state_dtype: the dtype or codec that z is stored in, as in `store`; None for the compute
        dtype.
      weight_step_power: r ≥ 0, more weight for later steps.

    Batch-norm statistics must be computed anew at x.

    Memory: two values per parameter, float32 for lower precisions, and the base optimizer's.
    Source: Defazio et al. 2024, arXiv 2405.15682.
    """
    return interpolated(base_optimizer, learning_rate, b1, weight_lr_power, weight_step_power)
