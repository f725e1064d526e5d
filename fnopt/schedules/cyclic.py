"""Schedules that rise and fall: one cycle, triangular cycles, cosines with warm restarts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from fnopt.schedules.arguments import choice, known, mapping, number, rate, sequence, steps
from fnopt.schedules.join import join_schedules
from fnopt.schedules.piecewise import stairs, through
from fnopt.schedules.schedule import schedule
from fnopt.schedules.shapes import blend, cosine
from fnopt.schedules.warmup import warmup_cosine_decay_schedule

Value = Callable[[jax.Array], Any]


@schedule
def linear_onecycle_schedule(
    transition_steps: int,
    peak_value: Any,
    pct_start: Any = 0.3,
    pct_final: Any = 0.85,
    div_factor: Any = 25.0,
    final_div_factor: Any = 1e4,
) -> Value:
    """Up to peak_value, down again as far, then down to nearly nothing, in three lines.

    (Smith & Topin 2017, arXiv 1708.07120.)

    Ends: peak_value / div_factor at count 0 and at pct_final · transition_steps; peak_value at
    pct_start · transition_steps; peak_value / (div_factor · final_div_factor) from
    transition_steps on. Both inner boundaries are rounded down to whole steps.

    Args:
      transition_steps: positive.
      peak_value: finite and not negative.
      pct_start: the fraction of steps spent rising.
      pct_final: the fraction of steps spent rising and falling back, at least pct_start.
      div_factor: peak over first value, positive.
      final_div_factor: first over last value, positive.

    Raises:
      ValueError: an argument is out of range.
    """
    name = "linear_onecycle_schedule"
    n = steps(name, transition_steps=transition_steps)
    peak = rate(name, peak_value=peak_value)
    start = number(name, at_least=0, at_most=1, pct_start=pct_start)
    final = number(name, at_least=0, at_most=1, pct_final=pct_final)
    if known(start) and known(final) and final < start:
        raise ValueError(f"{name}: pct_final must be >= pct_start ({start:g}), got {final:g}")
    first = peak / number(name, above=0, div_factor=div_factor)
    last = first / number(name, above=0, final_div_factor=final_div_factor)
    knots = (0.0, whole(start * n), whole(final * n), n)
    return lambda count: through(count, knots, (first, peak, first, last), "linear")


@schedule
def cosine_onecycle_schedule(
    transition_steps: int,
    peak_value: Any,
    pct_start: Any = 0.3,
    div_factor: Any = 25.0,
    final_div_factor: Any = 1e4,
) -> Value:
    """Up to peak_value in half a cosine, then down to nearly nothing in another.

    (Smith & Topin 2017, arXiv 1708.07120; the two-phase form of fastai and PyTorch.)

    Ends: peak_value / div_factor at count 0; peak_value at pct_start · transition_steps, rounded
    down to a whole step; peak_value / (div_factor · final_div_factor) from transition_steps on.

    Args:
      transition_steps: positive.
      peak_value: finite and not negative.
      pct_start: the fraction of steps spent rising.
      div_factor: peak over first value, positive.
      final_div_factor: first over last value, positive.

    Raises:
      ValueError: an argument is out of range.
    """
    name = "cosine_onecycle_schedule"
    n = steps(name, transition_steps=transition_steps)
    peak = rate(name, peak_value=peak_value)
    start = number(name, at_least=0, at_most=1, pct_start=pct_start)
    first = peak / number(name, above=0, div_factor=div_factor)
    last = first / number(name, above=0, final_div_factor=final_div_factor)
    knots = (0.0, whole(start * n), n)
    return lambda count: through(count, knots, (first, peak, last), "cosine")


@schedule
def cyclic_schedule(
    init_value: Any,
    peak_value: Any,
    up_steps: int,
    *,
    down_steps: int | None = None,
    mode: str = "triangular",
    gamma: Any = 1.0,
) -> Value:
    """Triangles between init_value and peak_value, again and again. (arXiv 1506.01186.)

    Ends: init_value at count 0 and at each multiple of the cycle, up_steps + down_steps;
    peak_value at up_steps; no last value.

    Args:
      init_value: finite and not negative; so is peak_value.
      peak_value: the first triangle's top.
      up_steps: positive.
      down_steps: positive; None for as many as up.
      mode: "triangular", all alike; "triangular2", each half as high as the one before;
        "exp_range", the height times gamma^count.
      gamma: of "exp_range", in [0, 1].

    Raises:
      ValueError: an argument is out of range, or the mode is unknown.
    """
    name = "cyclic_schedule"
    first, peak = rate(name, init_value=init_value), rate(name, peak_value=peak_value)
    up = steps(name, up_steps=up_steps)
    down = up if down_steps is None else steps(name, down_steps=down_steps)
    choice(name, ("triangular", "triangular2", "exp_range"), mode=mode)
    decay = number(name, at_least=0, at_most=1, gamma=gamma)

    def value(count: jax.Array) -> jax.Array:
        within = jnp.mod(count, up + down)
        height = jnp.where(within < up, within / up, (up + down - within) / down)
        if mode == "triangular2":
            height = height * jnp.exp2(-jnp.floor_divide(count, up + down))
        if mode == "exp_range":
            height = height * jnp.power(jnp.asarray(decay, count.dtype), count)
        return blend(first, peak, (height, 1 - height))

    return value


@schedule
def cosine_warm_restarts_schedule(
    init_value: Any, decay_steps: int, *, multiplier: int = 1, end_value: Any = 0.0
) -> Value:
    """Half cosines from init_value towards end_value, each `multiplier` times as long as the last.

    PyTorch's CosineAnnealingWarmRestarts, with T_0 = decay_steps, T_mult = multiplier and
    eta_min = end_value. (SGDR, arXiv 1608.03983.)

    Ends: init_value at count 0 and at each restart; end_value is neared at each period's end and
    never reached, for the restart is there; no last value.

    Args:
      init_value: finite and not negative; so is end_value.
      decay_steps: the first period, positive.
      multiplier: a static integer, at least 1.
      end_value: the value at each period's bottom.

    Raises:
      ValueError: an argument is out of range.
    """
    name = "cosine_warm_restarts_schedule"
    first, last = rate(name, init_value=init_value), rate(name, end_value=end_value)
    n = steps(name, decay_steps=decay_steps)
    factor = int(steps(name, multiplier=multiplier))

    # Period i is factor^i long in units of n and begins where the others end; the last one listed
    # covers the greatest int32 count.
    lengths = [1]
    while factor > 1 and sum(lengths) < 2**31:
        lengths.append(lengths[-1] * factor)
    begins = [n * float(sum(lengths[:i])) for i in range(len(lengths))]

    def value(count: jax.Array) -> jax.Array:
        if factor == 1:
            return blend(first, last, cosine(jnp.mod(count, n), n))
        begin = stairs(count, begins[1:], begins)
        length = stairs(count, begins[1:], [n * float(length) for length in lengths])
        return blend(first, last, cosine(count - begin, length))

    return value


@schedule
def sgdr_schedule(cosine_kwargs: Sequence[Mapping[str, Any]]) -> Value:
    """`warmup_cosine_decay_schedule`s one after another, each as long as its decay_steps.

    (SGDR, arXiv 1608.03983.)

    Ends: the first cycle's first value at count 0; the last cycle's end_value in the end.

    Args:
      cosine_kwargs: a list of the keyword arguments of each cycle.

    Raises:
      TypeError: cosine_kwargs is not a list or a tuple of dicts.
      ValueError: it is empty, or an argument of a cycle is out of range.
    """
    name = "sgdr_schedule"
    given = sequence(name, cosine_kwargs=cosine_kwargs)
    cycles = [dict(mapping(name, cycle=kwargs)) for kwargs in given]
    if not cycles:
        raise ValueError(f"{name}: cosine_kwargs must have at least one cycle")
    bounds: list[Any] = []
    for kwargs in cycles:
        length = steps(name, decay_steps=kwargs.get("decay_steps", 0))
        bounds.append(length + (bounds[-1] if bounds else 0))
    joined = join_schedules([warmup_cosine_decay_schedule(**k) for k in cycles], bounds[:-1])
    return joined.value


def whole(count: Any) -> Any:
    """The step at or before: a fraction of the steps rounded down."""
    return float(int(count)) if known(count) else jnp.floor(count)
