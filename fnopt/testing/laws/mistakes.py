"""The law of mistakes: an error names the leaf or the argument, and both shapes or the range."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from fnopt.hyperparameters import Tunable
from fnopt.testing.laws.law import Evidence, short
from fnopt.testing.laws.subject import (
    Subject,
    gradients_of,
    op_by_op,
    param_like,
    params_of,
)

SUSPECTS = (-1.0, 1.0, 1.5, 0.0, -0.5, float("inf"), float("-inf"), float("nan"))
"""Numbers, of which those outside a hyperparameter's range must be refused."""

ERRORS = (ValueError, TypeError)


def must_refuse(
    found: Evidence,
    mistake: str,
    words: Sequence[str],
    call: Callable[..., Any],
    *args: Any,
    either: Sequence[Sequence[str]] = ((),),
) -> None:
    """Records a breach unless the call raises ValueError or TypeError with all of these words.

    And with all of one of the groups in `either`.
    """
    with found.at(mistake):
        try:
            call(*args)
        except ERRORS as error:
            groups = [[*words, *group] for group in either]
            missing = [[word for word in group if word not in str(error)] for group in groups]
            fewest = min(missing, key=len)
            found.expect(not fewest, f"the error does not say {fewest}; it {short(error)}")
        else:
            found.breach("is accepted silently")


def may_refuse(
    found: Evidence, mistake: str, word: str, call: Callable[..., Any], *args: Any
) -> None:
    """Records a breach if the call raises anything but such an error with this word."""
    with found.at(mistake):
        try:
            call(*args)
        except ERRORS as error:
            found.expect(word in str(error), f"the error does not say {word!r}; it {short(error)}")


def mistakes_are_named(subject: Subject, found: Evidence) -> None:
    """L8."""
    params, gradients = params_of(), gradients_of()
    with op_by_op():
        state = subject.init(params)
        _wrong_trees(subject, found, params, state, gradients)
        _wrong_state(subject, found, params, gradients)
        _wrong_extras(subject, found, params, state, gradients)
    out_of_range(subject, found)


def _wrong_trees(
    subject: Subject, found: Evidence, params: Any, state: Any, gradients: Any
) -> None:
    layer, both = gradients["layer"], ["(3,)", "(4, 3)"]
    missing = {**gradients, "layer": {"bias": layer["bias"]}}
    more = {**gradients, "extra_leaf": jnp.zeros(3)}
    narrow = {**gradients, "layer": {**layer, "kernel": jnp.ones(3)}}
    grown = {**gradients, "layer": {**layer, "bias": jnp.ones((4, 3))}}
    trees = {
        "a gradient is missing": (missing, ["kernel"]),
        "a gradient too many": (more, ["extra_leaf"]),
        "a gradient of shape (3,) for a parameter of (4, 3)": (narrow, ["kernel", *both]),
        "a gradient of shape (4, 3) for a parameter of (3,)": (grown, ["bias", *both]),
    }
    for mistake, (wrong, words) in trees.items():
        must_refuse(found, mistake, words, subject.update, wrong, state, params)
        must_refuse(
            found, f"{mistake}, under jit", words,
            jax.eval_shape, subject.update, wrong, state, params,
        )  # fmt: skip
    plain, words = subject.plain_update, ["updates", "params"]
    must_refuse(found, "update(state, updates, params)", words, plain, state, gradients, params)
    must_refuse(found, "update(updates, params, state)", words, plain, gradients, params, state)


def _wrong_state(subject: Subject, found: Evidence, params: Any, gradients: Any) -> None:
    other = {**params, "layer": {**params["layer"], "kernel": jnp.ones((5, 2))}}
    state = subject.init(other)
    mine = {path: jnp.shape(x) for path, x, _ in param_like(subject.init(params), params)}
    pairs = [
        (str(jnp.shape(x)), str(mine[path]))
        for path, x, _ in param_like(state, other)
        if "kernel" in path and mine.get(path, jnp.shape(x)) != jnp.shape(x)
    ]
    if not pairs:
        found.note("a state of other params was not tried: no leaf of it has a shape of theirs")
        return
    must_refuse(
        found, "the state of params of other shapes", ["kernel"],
        subject.update, gradients, state, params, either=pairs,
    )  # fmt: skip
    fewer = subject.init({k: v for k, v in params.items() if k != "cube"})
    must_refuse(
        found, "the state of params with fewer leaves", ["cube"],
        subject.update, gradients, fewer, params,
    )  # fmt: skip


def _wrong_extras(
    subject: Subject, found: Evidence, params: Any, state: Any, gradients: Any
) -> None:
    extras = dict(subject.builder.extras(gradients, params))

    def call(extra_args: dict[str, Any], *params: Any) -> Any:
        return subject.plain_update(subject.builder.feed(gradients), state, *params, **extra_args)

    misspelled = extras | {"valeu": 1.0}
    must_refuse(found, "a misspelled extra argument valeu=", ["valeu"], call, misspelled, params)
    for name in extras:
        rest = {k: v for k, v in extras.items() if k != name}
        may_refuse(found, f"without the extra argument {name}", name, call, rest, params)
    may_refuse(found, "without params", "params", call, extras)


def out_of_range(subject: Subject, found: Evidence) -> None:
    """Every hyperparameter refuses every suspect outside its range, as number and as Tunable.

    One that is read in `init` alone refuses every Tunable and every schedule.
    """
    builder = subject.builder
    if not builder.kinds:
        found.note("no hyperparameter was tried: the builder shows no kinds")

    def build(name: str, value: Any) -> Any:
        return builder(**{name: value})

    for name, usual in builder.numbers(initial=True).items():
        kind, words = builder.kinds[name], [builder.name, name]
        wrong: list[Any] = [v for v in SUSPECTS if not kind.contains(v)]
        if kind.initial:
            unchanging = f"{name}, which is read in init alone, as"
            must_refuse(found, f"{unchanging} Tunable", words, build, name, Tunable(usual))
            must_refuse(found, f"{unchanging} schedule", words, build, name, _schedule)
        else:
            wrong += [Tunable(v) for v in wrong]
        for value in wrong:
            range_words = [f"{builder.name}: {name} "]
            must_refuse(found, f"{name}={value}", range_words, build, name, value)
        must_refuse(found, f"{name}='fast'", words, build, name, "fast")


def _schedule(count: Any) -> float:
    return 0.5
