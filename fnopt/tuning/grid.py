"""Grids of settings, as `learning_rate=log:1e-4:1e-1:16` or `weight_decay=0,1e-2`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from fnopt.core import GradientTransformation
from fnopt.hyperparameters import Kind, Tunable, check
from fnopt.training.choices import assignments, build, find_optimizer, nearest
from fnopt.training.errors import CommandError

MOST = 4096
"""Settings that a grid may have: each has its own weights, all in memory at once."""


class Axis(NamedTuple):
    """One hyperparameter's values, ascending, and whether they are spread by their ratios."""

    name: str
    values: tuple[float, ...]
    log: bool


class Grid(NamedTuple):
    """An optimizer and the settings to try.

    Attributes:
      optimizer: with a `Tunable` for each axis.
      axes: the hyperparameters that vary.
      settings: every combination: name -> (n,) float64, the last axis varying fastest.
    """

    optimizer: GradientTransformation
    axes: tuple[Axis, ...]
    settings: dict[str, np.ndarray]

    @property
    def size(self) -> int:
        """The number of settings."""
        return math.prod(len(axis.values) for axis in self.axes)


def make_grid(optimizer: str, words: Iterable[str], total_steps: int, seed: int = 0) -> Grid:
    """The settings that `name=value` words describe; a word with one value is fixed.

    Args:
      optimizer: a public factory that takes a learning rate.
      words: `name=a,b,c`; `name=log:low:high:n` and `name=lin:low:high:n` are n values with equal
        ratios and equal differences; any other value as `fnopt train --set` takes it.
      total_steps: the run's length, for schedules.
      seed: for a factory that draws.

    Raises:
      CommandError: nothing varies, too much does, or a value or name is wrong.
    """
    factory = find_optimizer(optimizer)
    kinds: Mapping[str, Kind] = factory.kinds  # type: ignore[attr-defined]
    axes, fixed = [], []
    for name, text in assignments(words, optimizer).items():
        axis = read_axis(name, text)
        if axis is None:
            fixed.append(f"{name}={text}")
            continue
        if name not in kinds:
            changing = [n for n, kind in kinds.items() if not kind.initial]
            raise CommandError(f"{optimizer}: {name} cannot vary; {nearest(name, changing)}")
        try:
            if kinds[name].initial:
                raise ValueError(f"{optimizer}: {name} is read once, so it cannot vary")
            for value in axis.values:
                check(optimizer, name, kinds[name], value)
        except (ValueError, TypeError) as error:
            raise CommandError(str(error)) from None
        axes.append(axis)
    if not axes:
        raise CommandError(
            "nothing varies: give several values, as --set learning_rate=log:1e-4:1e-1:16"
        )
    grid = Grid(_build(optimizer, axes, fixed, total_steps, seed), tuple(axes), _product(axes))
    if grid.size > MOST:
        raise CommandError(f"{grid.size} settings are too many at once; at most {MOST}")
    return grid


def read_axis(name: str, text: str) -> Axis | None:
    """The values of `a,b,c`, `log:low:high:n` or `lin:low:high:n`; None of anything else.

    Raises:
      CommandError: a spread is written wrong, or a value comes twice.
    """
    spread, colon, rest = text.partition(":")
    if colon and spread in ("log", "lin"):
        try:
            low, high = (float(word) for word in rest.split(":")[:2])
            (count,) = (int(word) for word in rest.split(":")[2:])
        except ValueError:
            raise CommandError(
                f"--set {name}={text}: expected {spread}:low:high:count, as {spread}:1e-4:1e-1:16"
            ) from None
        if count < 2 or not -math.inf < low < high < math.inf or (spread == "log" and low <= 0):
            raise CommandError(
                f"--set {name}={text}: expected low < high{' above 0' * (spread == 'log')}, and a "
                "count of 2 or more"
            )
        points = np.geomspace if spread == "log" else np.linspace
        return Axis(
            name, tuple(float(f"{v:.6g}") for v in points(low, high, count)), spread == "log"
        )
    try:
        values = [float(word) for word in text.split(",")]
    except ValueError:
        return None
    if len(values) < 2:
        return None
    if len(set(values)) < len(values):
        raise CommandError(f"--set {name}={text}: a value comes twice")
    values.sort()
    wide = values[0] > 0 and values[-1] >= 10 * values[0]
    return Axis(name, tuple(values), wide)


def _build(
    optimizer: str, axes: list[Axis], fixed: list[str], total_steps: int, seed: int
) -> GradientTransformation:
    first = [f"{axis.name}={axis.values[0]!r}" for axis in axes]
    built = build(optimizer, [*fixed, *first], total_steps, seed)
    arguments: dict[str, Any] = dict(built.arguments.arguments)
    arguments |= {axis.name: Tunable(axis.values[0]) for axis in axes}
    factory: Callable[..., GradientTransformation] = find_optimizer(optimizer)
    return factory(**arguments)


def _product(axes: list[Axis]) -> dict[str, np.ndarray]:
    rows = np.array(list(itertools.product(*(axis.values for axis in axes))))
    return {axis.name: rows[:, i] for i, axis in enumerate(axes)}
