"""The learning-rate range test: one pass with a growing rate, and where its loss falls.

The rate grows by an equal factor each step, from far too low to far too high. The loss is flat,
then falls, then rises, and the pass ends where it has clearly risen. The rate at which it falls
most steeply, by the logarithm of the rate, is one to begin with.

Source: L. N. Smith 2015, arXiv 1506.01186.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from fnopt.training.step import TrainState, TrainStep

SMOOTH = 0.05
"""The width of the loss's average, as a part of the whole pass."""


class RangeTest(NamedTuple):
    """What one pass saw.

    Attributes:
      rates: (n,) the rate of each step made.
      losses: (n,) the loss before it.
      smooth: (n,) the losses' average around it, float64; a loss counts there as at most the
        greatest before the lowest.
      steepest: where the average falls most steeply: a step's number.
      lowest: where it is lowest.
      diverged: whether the pass ended before its end.
    """

    rates: np.ndarray
    losses: np.ndarray
    smooth: np.ndarray
    steepest: int
    lowest: int
    diverged: bool

    @property
    def suggestion(self) -> float:
        """The rate of the steepest fall."""
        return float(self.rates[self.steepest])


def growing(low: float, high: float, steps: int) -> Callable[[Any], Any]:
    """count -> the rate: low at 0, high at steps − 1, growing by an equal factor."""
    factor = math.log(high / low) / max(1, steps - 1)

    def rate(count: Any) -> Any:
        import jax.numpy as jnp

        return low * jnp.exp(factor * jnp.asarray(count, jnp.result_type(float)))

    return rate


def range_test(
    train_step: TrainStep,
    state: TrainState,
    batches: Iterable[Any],
    rates: np.ndarray,
    rise: float = 3.0,
) -> RangeTest:
    """Makes a step for each rate, until the loss, a positive one, has risen or is no number.

    Args:
      train_step: its optimizer's rate at step i is rates[i].
      state: where to begin; donated.
      batches: one for each rate.
      rates: (n,), growing.
      rise: the pass ends where the running average is so many times its lowest value.

    Raises:
      ValueError: fewer than 4 steps have a finite loss.
    """
    losses: list[float] = []
    width = max(2.0, SMOOTH * len(rates))
    running = best = math.nan
    for i, batch in enumerate(batches):
        state, metrics = train_step.step(state, batch)
        loss = float(metrics["loss"])
        if not math.isfinite(loss):
            break
        losses.append(loss)
        running = loss if i == 0 else running + (loss - running) / width
        best = running if i == 0 else min(best, running)
        if running > rise * best:
            break
    if len(losses) < 4:
        raise ValueError("the loss is no number within four steps")
    seen = np.array(losses)
    fallen = seen[: int(seen.argmin()) + 1]
    smooth = around(np.minimum(seen, fallen.max()), width)  # or the last would hide the fall
    tried = np.asarray(rates, np.float64)[: len(seen)]
    lowest = int(smooth.argmin())
    slopes = np.gradient(smooth, np.log(tried))[: max(lowest, 1)]
    steepest = int(slopes.argmin())
    return RangeTest(tried, seen, smooth, steepest, lowest, len(seen) < len(rates))


def around(values: np.ndarray, width: float) -> np.ndarray:
    """The average around each entry, with Gaussian weights of a standard deviation of `width`."""
    places = np.arange(len(values))
    weights = np.exp(-0.5 * ((places[:, None] - places) / width) ** 2)
    return np.asarray(weights @ values / weights.sum(axis=1))
