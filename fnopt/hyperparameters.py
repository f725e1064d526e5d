"""Hyperparameters: their kinds and ranges, schedules and `Tunable` values, and where they live.

A factory annotates each numeric parameter with a kind. The boundary (`fnopt.core`) then accepts
a number, an array, a schedule or a `Tunable` for it, and the rule sees a plain scalar.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnopt import tree
from fnopt.recipe import freeze

Schedule = Callable[[jax.Array], Any]


@dataclasses.dataclass(frozen=True)
class Kind:
    """What values a hyperparameter may take.

    Attributes:
      range: the range in words, for errors.
      contains: whether a number is in it; never true for NaN.
      tracked: whether its current value is kept in the state even where it is a constant.
      initial: whether it is read in `init` alone, so that a later change could have no effect.
      optional: whether None may stand in its place.
    """

    range: str
    contains: Callable[[float], bool]
    tracked: bool = False
    initial: bool = False
    optional: bool = False


@dataclasses.dataclass(frozen=True)
class Tunable:
    """A hyperparameter that lives in the state and may be changed between steps.

    `adam(Tunable(1e-3))` starts at 1e-3; `set_hyperparameters(state, learning_rate=1e-4)`
    changes it without a second compile. One float scalar of state.
    """

    value: Any

    def __hash__(self) -> int:
        return hash(("Tunable", freeze(self.value)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tunable) and freeze(self.value) == freeze(other.value)


@dataclasses.dataclass(frozen=True)
class Labeled:
    """A schedule or Tunable on its way through a composition, under the name the user gave it.

    `sgd(momentum=Tunable(0.9))` hands it to `trace(decay)`; the state shows `momentum`.
    """

    name: str
    value: Any


def label(kinds: Mapping[str, Kind], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, hyperparameters that live in the state labeled with their names."""
    return {
        name: Labeled(name, value)
        if name in kinds and (isinstance(value, Tunable) or callable(value))
        else value
        for name, value in arguments.items()
    }


Number = Any
"""float | jax.Array | Schedule | Tunable to the caller; to the rule a float or weak scalar."""

Real = Annotated[Number, Kind("a finite number", math.isfinite)]
Positive = Annotated[Number, Kind("finite and above 0", lambda x: 0 < x < math.inf)]
NonNegative = Annotated[Number, Kind("finite and at least 0", lambda x: 0 <= x < math.inf)]
Initial = Annotated[
    Number, Kind("finite and at least 0", lambda x: 0 <= x < math.inf, initial=True)
]
Bound = Annotated[Number, Kind("above 0", lambda x: x > 0)]
Decay = Annotated[Number, Kind("in [0, 1)", lambda x: 0 <= x < 1)]
Fraction = Annotated[Number, Kind("in [0, 1]", lambda x: 0 <= x <= 1)]
LearningRate = Annotated[
    Number, Kind("finite and at least 0", lambda x: 0 <= x < math.inf, tracked=True)
]


class HyperparametersState(NamedTuple):
    """The state of a rule whose hyperparameters are tracked, scheduled or tunable.

    Attributes:
      count: int32 (), the updates made so far, which the schedules see.
      current: what the last update used, by name; float32 (float64 under x64) ().
      tunable: what the next update will use, by name, for `set_hyperparameters`.
      rule: the rule's own state.
    """

    count: Any
    current: dict[str, jax.Array]
    tunable: dict[str, jax.Array]
    rule: Any


def kinds_of(factory: Callable[..., Any]) -> dict[str, Kind]:
    """The kinds in a factory's annotations, by parameter name."""
    hints = typing.get_type_hints(factory, include_extras=True)
    kinds = {name: _kind(hint) for name, hint in hints.items() if name != "return"}
    return {name: kind for name, kind in kinds.items() if kind is not None}


def _kind(hint: Any) -> Kind | None:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        found = [k for k in map(_kind, typing.get_args(hint)) if k is not None]
        optional = type(None) in typing.get_args(hint)
        return dataclasses.replace(found[0], optional=optional) if found else None
    metadata = getattr(hint, "__metadata__", ())
    return next((m for m in metadata if isinstance(m, Kind)), None)


class Hyperparameters:
    """The validated hyperparameters of one call of a factory, sorted by how they are given.

    Attributes:
      names: parameter -> the name in the state, where a composition gave it another.
      static: numbers, folded at double precision, and traced arrays, weakly typed.
      scheduled: schedules.
      tunable: start values of `Tunable`s.
      tracked: names of constants whose current value the state shows.
    """

    def __init__(self, owner: str, kinds: Mapping[str, Kind], arguments: inspect.BoundArguments):
        self.names: dict[str, str] = {}
        self.static: dict[str, Any] = {}
        self.scheduled: dict[str, Schedule] = {}
        self.tunable: dict[str, Any] = {}
        self.tracked: list[str] = []
        for name, kind in kinds.items():
            value = arguments.arguments[name]
            if isinstance(value, Labeled):
                self.names[name], value = value.name, value.value
            if value is None and kind.optional:
                continue
            if kind.initial and (isinstance(value, Tunable) or callable(value)):
                raise TypeError(
                    f"{owner}: {name} is read once, in init, so a schedule or a Tunable could "
                    f"have no effect; expected a number, got {value!r}"
                )
            if isinstance(value, Tunable):
                self.tunable[name] = check(owner, name, kind, value.value)
            elif callable(value) and not isinstance(value, type):
                self.scheduled[name] = value
            else:
                self.static[name] = check(owner, name, kind, value)
                if kind.tracked:
                    self.tracked.append(name)

    @property
    def is_static(self) -> bool:
        """Whether no value lives in the state."""
        return not (self.scheduled or self.tunable or self.tracked)

    def start(self) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """(current, tunable) of a fresh state."""
        tunable = {self.shown(name): _array(value) for name, value in self.tunable.items()}
        return self.current(tree.zero_count()), tunable

    def current(self, count: jax.Array) -> dict[str, jax.Array]:
        """The scheduled and tracked values at a count."""
        tracked = {self.shown(name): _array(self.static[name]) for name in self.tracked}
        live = {self.shown(name): self._scheduled(name, count) for name in self.scheduled}
        return tracked | live

    def shown(self, name: str) -> str:
        """A parameter's name in the state."""
        return self.names.get(name, name)

    def _scheduled(self, name: str, count: jax.Array) -> jax.Array:
        value = _array(self.scheduled[name](count))
        if value.shape:
            raise ValueError(
                f"the schedule for {name} must return a scalar, got an array of shape {value.shape}"
            )
        return value

    def values(
        self, current: Mapping[str, jax.Array], tunable: Mapping[str, jax.Array]
    ) -> dict[str, Any]:
        """What the rule is built with: numbers, and weakly typed scalars."""
        live = {name: tree.weak(current[self.shown(name)]) for name in self.scheduled}
        live |= {name: tree.weak(tunable[self.shown(name)]) for name in self.tunable}
        return self.static | live


def check(owner: str, name: str, kind: Kind, value: Any) -> Any:
    """A number as a Python float, a traced array weakly typed; or an error naming the range."""
    expected = f"{owner}: {name} must be {kind.range}"
    array = isinstance(value, jax.Array | np.ndarray | np.generic)
    if array and np.shape(value) != ():
        raise ValueError(f"{expected}: a scalar, got an array of shape {np.shape(value)}")
    if isinstance(value, jax.core.Tracer):
        return tree.weak(value)
    if isinstance(value, bool) or not (array or isinstance(value, int | float)):
        raise TypeError(
            f"{expected}: a number, a scalar array, a schedule (count -> value) or a Tunable, "
            f"got {value!r}"
        )
    number = float(value)
    if not kind.contains(number):
        raise ValueError(f"{expected}, got {number:g}")
    return number


def _array(value: Any) -> jax.Array:
    """In the default float dtype: hyperparameters are never rounded to a param's dtype."""
    return jax.lax.convert_element_type(jnp.asarray(value), jnp.result_type(float))


# Reading and changing them


def _is_owner(node: Any) -> bool:
    return isinstance(node, HyperparametersState)


def _owners(state: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[str, HyperparametersState]]:
    """Every node that keeps hyperparameters, outermost first, with the words of its path."""
    found = []
    for path, node in tree.nodes(state, _is_owner):
        whole = (*prefix, *path)
        found.append((tree.path_name(whole), node))
        found += _owners(node.rule, whole)
    return found


def _named(state: Any) -> dict[str, tuple[str, bool]]:
    """Public name -> (owner's path, whether tunable): no more of the path than tells them apart."""
    places: dict[str, list[tuple[str, bool]]] = {}
    for path, node in _owners(state):
        for name in (*node.current, *node.tunable):
            places.setdefault(name, []).append((path, name in node.tunable))
    return {
        "/".join([*words, name]): place
        for name, owners in places.items()
        for words, place in zip(_telling([path.split("/") for path, _ in owners]), owners)
    }


def _telling(paths: list[list[str]]) -> list[list[str]]:
    """The paths without the words that all of them begin or end with."""
    for _ in range(2):
        same = 0
        for words in zip(*paths):
            if len(set(words)) > 1:
                break
            same += 1
        paths = [path[same:][::-1] for path in paths]
    return [[word for word in path if word] for path in paths]


def hyperparameters(state: Any) -> dict[str, jax.Array]:
    """The hyperparameters that live in a state, through any nesting: name -> scalar.

    Scheduled values and the learning rate are those that the last update used (before the
    first, those that it will use); tunable ones are those that the next update will use. A name
    that occurs twice is preceded by its place: `encoder/learning_rate`.
    """
    owners = dict(_owners(state))
    result = {}
    for public, (path, _) in _named(state).items():
        node = owners[path]
        name = public.rsplit("/", 1)[-1]
        result[public] = node.tunable[name] if name in node.tunable else node.current[name]
    return result


def set_hyperparameters(state: Any, **values: Any) -> Any:
    """A state with tunable hyperparameters changed: same treedef, dtypes, no second compile.

    Args:
      state: the state of an optimizer built with `Tunable` values, at any depth of nesting.
      **values: new values by the names that `hyperparameters(state)` shows; scalars, or
        arrays of the stored shape where the state is batched by `vmap`.

    Raises:
      ValueError: for a name that the state does not have, one that is fixed (a number or a
        schedule), a value out of shape, or a NaN.
    """
    named = _named(state)
    wanted: dict[tuple[str, str], Any] = {}
    for public, value in values.items():
        if public not in named:
            inside = [n for n in named if n.endswith(f"/{public}")]
            hint = f"; it occurs several times: name one of {inside}" if inside else ""
            raise ValueError(
                f"set_hyperparameters: no {public!r} in this state; known here: "
                f"{', '.join(named) or 'none'}{hint}"
            )
        path, tunable = named[public]
        if not tunable:
            raise ValueError(
                f"set_hyperparameters: {public!r} is fixed by a number or a schedule, so a change "
                f"could not take effect; build the optimizer with {public}=Tunable(value)"
            )
        if not isinstance(value, jax.core.Tracer) and bool(np.isnan(np.asarray(value)).any()):
            raise ValueError(f"set_hyperparameters: {public!r} must not be NaN")
        wanted[path, public.rsplit("/", 1)[-1]] = value

    def change(path: tuple[Any, ...], node: Any) -> Any:
        if not _is_owner(node):
            return node
        place = tree.path_name(path)
        changed = {
            name: _replace(name, old, wanted[place, name]) if (place, name) in wanted else old
            for name, old in node.tunable.items()
        }
        inner = jax.tree_util.tree_map_with_path(
            lambda p, n: change((*path, *p), n), node.rule, is_leaf=_is_owner
        )
        return node._replace(tunable=changed, rule=inner)

    return jax.tree_util.tree_map_with_path(change, state, is_leaf=_is_owner)


def _replace(name: str, old: jax.Array, new: Any) -> jax.Array:
    value = jax.lax.convert_element_type(jnp.asarray(new), old.dtype)
    if value.shape not in ((), old.shape):
        raise ValueError(
            f"set_hyperparameters: {name!r} has shape {old.shape}, got shape {value.shape}"
        )
    value = jnp.broadcast_to(value, old.shape)
    sharded = isinstance(old, jax.Array) and not isinstance(old, jax.core.Tracer)
    if sharded and not isinstance(value, jax.core.Tracer) and old.committed:
        value = jax.device_put(value, old.sharding)
    return value
