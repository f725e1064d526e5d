"""What a schedule is: a value `count -> hyperparameter` that knows the call that built it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp

from fnopt.recipe import Recipe, bind

P = ParamSpec("P")


class Schedule(Recipe):
    """A function of the step count, comparable, hashable and picklable.

    Called with a count (an integer scalar, the number of updates made before this one, so 0
    at the first) it gives a scalar of the default float dtype (float32, or float64 where
    `jax_enable_x64` is set); an array of counts gives the array of their values, as for a
    picture. Any function `count -> scalar` serves as a schedule; this one
    has a name.
    """

    def __init__(
        self,
        value: Callable[[jax.Array], Any],
        factory: Callable[..., Any],
        arguments: inspect.BoundArguments,
    ):
        self.value, self.factory, self.arguments = value, factory, arguments

    def __call__(self, count: Any) -> jax.Array:
        """The value at a count, or at each of an array of counts."""
        dtype = jnp.result_type(float)
        count = jnp.asarray(count, dtype) if isinstance(count, int) else jnp.asarray(count)
        if count.ndim:
            return jax.vmap(self)(count.ravel()).reshape(count.shape)
        return jnp.asarray(self.value(count.astype(dtype)), dtype)


def schedule(factory: Callable[P, Callable[[jax.Array], Any]]) -> Callable[P, Schedule]:
    """Decorates a factory that returns `value(count)`, with count a float scalar, as a Schedule."""
    signature = inspect.signature(factory)

    @functools.wraps(factory)
    def build(*args: P.args, **kwargs: P.kwargs) -> Schedule:
        arguments = bind(signature, factory.__name__, args, kwargs)
        return Schedule(factory(*arguments.args, **arguments.kwargs), build, arguments)

    build.makes_schedule = True  # type: ignore[attr-defined]
    return build


def factories(namespace: Any) -> dict[str, Callable[..., Schedule]]:
    """The factories of schedules among a module's public names."""
    public = {name: value for name, value in vars(namespace).items() if not name.startswith("_")}
    return {name: value for name, value in public.items() if hasattr(value, "makes_schedule")}
