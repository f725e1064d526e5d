"""`inject_hyperparams`: the familiar name for a factory whose numbers are all `Tunable`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from fnopt.hyperparameters import Kind, Tunable
from fnopt.recipe import bind


def inject_hyperparams(
    inner_factory: Callable[..., Any], static_args: str | Iterable[str] = ()
) -> Callable[..., Any]:
    """A factory like `inner_factory` whose numbers live in the state and may be changed.

        optimizer = inject_hyperparams(adamw)(1e-3, weight_decay=0.1)
        state = set_hyperparameters(state, learning_rate=1e-4, weight_decay=0.0)

    Each hyperparameter that is a number, given or by default, becomes a `Tunable`; `adamw` itself
    takes them, so this is a shorter way to write `adamw(Tunable(1e-3), b1=Tunable(0.9), ...)` and
    equal to it. Schedules stay schedules. Numbers that are read in `init` alone, and arguments that
    are no hyperparameters (a mask, a flag, a seed), stay as they are.

    optax's rounds the numbers to the params' dtype, or to `hyperparam_dtype`; here they are never
    rounded, so there is none. Its `state.hyperparams["b2"] = 0.9` is `set_hyperparameters` here,
    which does not change the state that it is given.

    Args:
      inner_factory: a factory of fnopt's, or one decorated with `gradient_transformation`.
      static_args: names of arguments that stay numbers: a static zero, as `b1=0.0`, drops its
        buffer, which a `Tunable` of zero cannot.

    Raises:
      TypeError: for a factory that does not tell which of its arguments are hyperparameters, as
        another library's.
      ValueError: for a static argument that the factory does not have.
    """
    kinds: dict[str, Kind] | None = getattr(inner_factory, "kinds", None)
    name = getattr(inner_factory, "__name__", repr(inner_factory))
    if kinds is None:
        raise TypeError(
            f"inject_hyperparams: {name} does not tell which of its arguments are "
            "hyperparameters. Use fnopt's factory of that name, decorate your own with "
            "gradient_transformation, or put optax.inject_hyperparams(...)(...), which may stand "
            "in a chain of fnopt's, in its place"
        )
    signature = inspect.signature(inner_factory)
    static = {static_args} if isinstance(static_args, str) else set(static_args)
    unknown = sorted(static - set(signature.parameters))
    if unknown:
        raise ValueError(
            f"inject_hyperparams: {name} has no argument {unknown[0]!r}; it has "
            f"{', '.join(signature.parameters)}"
        )
    changing = {key for key, kind in kinds.items() if not kind.initial} - static

    @functools.wraps(inner_factory)
    def build(*args: Any, **kwargs: Any) -> Any:
        call = bind(signature, name, args, kwargs)
        for key in changing:
            if _is_number(call.arguments[key]):
                call.arguments[key] = Tunable(call.arguments[key])
        return inner_factory(*call.args, **call.kwargs)

    return build


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float | jax.Array | np.ndarray | np.generic)
    return number and not isinstance(value, bool)
