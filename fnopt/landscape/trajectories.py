"""Paths of optimizers over a surface, with the learning rate of a grid that suits each best."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnopt.core import GradientTransformation
from fnopt.landscape.surfaces import Surface
from fnopt.training.choices import rate_name
from fnopt.training.step import TrainState, make_train_step

RATES = np.logspace(-4, 1, 41)


class Trajectory(NamedTuple):
    """A path of an optimizer.

    Attributes:
      points: (steps + 1, 2), the start first.
      values: (steps + 1,), f along it.
      learning_rate: η; NaN for a schedule.
    """

    points: np.ndarray
    values: np.ndarray
    learning_rate: float

    def arrival(self, below: float) -> int | None:
        """The step from which the value stays below a bound; None if it does not."""
        above = ~(self.values < below)  # NaN is above
        return None if above[-1] else int(np.max(np.nonzero(above)[0], initial=-1)) + 1

    @property
    def diverged(self) -> bool:
        """Whether it ends at no number, or higher than it began."""
        return not self.values[-1] <= self.values[0]


def descend(
    optimizer: GradientTransformation,
    f: Callable[[jax.Array], jax.Array],
    start: Any,
    steps: int,
) -> tuple[jax.Array, jax.Array]:
    """The points (steps + 1, 2) and values (steps + 1,) of a path."""
    train_step = make_train_step(lambda w, _: f(w), optimizer, key=jax.random.key(0))
    nothing = jnp.zeros((1,), jnp.float32)  # a batch of one row, which f does not read

    def step(state: TrainState, _: None) -> Any:
        new, metrics = train_step.unjitted(state, nothing)
        return new, (state.params, metrics["loss"])

    begin = train_step.init(jnp.asarray(start, jnp.float32))
    end, (points, values) = jax.lax.scan(step, begin, length=steps)
    w = end.params
    return jnp.concatenate([points, w[None]]), jnp.concatenate([values, f(w)[None]])


def trajectories(
    factory: Callable[..., GradientTransformation],
    arguments: Mapping[str, Any],
    surfaces: Mapping[str, Surface],
    steps: int,
) -> dict[str, Trajectory]:
    """An optimizer's path on each surface, with the given learning rate or the best of `RATES`.

    One compiled function runs all rates on any of the surfaces.
    """
    name = str(rate_name(factory))
    given = arguments.get(name, RATES)
    rates = np.array([np.nan]) if callable(given) else np.atleast_1d(given)

    @jax.jit
    def paths(which: jax.Array, start: jax.Array, rates: jax.Array) -> Any:
        def f(w: jax.Array) -> jax.Array:
            return jax.lax.switch(which, [surface.f for surface in surfaces.values()], w)

        def path(rate: jax.Array) -> Any:
            optimizer = factory(**{name: rate} | dict(arguments))
            return descend(optimizer, f, start, steps)

        return jax.vmap(path)(rates)

    found = {}
    for i, (key, surface) in enumerate(surfaces.items()):
        start = jnp.asarray(surface.start, jnp.float32)
        points, values = map(np.asarray, paths(i, start, jnp.asarray(rates, jnp.float32)))
        best = int(np.argmin([cost(p, v, surface) for p, v in zip(points, values)]))
        found[key] = Trajectory(points[best], values[best], float(rates[best]))
    return found


def cost(points: np.ndarray, values: np.ndarray, surface: Surface) -> float:
    """What a learning rate is judged by: it should descend fast, and without zigzag.

    The mean logarithm of the value along the path, plus the logarithm of how many times longer
    than the straight line to the nearest minimum the path is. A path that leaves the frame or is
    no number somewhere costs more than all that do not.
    """
    logs = np.log(np.clip(np.nan_to_num(values, nan=np.inf), surface.arrived / 10, 1e30))
    left, right, bottom, top = surface.frame
    low, high = np.array([left, bottom]), np.array([right, top])
    if not np.all((points >= low) & (points <= high)):  # NaN is outside
        return 1e3 + float(logs.mean())
    length = np.linalg.norm(np.diff(points, axis=0), axis=1).sum()
    straight = np.linalg.norm(np.array(surface.minima) - surface.start, axis=1).min()
    return float(logs.mean() + np.log(max(length / straight, 1)))
