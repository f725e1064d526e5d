"""Steps that are not taken: `guard` against broken and outlying gradients, `apply_if_finite`.

A step is rejected where its gradient, its update or the state that it would leave is not finite,
or where the loss or the gradient's norm lies more than `spike` deviations above its running mean.
What is rejected is never written: the update is zero, and the optimizer's state stays as it was.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import reductions, tree
from fnopt.core import gradient_transformation
from fnopt.hyperparameters import Decay, Positive
from fnopt.rule import routed
from fnopt.wrappers.branching import all_finite, either, pick


class Running(NamedTuple):
    """The mean and variance of a number so far, float (), and how many there were, int32 ()."""

    mean: Any
    variance: Any
    seen: Any

    def add(self, x: jax.Array, decay: Any, wanted: Any) -> Running:
        """With one more number, where it is wanted: the plain mean of the first 1/(1−decay)."""
        seen = self.seen + 1
        share = tree.weak(jnp.maximum(1 / seen.astype(x.dtype), 1 - decay))
        apart = x - self.mean
        mean = self.mean + share * apart
        variance = (1 - share) * (self.variance + share * tree.squared(apart))
        return pick(wanted, Running(mean, variance, seen), self)

    def exceeded(self, x: jax.Array, deviations: Any, after: int) -> jax.Array:
        """Whether x lies so far above the mean; never before `after` numbers are known."""
        limit = self.mean + deviations * tree.sqrt(self.variance)
        return (self.seen >= after) & (x > limit)


def _running() -> Running:
    dtype = jnp.result_type(float)
    return Running(jnp.zeros((), dtype), jnp.zeros((), dtype), tree.zero_count())


class GuardState(NamedTuple):
    """What the guard has seen, and the optimizer's state.

    Attributes:
      count: the steps taken, int32 (), as are the next three.
      rejected: the steps rejected.
      consecutive: the rejected steps since the last that was taken.
      forced: the steps taken although they were bad, by `on_limit="accept"`.
      halted: whether all steps are rejected from here on, bool ().
      norms: the running gradient norm; None without `spike`.
      losses: the running loss; None without `spike`.
      inner: the optimizer's state.
    """

    count: Any
    rejected: Any
    consecutive: Any
    forced: Any
    halted: Any
    norms: Any
    losses: Any
    inner: Any


LIMITS = ("halt", "accept", "reset")


@gradient_transformation
def guard(
    optimizer: Any,
    *,
    skip_nonfinite: bool = True,
    spike: Positive | None = None,
    decay: Decay = 0.98,
    warmup: int = 20,
    max_consecutive: int | None = None,
    on_limit: str = "halt",
    axis_name: Any = None,
) -> Any:
    """An optimizer whose bad steps are not taken.

        optimizer = guard(adamw(1e-3), spike=6.0, max_consecutive=50)
        updates, state = optimizer.update(gradients, state, params, value=loss)
        tree_get(state, "rejected")

    Args:
      optimizer: any transformation.
      skip_nonfinite: reject a step whose gradient, update or new state is infinite or NaN.
      spike: reject a step whose gradient norm, or loss if `value=` is given, is more than so many
        standard deviations above its running mean; None for no such limit.
      decay: of the running means, in [0, 1).
      warmup: how many steps must have been taken before a spike is one.
      max_consecutive: how many steps in a row may be rejected; None for any number.
      on_limit: what happens to the next bad step after them. "halt": it and all that follow are
        rejected, and `halted` is true. "accept": it is taken, and `forced` counts it. "reset": it
        is rejected and the optimizer's state is made anew.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split. It does
        not reach the optimizer, which has its own.

    Raises:
      ValueError: for a limit that does not exist.

    Memory: the optimizer's. With `skip_nonfinite` the optimizer's arithmetic is done twice.
    """
    if on_limit not in LIMITS:
        raise ValueError(f"guard: on_limit must be one of {', '.join(LIMITS)}, got {on_limit!r}")

    def init(params: Any) -> GuardState:
        return GuardState(
            count=tree.zero_count(),
            rejected=tree.zero_count(),
            consecutive=tree.zero_count(),
            forced=tree.zero_count(),
            halted=jnp.array(False),
            norms=None if spike is None else _running(),
            losses=None if spike is None else _running(),
            inner=optimizer.init(params),
        )

    def update(updates: Any, state: GuardState, params: Any = None, **extra_args: Any) -> Any:
        dtype = jnp.result_type(float)
        norm = reductions.whole_norm(updates, axis_name).astype(dtype)
        loss = None if (value := extra_args.get("value")) is None else jnp.asarray(value, dtype)
        numbers = (
            [(state.norms, norm)] if loss is None else [(state.norms, norm), (state.losses, loss)]
        )
        good = jnp.array(True)
        if skip_nonfinite:
            for _, x in numbers:
                good = good & jnp.isfinite(x)
        if spike is not None:
            for running, x in numbers:
                good = good & jnp.logical_not(running.exceeded(x, spike, warmup))
        limit = jnp.array(False)
        if max_consecutive is not None:
            limit = state.consecutive >= max_consecutive
        forced = limit if on_limit == "accept" else jnp.array(False)

        def run() -> Any:
            return optimizer.update(updates, state.inner, params, **extra_args)

        if skip_nonfinite:
            # the step is computed once to look at it, and again to take it: nothing is stored
            good = good & all_finite(*run(), axis_name=axis_name)
        halted = state.halted
        if on_limit == "halt":
            halted = halted | (limit & jnp.logical_not(good))
        taken = (good | forced) & jnp.logical_not(halted)
        new, inner = either("guard", taken, run, lambda: (tree.zeros_like(updates), state.inner))
        if on_limit == "reset" and params is not None:
            again = limit & jnp.logical_not(taken)
            inner = pick(again, optimizer.init(params), inner)
        one = taken.astype(jnp.int32)
        ours = taken & good
        consecutive = (1 - one) * jnp.minimum(state.consecutive, 2**30) + (1 - one)
        if on_limit == "reset":
            consecutive = jnp.where(limit, 0, consecutive)
        norms, losses = state.norms, state.losses
        if spike is not None:
            norms = norms.add(norm, decay, ours)
            if loss is not None:
                losses = losses.add(loss, decay, ours)
        return new, GuardState(
            state.count + one,
            state.rejected + (1 - one),
            consecutive,
            state.forced + (taken & jnp.logical_not(good)).astype(jnp.int32),
            halted,
            norms,
            losses,
            inner,
        )

    return init, update, lambda params: routed(optimizer, params)


@gradient_transformation
def apply_if_finite(inner: Any, max_consecutive_errors: int, *, axis_name: Any = None) -> Any:
    """An optimizer whose steps from infinite or NaN gradients are not taken, up to a limit.

    After `max_consecutive_errors` in a row the next such step is taken all the same, as optax has
    it; here the state's `forced` counts these. `guard` can halt instead.

    Args:
      inner: any transformation.
      max_consecutive_errors: how many steps in a row may be rejected.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split: all
        devices then decide alike. It does not reach the member, which has its own.

    State: `GuardState`. Memory: the optimizer's.
    """
    rule = guard(
        inner, max_consecutive=max_consecutive_errors, on_limit="accept", axis_name=axis_name
    ).rule
    return rule.init, rule.update, rule.routes or (lambda params: routed(inner, params))
