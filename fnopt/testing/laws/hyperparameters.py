"""The laws of hyperparameters: never rounded, readable, changeable at run time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnopt.hyperparameters import Kind, Tunable, hyperparameters, set_hyperparameters
from fnopt.testing.laws.law import Evidence, NotApplicable
from fnopt.testing.laws.mistakes import must_refuse
from fnopt.testing.laws.subject import (
    Subject,
    changes,
    describe,
    differences,
    gradients_of,
    named,
    not_finite,
    op_by_op,
    param_like,
    params_of,
)
from fnopt.testing.laws.widths import stays_wide

NO_KINDS = "the builder shows no kinds of hyperparameters, so none can be made Tunable"


def constantly(value: float) -> Any:
    """A schedule that gives the same value at every count."""
    return lambda count: jnp.full((), value)


def trajectory(subject: Subject, dtype: Any, steps: int = 2) -> list[Any]:
    """The updates of a few steps with the usual gradients, op by op."""
    gradients = [gradients_of(dtype, step=i) for i in range(steps)]
    return [updates for updates, _, _ in subject.run(params_of(dtype), gradients)]


def never_rounded(subject: Subject, found: Evidence) -> None:
    """L3: values in the state stay float32 with 16-bit params, and act as constants do."""
    shapes = {"kernel": (4, 3), "bias": (3,)}  # no scalar: those of the state are its own
    for dtype in (jnp.bfloat16, jnp.float16):
        params = params_of(dtype, shapes)
        state = subject.init(params)
        own = {path for path, _, _ in param_like(state, params)}
        for path, leaf in named(state).items():
            is_float = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
            if path not in own and is_float and jnp.shape(leaf) == ():
                found.expect(
                    leaf.dtype.itemsize >= 4,
                    f"{jnp.dtype(dtype).name} params: state{path} is {describe(leaf)}",
                )
    numbers = subject.builder.numbers()
    if not numbers:
        if found.breaches:
            return
        raise NotApplicable(f"{NO_KINDS}; no scalar of its state is narrower than float32")
    ways: dict[str, Any] = {"Tunable": Tunable, "schedules": constantly, "arrays": jnp.float32}
    usual = functools.cache(lambda dtype: trajectory(subject, dtype))
    for what, make in ways.items():
        with found.at(f"every hyperparameter as {what}"):
            given = Subject(subject.builder, **{n: make(v) for n, v in numbers.items()})
            found.extend(_otherwise(subject, given, make, numbers, usual))


def _otherwise(
    subject: Subject,
    given: Subject,
    make: Callable[[float], Any],
    numbers: dict[str, float],
    usual: Callable[[Any], list[Any]],
) -> Iterator[str]:
    """Where hyperparameters that are given in another way do not act as the numbers do.

    All at once; one by one where that is not so, to say which. In bfloat16 too, unless the step
    has the arithmetic of float32 there.
    """
    wide = stays_wide(given, jnp.bfloat16) and stays_wide(subject, jnp.bfloat16)
    for dtype in (jnp.float32,) if wide else (jnp.float32, jnp.bfloat16):
        wanted = usual(dtype)
        together = list(differences(trajectory(given, dtype), wanted, 1e-3))
        if not together:
            continue
        culprits = [
            name
            for name, value in numbers.items()
            for alone in [Subject(subject.builder, **{name: make(value)})]
            if list(differences(trajectory(alone, dtype), wanted, 1e-3))
        ]
        yield f"{jnp.dtype(dtype).name} params: {together[0]}; it is {culprits or 'all at once'}"


def run_time_hyperparameters(subject: Subject, found: Evidence) -> None:
    """L11."""
    builder = subject.builder
    _readable(subject, found)
    numbers = builder.numbers()
    if not numbers:
        if found.breaches:
            return
        raise NotApplicable(NO_KINDS)
    params, gradients = params_of(), gradients_of()
    tunable = Subject(builder, **{name: Tunable(value) for name, value in numbers.items()})
    start = tunable.init(params)
    shown = hyperparameters(start)
    places = {n: [k for k in shown if k.rsplit("/", 1)[-1] == n] for n in numbers}
    for name, value in numbers.items():
        with found.at(f"{name}=Tunable({value:g})"):
            if len(places[name]) != 1:
                found.breach(f"is not one readable hyperparameter: there are {list(shown)}")
            elif not np.isclose(float(shown[places[name][0]]), value, rtol=1e-6):
                found.breach(f"reads {shown[places[name][0]]}")
    public = {name: places[name][0] for name in numbers if len(places[name]) == 1}
    known = {name: numbers[name] for name in public}
    trial = Trial(tunable, start, known, public)
    _changes_take_effect(trial, found)
    _errors_where_fixed(subject, found, known)
    with found.at("all changed at once, under jit"):
        halved = {public[n]: v / 2 for n, v in known.items()}
        found.extend(changes(start, set_hyperparameters(start, **halved)))
        _, state, _ = jax.eval_shape(tunable.advance, gradients, start, params)
        found.extend(changes(start, state))
    _mapped_and_differentiated(trial, found)


class Trial(NamedTuple):
    """An optimizer whose every hyperparameter is `Tunable`.

    Attributes:
      tunable: the optimizer.
      start: its first state.
      known: hyperparameter -> the value that it was built with.
      public: hyperparameter -> its name in the state.
    """

    tunable: Subject
    start: Any
    known: dict[str, float]
    public: dict[str, str]

    def after(self, state: Any) -> Any:
        """The updates of its first step from a state, op by op."""
        with op_by_op():
            return self.tunable.update(gradients_of(), state, params_of())[0]


def _readable(subject: Subject, found: Evidence) -> None:
    builder = subject.builder
    tracked = [name for name, kind in builder.kinds.items() if kind.tracked]
    if not builder.kinds and builder.accepts("learning_rate"):
        tracked = ["learning_rate"]
    shown = [name.rsplit("/", 1)[-1] for name in hyperparameters(subject.init(params_of()))]
    for name in tracked:
        if builder.arguments.get(name) is not None:
            found.expect(
                name in shown,
                f"{name} cannot be read: hyperparameters(state) are {shown or 'none'}",
            )


def another(kind: Kind, value: float) -> float:
    """Another value that the hyperparameter may take."""
    candidates = (value / 2, 0.25, 2.0, 1.0, 0.0)
    return next((x for x in candidates if x != value and kind.contains(x)), value)


def _changes_take_effect(trial: Trial, found: Evidence) -> None:
    """A value set in a fresh state acts as one that the optimizer was built with.

    All at once first; one by one where that is not so, to say which.
    """
    tunable, start, known, public = trial
    kinds = tunable.builder.kinds
    new = {name: another(kinds[name], value) for name, value in known.items()}

    def compared(values: dict[str, float]) -> list[str]:
        changed = set_hyperparameters(start, **{public[n]: v for n, v in values.items()})
        built = Subject(tunable.builder, **values)
        with op_by_op():
            wanted, _ = built.update(gradients_of(), built.init(params_of()), params_of())
        return list(differences(trial.after(changed), wanted, 1e-3))

    before, together = len(found.breaches), ["an error"]
    with found.at("all hyperparameters set to other values"):
        together = compared(new)
    if not together:
        return
    for name, value in known.items():
        with found.at(f"{name} set from {value:g} to {new[name]:g}"):
            found.extend(
                f"{words} of an optimizer built so" for words in compared({name: new[name]})
            )
    if len(found.breaches) == before:
        with found.at(f"together set to {new}"):
            found.extend(f"{words} of an optimizer built so" for words in together)


def _errors_where_fixed(subject: Subject, found: Evidence, known: dict[str, float]) -> None:
    fixed = subject.init(params_of())

    def change(name: str, value: float) -> Any:
        return set_hyperparameters(fixed, **{name: value})

    for name, value in known.items():
        mistake = f"setting {name}, which is a number"
        must_refuse(found, mistake, [name], change, name, value)


def _mapped_and_differentiated(trial: Trial, found: Evidence) -> None:
    tunable, start, known, public = trial

    def first(values: dict[str, Any]) -> Any:
        """The first updates with these values."""
        state = set_hyperparameters(start, **values)
        return tunable.update(gradients_of(), state, params_of())[0]

    with found.at("vmap over the hyperparameters against a loop"):
        factors = (0.5, 1.0)
        batch = {public[n]: jnp.asarray([f * v for f in factors]) for n, v in known.items()}
        mapped = tunable.once(jax.vmap(first))(batch)
        for i in range(len(factors)):
            one = {name: values[i] for name, values in batch.items()}
            alone = trial.after(set_hyperparameters(start, **one))
            found.extend(differences(jax.tree.map(lambda x: x[i], mapped), alone, 1e-4))
    with found.at("the derivative by the hyperparameters"):

        def total(values: dict[str, Any]) -> jax.Array:
            sums = [jnp.sum(u) for u in jax.tree.leaves(first(values))]
            return jnp.stack(sums).sum()

        values = {public[n]: v for n, v in known.items()}
        found.extend(not_finite(tunable.once(jax.grad(total))(values)))
