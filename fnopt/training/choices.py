"""Optimizers and their hyperparameters by name: `--optimizer adam --set b1=0.95`."""

from __future__ import annotations

import difflib
import importlib
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fnopt.core import GradientTransformation, factories
from fnopt.training.errors import CommandError
from fnopt.training.rates import SCHEDULES, make_schedule

LEARNING_RATES = {
    "sgd": 0.2,
    "momentum": 0.05,
    "adagrad": 0.05,
    "rmsprop": 1e-3,
    "adam": 1e-3,
    "adamw": 1e-3,
    "adamw_4bit": 1e-3,
    "adamw_8bit": 1e-3,
    "adamw_bf16_state": 1e-3,
    "lion": 2e-4,
    "lion_8bit": 2e-4,
    "acprop": 5e-4,
    "adabelief": 2e-3,
    "adahessian": 0.02,
    "adam_mini": 2e-3,
    "adamax": 5e-3,
    "adamaxw": 5e-3,
    "adan": 5e-3,
    "apollo": 0.01,
    "apollo_mini": 0.01,
    "came": 5e-4,
    "dowg": 0.5,
    "dpsgd": 1.0,
    "fromage": 0.01,
    "ftrl": 0.2,
    "galore": 0.01,
    "lamb": 2e-3,
    "lars": 1.0,
    "mars_adamw": 2e-3,
    "mars_lion": 2e-4,
    "noisy_sgd": 0.2,
    "novograd": 0.01,
    "optimistic_gradient_descent": 0.2,
    "radam": 5e-3,
    "ranger": 0.01,
    "rprop": 5e-4,
    "schedule_free_adamw": 5e-3,
    "schedule_free_sgd": 1.0,
    "sign_sgd": 5e-4,
    "signum": 2e-4,
    "simplified_ademamix": 5e-6,
    "sm3": 0.05,
    "sophia": 2e-4,
    "yogi": 5e-3,
}
"""Default learning rates, good for a small network on the digits, where 1e-3 and the factory's own
are not. The cards of `fnopt.bench` train with them."""


def optimizers() -> dict[str, Callable[..., GradientTransformation]]:
    """fnopt's whole optimizers by name: factories of their shelf that take a learning rate."""
    public = factories(importlib.import_module("fnopt"))
    return {
        name: factory
        for name, factory in public.items()
        if factory.__module__.startswith("fnopt.optimizers.")
        and rate_name(factory)
        and not name.startswith("scale_by_")
    }


def rate_name(factory: Callable[..., Any]) -> str | None:
    """The name of a factory's learning rate: `learning_rate`, or `max_learning_rate`."""
    kinds: Mapping[str, Any] = factory.kinds  # type: ignore[attr-defined]
    return next((name for name, kind in kinds.items() if kind.tracked), None)


def default_rate(name: str) -> float | None:
    """The learning rate of an optimizer that is given none; None where the factory decides."""
    factory = optimizers()[name]
    default = inspect.signature(factory).parameters[str(rate_name(factory))].default
    usual = 1e-3 if default is inspect.Parameter.empty else default
    return LEARNING_RATES.get(name, usual)


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'adam'?`, or the names there are."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names)}"


def find_optimizer(name: str) -> Callable[..., GradientTransformation]:
    """The factory of that name.

    Raises:
      CommandError: there is none; it offers the nearest name.
    """
    known = optimizers()
    if name not in known:
        raise CommandError(f"unknown optimizer {name!r}; {nearest(name, known)}")
    return known[name]


def assignments(words: Iterable[str], optimizer: str, others: Iterable[str] = ()) -> dict[str, str]:
    """The `name=value` words that concern one optimizer, by name; the last of a name counts.

    `adam.b1=0.8` concerns only adam, in a comparison with `others`.

    Raises:
      CommandError: a word has no `=`, or begins with an optimizer that takes no part.
    """
    taking_part = {optimizer, *others}
    chosen = {}
    for word in words:
        name, equals, value = word.partition("=")
        name = name.strip()
        if not equals or not name or not value.strip():
            raise CommandError(f"--set {word}: expected name=value, as in learning_rate=0.01")
        owner, dot, key = name.rpartition(".")
        if dot and owner not in taking_part:
            raise CommandError(
                f"--set {word}: {owner!r} takes no part; {nearest(owner, taking_part)}"
            )
        if not dot or owner == optimizer:
            chosen[key] = value.strip()
    return chosen


def build(
    name: str, words: Iterable[str], total_steps: int, seed: int = 0
) -> GradientTransformation:
    """The optimizer of that name with the hyperparameters given as `name=value` words.

    Args:
      name: a public factory that takes a learning rate.
      words: hyperparameters; a missing learning rate is that of `LEARNING_RATES`. An optimizer
        among them is written `fallback=adam:1e-3,b2=0.95`.
      total_steps: the run's length, for schedules.
      seed: the run's, for a factory that draws random numbers and is given no other.

    Raises:
      CommandError: the optimizer or a hyperparameter is unknown, or a value is out of range.
    """
    factory = find_optimizer(name)
    parameters = inspect.signature(factory).parameters
    hints = typing.get_type_hints(factory)
    kinds: Mapping[str, Any] = factory.kinds  # type: ignore[attr-defined]
    values: dict[str, Any] = {}
    for key, text in assignments(words, name).items():
        if key not in parameters:
            raise CommandError(f"{name} has no hyperparameter {key!r}; {nearest(key, parameters)}")
        if GradientTransformation in typing.get_args(hints.get(key)):
            values[key] = _member(text, total_steps, seed)
            continue
        value = parse(text, total_steps)
        if key not in kinds:
            _check_plain(name, key, value, hints.get(key), parameters[key].default)
        values[key] = value
    values.setdefault(str(rate_name(factory)), default_rate(name))
    if "seed" in parameters:
        values.setdefault("seed", seed)
    missing = [
        key
        for key, p in parameters.items()
        if p.default is inspect.Parameter.empty and key not in values
    ]
    if missing:
        raise CommandError(f"{name} needs {' '.join(f'--set {key}=...' for key in missing)}")
    try:
        return factory(**values)
    except (ValueError, TypeError) as error:
        raise CommandError(" ".join(str(error).split())) from None


def _member(text: str, total_steps: int, seed: int) -> GradientTransformation:
    """The optimizer of a word `name`, `name:rate` or `name:rate,argument=value,...`."""
    name, _, rest = text.partition(":")
    rate, *words = rest.split(",")
    first = [f"{rate_name(find_optimizer(name))}={rate}"] if rate else []
    return build(name, first + words, total_steps, seed)


def parse(text: str, total_steps: int) -> Any:
    """A word's value: a number, true, false, none, a schedule as `cosine:1e-3`, or the word."""
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    if ":" in text or text in SCHEDULES:
        return make_schedule(text, total_steps)
    return text


def _check_plain(name: str, key: str, value: Any, hint: Any, default: Any) -> None:
    """Refuses a value that an argument which is no hyperparameter in the narrow sense can't be."""
    allowed: tuple[type, ...] = tuple(t for t in (bool, int, float, str) if _takes(t, hint))
    if value is None and (default is None or type(None) in typing.get_args(hint)):
        return
    if not allowed:
        raise CommandError(f"{name}: {key} cannot be set from the command line")
    exact = isinstance(value, allowed) and (not isinstance(value, bool) or bool in allowed)
    if not exact and not (float in allowed and type(value) is int):
        kinds = " or ".join(
            {"bool": "true or false", "str": "a word"}.get(t.__name__, t.__name__) for t in allowed
        )
        raise CommandError(f"{name}: {key} must be {kinds}, got {value!r}")


def _takes(kind: type, hint: Any) -> bool:
    choices = [type(a) for a in typing.get_args(hint) if not isinstance(a, type)]
    return hint is kind or kind in typing.get_args(hint) or kind in choices
