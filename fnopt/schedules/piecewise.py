"""Schedules given by boundaries: steps of a staircase, and knots to pass through."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from fnopt.schedules.arguments import (
    boundaries,
    choice,
    known,
    mapping,
    number,
    rate,
    sequence,
    steps,
)
from fnopt.schedules.schedule import schedule
from fnopt.schedules.shapes import blend, cosine, linear

Value = Callable[[jax.Array], Any]


@schedule
def piecewise_constant_schedule(
    init_value: Any, boundaries_and_scales: Mapping[int, Any] | None = None
) -> Value:
    """init_value times every scale whose boundary has been reached.

    Ends: init_value at count 0 (unless 0 is a boundary); init_value times all scales from the last
    boundary on. At a boundary the new value rules.

    Args:
      init_value: finite and not negative.
      boundaries_and_scales: {step: scale}, steps in increasing order, scales not negative.

    Raises:
      ValueError: a step, a scale or init_value is out of range, or the steps decrease.
    """
    name = "piecewise_constant_schedule"
    bounds, values = scaled(name, init_value, boundaries_and_scales)
    return lambda count: stairs(count, bounds, values)


@schedule
def piecewise_interpolate_schedule(
    interpolate_type: str, init_value: Any, boundaries_and_scales: Mapping[int, Any] | None = None
) -> Value:
    """From knot to knot, the knots being init_value times the scales up to each boundary.

    Ends: init_value at count 0 (unless 0 is a boundary); init_value times all scales from the last
    boundary on, exactly.

    Args:
      interpolate_type: "linear" or "cosine".
      init_value: finite and not negative.
      boundaries_and_scales: {step: scale}, steps in increasing order, scales not negative.

    Raises:
      ValueError: a step, a scale or init_value is out of range, the steps decrease, or the type is
        unknown.
    """
    name = "piecewise_interpolate_schedule"
    choice(name, ("linear", "cosine"), interpolate_type=interpolate_type)
    bounds, values = scaled(name, init_value, boundaries_and_scales)
    return lambda count: through(count, (0.0, *bounds), values, interpolate_type)


@schedule
def fraction_schedule(
    total_steps: int, fractions_and_values: Mapping[float, Any], *, interpolate_type: str = "linear"
) -> Value:
    """Passes through given values at given fractions of a run, whatever its length.

        fraction_schedule(total_steps, {0.0: 0.0, 0.05: 1e-3, 0.8: 1e-3, 1.0: 0.0})

    is a warmup over the first twentieth, a plateau, and a decay over the last fifth. A fraction
    stands for the step nearest to fraction · total_steps.

    Ends: the first knot's value at count 0 and up to its step; the last knot's value from its
    step on, exactly.

    Args:
      total_steps: positive.
      fractions_and_values: {fraction: value}, fractions in [0, 1] and increasing, values finite and
        not negative; at least one.
      interpolate_type: "linear", "cosine", or "constant" (each value until the next knot).

    Raises:
      ValueError: one of them is out of range, or the fractions decrease.
    """
    name = "fraction_schedule"
    total = steps(name, total_steps=total_steps)
    choice(name, ("linear", "cosine", "constant"), interpolate_type=interpolate_type)
    given = mapping(name, fractions_and_values=fractions_and_values)
    if not given:
        raise ValueError(f"{name}: fractions_and_values must have at least one entry")
    fractions = [number(name, at_least=0, at_most=1, fraction=f) for f in given]
    if any(known(a) and known(b) and b < a for a, b in itertools.pairwise(fractions)):
        raise ValueError(f"{name}: fractions must not decrease, got {fractions}")
    knots = tuple(nearest(f * total) for f in fractions)
    values = tuple(rate(name, value=v) for v in given.values())
    if interpolate_type == "constant":
        return lambda count: stairs(count, knots[1:], values)
    return lambda count: through(count, knots, values, interpolate_type)


@schedule
def step_schedule(init_value: Any, step_size: int, gamma: Any = 0.1) -> Value:
    """init_value · gamma^⌊t / step_size⌋, as PyTorch's StepLR.

    Ends: init_value at counts 0 to step_size - 1; no last value (0 in the limit for gamma < 1).

    Args:
      init_value: finite and not negative.
      step_size: steps of one stair, positive.
      gamma: the factor from stair to stair, not negative.

    Raises:
      ValueError: an argument is out of range.
    """
    name = "step_schedule"
    first = rate(name, init_value=init_value)
    n = steps(name, step_size=step_size)
    factor = number(name, at_least=0, gamma=gamma)
    return lambda count: (
        first * jnp.power(jnp.asarray(factor, count.dtype), jnp.floor_divide(count, n))
    )


@schedule
def multistep_schedule(init_value: Any, milestones: Sequence[int], gamma: Any = 0.1) -> Value:
    """init_value times gamma at each milestone reached, as PyTorch's MultiStepLR.

    Ends: init_value at count 0 (unless 0 is a milestone); init_value · gamma^len(milestones) from
    the last milestone on. A milestone given twice counts twice.

    Args:
      init_value: finite and not negative.
      milestones: steps, not negative and not decreasing.
      gamma: the factor, not negative.

    Raises:
      ValueError: an argument is out of range, or the milestones decrease.
    """
    name = "multistep_schedule"
    first = rate(name, init_value=init_value)
    bounds = boundaries(name, milestones=sequence(name, milestones=milestones))
    factor = number(name, at_least=0, gamma=gamma)
    values = tuple(first * factor**i for i in range(len(bounds) + 1))
    return lambda count: stairs(count, bounds, values)


def nearest(count: Any) -> Any:
    """The nearest whole step."""
    return float(round(count)) if known(count) else jnp.round(count)


def scaled(
    name: str, init_value: Any, boundaries_and_scales: Mapping[int, Any] | None
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The boundaries, and the values before, between and after them."""
    given = mapping(name, boundaries_and_scales=boundaries_and_scales)
    bounds = boundaries(name, boundaries=given)
    values = [rate(name, init_value=init_value)]
    for scale in given.values():
        values.append(values[-1] * number(name, at_least=0, scale=scale))
    return bounds, tuple(values)


def stack(values: Sequence[Any], dtype: Any) -> jax.Array:
    """The scalars as one vector."""
    return jnp.stack([jnp.asarray(value, dtype) for value in values])


def stairs(count: jax.Array, bounds: Sequence[Any], values: Sequence[Any]) -> jax.Array:
    """values[number of bounds reached]."""
    table = stack(values, count.dtype)
    if not bounds:
        return table[0]
    return table[jnp.sum(count >= stack(bounds, count.dtype))]


def through(
    count: jax.Array, knots: Sequence[Any], values: Sequence[Any], interpolate_type: str
) -> jax.Array:
    """The curve through (knots[i], values[i]), constant outside; the last of equal knots rules."""
    table, places = stack(values, count.dtype), stack(knots, count.dtype)
    reached = jnp.sum(count >= places)
    before, after = jnp.maximum(reached - 1, 0), jnp.minimum(reached, len(knots) - 1)
    width = jnp.maximum(places[after] - places[before], 1)
    shape = linear if interpolate_type == "linear" else cosine
    return blend(table[before], table[after], shape(count - places[before], width))
