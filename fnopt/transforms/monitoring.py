"""Measurements of the updates, kept in the state: `snapshot`, `monitor`, `measure_with_ema`.

The updates pass unchanged. A measure is a function of the updates where it stands in a chain, and
what it returned last is in the state, under the name given: `tree_get(state, "norm")`. Before the
first update it is zero, so that the state's structure, shapes and dtypes are those of the first
step from `init` on.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import leaves
from fnopt.core import gradient_transformation, is_stateless
from fnopt.hyperparameters import Decay, check, kinds_of
from fnopt.recipe import Recipe, bind
from fnopt.rule import Rule, as_rule
from fnopt.storage import StoredAverage, narrower
from fnopt.transforms.accumulation import ema

Measure = Callable[[Any], Any]


class SnapshotState(NamedTuple):
    """The last measurement by its name: any tree of arrays, zeros before the first update."""

    measurement: dict[str, Any]


@gradient_transformation
def snapshot(measure_name: str, measure: Measure) -> Any:
    """Keeps measure(updates) in the state.

        optimizer = chain(snapshot("norm", global_norm), clip_by_global_norm(1.0), adam(1e-3))
        updates, state = optimizer.update(gradients, state, params)
        tree_get(state, "norm")

    optax measures the params in `init`; here the first value is zero.

    Args:
      measure_name: the name in the state.
      measure: updates -> a tree of arrays. It sees a clean tree: None where a leaf is no float.

    Memory: the measurement's.
    """

    def init(params: Any) -> SnapshotState:
        return SnapshotState({measure_name: _zeros_of(_arrays(measure), params)})

    def update(updates: Any, state: SnapshotState) -> Any:
        return updates, SnapshotState({measure_name: _arrays(measure)(updates)})

    return init, update


class MonitorState(NamedTuple):
    """The last measurements by name, and under `<name>_state` the states of measures with one."""

    measurements: dict[str, Any]
    measure_states: dict[str, Any]


@gradient_transformation
def monitor(measures: Mapping[str, Any]) -> Any:
    """Keeps several measurements of the updates in the state, averages of them too.

        monitor({"norm": global_norm, "clipped": measure_with_ema(is_long, decay=0.99)})

    optax's has no measurements before the first update, so that its structure changes there.

    Args:
      measures: name -> a function of the updates, as for `snapshot`, or a pair (init, update) whose
        update gives a measurement in the place of updates, as `measure_with_ema` makes.

    Memory: that of the measurements and of the measures' states.
    """
    rules = {
        name: measure if isinstance(measure, Rule) else _as_measure(measure)
        for name, measure in measures.items()
    }

    def measured(updates: Any, states: Any, params: Any, **extra_args: Any) -> MonitorState:
        measurements, new = {}, {}
        for name, rule in rules.items():
            state = states.get(f"{name}_state", ())
            value, state = rule.update(updates, state, params, **extra_args)
            measurements[name] = _as_arrays(value)
            if f"{name}_state" in states:
                new[f"{name}_state"] = state
        return MonitorState(measurements, new)

    def init(params: Any) -> MonitorState:
        fresh = {f"{name}_state": rule.init(params) for name, rule in rules.items()}
        states = {name: state for name, state in fresh.items() if not is_stateless(state)}
        like = jax.eval_shape(lambda p, s: measured(p, s, p), params, states)
        return MonitorState(_zeros(like.measurements), states)

    def update(
        updates: Any, state: MonitorState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, MonitorState]:
        return updates, measured(updates, state.measure_states, params, **extra_args)

    return init, update


class EmaMeasure(Recipe):
    """A measure with a state, for `monitor`: (updates, state) -> (measurement, state).

    Attributes:
      init: params -> the state of `ema`.
      update: (updates, state) -> (the average of the measurements, state).
    """

    init: Callable[[Any], Any]
    update: Callable[..., tuple[Any, Any]]


def measure_with_ema(
    measure: Measure, decay: Decay, debias: bool = True, accumulator_dtype: StoredAverage = None
) -> EmaMeasure:
    """A measure's exponential moving average: m ← βm + (1−β)·measure(u), shown as m / (1−βᵗ).

    For `monitor`; what it returns takes no place in a chain. A bool or an integer is averaged as
    a float: `measure_with_ema(lambda u: global_norm(u) > 1, 0.99)` is how often a clip at 1 acts.

    Args:
      measure: updates -> a tree of arrays.
      decay: β in [0, 1), a number.
      debias: divide by 1−βᵗ, so that the first averages are not pulled to zero.
      accumulator_dtype: the dtype or codec that m is stored in, as in `store`; None for the compute
        dtype.

    Raises:
      ValueError: for a decay out of range, and an unknown codec or dtype.

    Memory: the measurement's.
    """
    owner, arguments = "measure_with_ema", (measure, decay, debias, accumulator_dtype)
    given = bind(_SIGNATURE, owner, arguments, {})
    b = check(owner, "decay", _KINDS["decay"], decay)
    average = ema(b, debias, narrower(owner, accumulator_dtype)).rule

    def floats(updates: Any) -> Any:
        return jax.tree.map(_as_float, _arrays(measure)(updates))

    def init(params: Any) -> Any:
        return average.init(_zeros_of(floats, params))

    def update(updates: Any, state: Any) -> tuple[Any, Any]:
        return average.update(floats(updates), state)

    made = object.__new__(EmaMeasure)
    made.init, made.update = init, update
    made.factory, made.arguments = measure_with_ema, given
    return made


_SIGNATURE, _KINDS = inspect.signature(measure_with_ema), kinds_of(measure_with_ema)


def _as_measure(measure: Measure) -> Rule:
    """A function of the updates as a measure without state."""
    return as_rule((lambda params: (), lambda u, state: (measure(u), state)), "measure")


def _arrays(measure: Measure) -> Measure:
    """The measure with strongly typed arrays for results."""
    return lambda updates: _as_arrays(measure(updates))


def _as_arrays(measurement: Any) -> Any:
    return jax.tree.map(lambda x: leaves.cast(jnp.asarray(x), jnp.result_type(x)), measurement)


def _as_float(x: jax.Array) -> jax.Array:
    return x if leaves.is_inexact(x) else x.astype(jnp.result_type(float))


def _zeros_of(measure: Measure, params: Any) -> Any:
    return _zeros(jax.eval_shape(measure, params))


def _zeros(like: Any) -> Any:
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
