"""A large batch in several small ones: `accumulate` and `MultiSteps`.

    G ← G + wg;   W ← W + w            at each of k micro-batches; the updates are zero
    the optimizer gets G / W           at the k-th; G, W ← 0

The optimizer runs at each k-th call alone, so its schedules count its own steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import leaves, mesh_axes, reductions, tree
from fnopt.core import gradient_transformation
from fnopt.rule import Rule, routed
from fnopt.state import find
from fnopt.storage import StoredSum
from fnopt.wrappers.branching import either


class AccumulateState(NamedTuple):
    """The count of optimizer steps and the micro-batches gathered, int32 (); whether the last call
    made a step, bool (); W, float (); G, like the params; what the skipping function said last, or
    (); the optimizer's state."""

    count: Any
    mini_step: Any
    updated: Any
    weight: Any
    gathered: Any
    skip_state: Any
    inner: Any


def _check_every(owner: str, word: str, every: Any) -> None:
    if isinstance(every, bool) or not (isinstance(every, int) or callable(every)):
        raise TypeError(f"{owner}: {word} must be an int or a function of the count, got {every!r}")
    if isinstance(every, int) and every < 1:
        raise ValueError(f"{owner}: {word} must be at least 1, got {every}")


def _accumulated(
    owner: str, optimizer: Rule, every: Any, mean: bool, should_skip: Any, weighted: bool
) -> Any:
    def init(params: Any) -> AccumulateState:
        zero = tree.zero_count()
        gathered, skip_state = tree.zeros_like(params), ()
        if should_skip is not None:
            skip_state = jax.eval_shape(lambda: should_skip(gathered, zero, params)[1])
            skip_state = tree.zeros_like(skip_state)
        weight = jnp.zeros((), jnp.result_type(float))
        return AccumulateState(
            zero,
            jnp.copy(zero),
            jnp.array(False),
            weight,
            gathered,
            skip_state,
            optimizer.init(params),
        )

    def update(
        updates: Any,
        state: AccumulateState,
        params: Any = None,
        *,
        weight: Any = None,
        flush: Any = False,
        **extra_args: Any,
    ) -> Any:
        if weighted and weight is None:
            raise TypeError(
                f"{owner} needs weight=...: call update(updates, state, params, weight=...)"
            )
        share = tree.weak(1.0 if weight is None else weight)
        skip, skip_state = jnp.array(False), state.skip_state
        if should_skip is not None:
            skip, skip_state = should_skip(updates, state.count, params)
            share = share * tree.weak(jnp.where(skip, 0.0, 1.0))
        total = tree.weak(state.weight) + share
        # an update that is only there to flush is no micro-batch
        new = jnp.logical_not(skip | (jnp.asarray(flush) & (share == 0)))
        mini_step = state.mini_step + new.astype(state.mini_step.dtype)
        k = every(state.count) if callable(every) else every
        due = ((mini_step >= k) | flush) & (total > 0)

        fresh = state.mini_step == 0

        def add(g: jax.Array, sofar: jax.Array) -> jax.Array:
            # what was stepped on is forgotten here; a skipped gradient may be NaN
            sofar = jnp.where(fresh, jnp.zeros_like(sofar), sofar)
            return sofar + jnp.where(share == 0, jnp.zeros_like(g), share * g)

        gathered = tree.map(add, updates, state.gathered)

        def step() -> Any:
            scale = 1 / jnp.where(total == 0, 1.0, total) if mean else 1.0
            return optimizer.update(tree.scale(scale, gathered), state.inner, params, **extra_args)

        updates, inner = either(owner, due, step, lambda: (tree.zeros_like(updates), state.inner))
        made = due.astype(jnp.int32)
        kept = jnp.where(due, 0.0, total).astype(state.weight.dtype)
        count = jnp.minimum(state.count, jnp.iinfo(jnp.int32).max - 1) + made
        return updates, AccumulateState(
            count, mini_step * (1 - made), due, kept, gathered, skip_state, inner
        )

    return init, update, lambda params: routed(optimizer, params)


@gradient_transformation
def accumulate(
    optimizer: Any, every: int | Callable[[jax.Array], Any], *, weight: bool = False
) -> Any:
    """An optimizer that steps on the mean gradient of every k micro-batches.

        optimizer = accumulate(adamw(1e-3), every=4, weight=True)
        updates, state = optimizer.update(gradients, state, params, weight=tokens)

    Args:
      optimizer: any transformation.
      every: k ≥ 1, or a function of the number of optimizer steps made that gives it. A static 1 is
        the optimizer itself, its state included.
      weight: whether `update` must be given `weight=`, the micro-batch's weight in the mean (its
        number of tokens, say). It may always be given; without it each counts alike.

    `update` also takes `flush=`: True steps on what is gathered, however little; see `flush`. Other
    extra arguments reach the optimizer at the last micro-batch of a step.

    Raises:
      ValueError: for a k below 1.
      TypeError: where `update` is called without a weight that is asked for.

    Memory: one value per parameter, and the optimizer's.
    """
    _check_every("accumulate", "every", every)
    if type(every) is int and every == 1:
        return optimizer.init, optimizer.update, lambda params: routed(optimizer, params)
    return _accumulated("accumulate", optimizer, every, True, None, weight)


@gradient_transformation
def MultiSteps(
    opt: Any,
    every_k_schedule: int | Callable[[jax.Array], Any],
    use_grad_mean: bool = True,
    should_skip_update_fn: Callable[..., Any] | None = None,
    accumulator_dtype: StoredSum = None,
) -> Any:
    """`accumulate` under its familiar name, with sums and skipping.

    Args:
      opt: any transformation.
      every_k_schedule: k ≥ 1, or a function of the number of optimizer steps made that gives it.
      use_grad_mean: step on the mean of the gradients, or on their sum.
      should_skip_update_fn: (updates, count, params) -> (bool, a tree of arrays for the state): a
        micro-batch for which it is true is left out; `skip_not_finite`, for example.
      accumulator_dtype: the dtype or codec that G is stored in, as in `store`; None for the compute
        dtype.

    A transformation and no class: its `init` and `update` are used as any other's, and
    `has_updated(state)` says whether the last call made a step. Gradients are gathered in float32.

    Raises:
      ValueError: for a k below 1.

    Memory: one value per parameter, and the optimizer's.
    """
    _check_every("MultiSteps", "every_k_schedule", every_k_schedule)
    return _accumulated(
        "MultiSteps", opt, every_k_schedule, use_grad_mean, should_skip_update_fn, False
    )


def has_updated(state: Any) -> jax.Array:
    """Whether the last call made an optimizer step: bool (), for a state of `accumulate`."""
    return jnp.copy(find(state, AccumulateState).updated)


def flush(optimizer: Any, state: Any, params: Any, **extra_args: Any) -> tuple[Any, Any]:
    """(updates, state) of a step on what is gathered; zero updates where nothing is.

    For the end of an epoch whose micro-batches do not come out even.

    Args:
      optimizer: `accumulate` or `MultiSteps`, at any depth.
      state: its state.
      params: the params.
      **extra_args: the extra arguments of `update`.

    Raises:
      TypeError: if nothing in the optimizer accumulates.
    """
    zeros = jax.tree.map(
        lambda p: jnp.zeros_like(p) if leaves.is_inexact(p) else p, params, is_leaf=tree.is_none
    )
    return optimizer.update(zeros, state, params, flush=True, weight=0.0, **extra_args)


def skip_not_finite(
    updates: Any, gradient_step: Any, params: Any, *, axis_name: Any = None
) -> tuple[jax.Array, dict[str, Any]]:
    """For `MultiSteps`: leave out gradients with an infinite or NaN entry.

    Inside `shard_map` or `pmap`, `axis_name` (by `functools.partial`) names the mesh axes over
    which the tree is split: all devices then decide alike.

    Returns:
      bool (); and a dict with it and with the number of such entries, int32 ().
    """

    def count(u: jax.Array) -> jax.Array:
        bad = jnp.sum(jnp.logical_not(jnp.isfinite(u)))
        return mesh_axes.across(jax.lax.psum, bad, mesh_axes.split_axes(u, axis_name))

    bad = [count(u) for u in jax.tree.leaves(updates)]
    number = jnp.stack(bad).sum() if bad else jnp.zeros((), jnp.int32)
    return number > 0, {"should_skip": number > 0, "num_not_finite": number.astype(jnp.int32)}


def skip_large_updates(
    updates: Any,
    gradient_step: Any,
    params: Any,
    max_squared_norm: Any,
    *,
    axis_name: Any = None,
) -> tuple[jax.Array, dict[str, Any]]:
    """For `MultiSteps`, by `functools.partial`: leave out gradients with ‖g‖² ≥ a bound, or NaN.

    `axis_name` as in `skip_not_finite`.

    Returns:
      bool (); and a dict with it and with ‖g‖², float (), which may be infinite for a finite g.
    """
    size = reductions.norm(updates, axis_name)
    bad = jnp.logical_not(size < jnp.sqrt(jnp.asarray(max_squared_norm, size.dtype)))
    return bad, {"should_skip": bad, "norm_squared": size * size}
