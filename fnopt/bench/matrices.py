"""Matrix optimizers beside AdamW on a language model, each at its own best rate.

`fnopt bench matrices`: the transformer on the characters of Python's standard library. Every
optimizer makes the same steps from the same starts on the same batches; its rate is looked for by
factors of two until both neighbours of the best end higher.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import fnopt
from fnopt.bench import real
from fnopt.bench.tasks import Task
from fnopt.core import GradientTransformation

BASE = "adamw"
STEPS, ROWS = 1000, 16
SIZES, HELD_OUT = real.SIZES, 256
FACTOR = 2.0  # between neighbours of the grid
MOST = 8  # rates of one optimizer
WARMUP = 0.1  # of the steps; then half a cosine to zero
WINDOW = 0.1  # of the steps: the mean over the last of them is the smoothed training loss
POINTS = 25  # of a curve
PARTS = 50  # that a run is made in; when steps are timed, in turn with one of the base's
WEIGHT_DECAY = 0.01
B2 = 0.99

Show = Callable[[str], None]


def falling(rate: Any, steps: int) -> Any:
    """The schedule of all that have one."""
    return fnopt.warmup_cosine_decay_schedule(0.0, rate, math.ceil(WARMUP * steps), steps)


def adamw(rate: Any) -> GradientTransformation:
    """The base, and the fallback of those that take hidden matrices alone."""
    return fnopt.adamw(rate, b2=B2, weight_decay=WEIGHT_DECAY)


class Entry(NamedTuple):
    """An optimizer, and where the search of its rate begins.

    Attributes:
      middle: of the first three rates.
      make: (rate, steps, fallback) -> transformation.
    """

    middle: float
    make: Callable[[Any, int, GradientTransformation], GradientTransformation]


def _on_matrices(factory: Callable[..., GradientTransformation], **given: Any) -> Any:
    return lambda rate, steps, other: factory(
        falling(rate, steps), weight_decay=WEIGHT_DECAY, fallback=other, **given
    )


def _schedule_free(rate: Any, steps: int, other: Any) -> GradientTransformation:
    warmup = math.ceil(WARMUP * steps)
    return fnopt.schedule_free_adamw(rate, warmup, b2=B2, weight_decay=WEIGHT_DECAY)


OPTIMIZERS: dict[str, Entry] = {
    BASE: Entry(0.008, lambda rate, steps, other: adamw(falling(rate, steps))),
    "schedule_free_adamw": Entry(0.016, _schedule_free),
    "muon": Entry(0.02, _on_matrices(fnopt.muon)),
    "normuon": Entry(0.02, _on_matrices(fnopt.normuon)),
    "soap": Entry(0.008, _on_matrices(fnopt.soap)),
    "shampoo": Entry(0.008, _on_matrices(fnopt.shampoo, b2=B2, graft_b2=B2)),
    "psgd_kron": Entry(0.0025, _on_matrices(fnopt.psgd_kron, key=0)),
}
"""By name; the first is what the others are compared with."""


class Row(NamedTuple):
    """What an optimizer reached.

    Attributes:
      rates: rate -> the held-out loss at the end of the first seed's run.
      loss: the held-out loss at the best rate, mean over the seeds.
      deviation: its standard deviation.
      cost: a step's processor time over the base's.
      curve: the smoothed training loss, mean over the seeds, at even distances.
    """

    rates: Mapping[float, float]
    loss: float
    deviation: float
    cost: float
    curve: tuple[float, ...]

    @property
    def rate(self) -> float:
        """The best one."""
        return best(self.rates)

    @property
    def training(self) -> float:
        """The mean training loss of the last tenth of the steps."""
        return self.curve[-1]


class Results(NamedTuple):
    """What was measured.

    Attributes:
      steps: of each run.
      seeds: how many runs an optimizer had at its best rate.
      milliseconds: processor time of a step of the base.
      rows: by the optimizers' names; the base's is there.
    """

    steps: int
    seeds: int
    milliseconds: float
    rows: Mapping[str, Row]

    def needed(self, name: str) -> float:
        """The part of the steps after which the base's last training loss is reached, or inf."""
        curve, aim = self.rows[name].curve, self.rows[BASE].training
        for i, now in enumerate(curve):
            if now <= aim:
                between = (curve[i - 1] - aim) / (curve[i - 1] - now) if i and now < aim else 1.0
                return (i + between) / len(curve)
        return math.inf

    def time_needed(self, name: str) -> float:
        """The same in processor time, over that of all the base's steps."""
        return self.needed(name) * self.rows[name].cost


def best(rates: Mapping[float, float]) -> float:
    """The rate of the lowest loss; one without a number is the highest."""
    return min(rates, key=lambda rate: math.inf if math.isnan(rates[rate]) else rates[rate])


def search(middle: float, loss_at: Callable[[float], float]) -> dict[float, float]:
    """Rate -> loss: three neighbours, then more on the side of the best until it has both.

    Args:
      middle: of the three.
      loss_at: a run at a rate.
    """
    found: dict[float, float] = {}
    todo = [middle / FACTOR, middle, middle * FACTOR]
    while todo and len(found) < MOST:
        rate = float(f"{todo.pop(0):.3g}")
        found[rate] = loss_at(rate)
        if not todo:
            lowest = best(found)
            sides = {min(found): lowest / FACTOR, max(found): lowest * FACTOR}
            todo = [sides[lowest]] if lowest in sides else []
    return dict(sorted(found.items()))


class Program:
    """A run in compiled parts, with the rates as arguments, so that a search compiles once.

    Args:
      entry: the optimizer.
      task: gives the loss.
      steps: of a run, for the schedule.
      fallback: the fallback's rate.
    """

    def __init__(self, entry: Entry, task: Task, steps: int, fallback: Any = 0.0) -> None:
        self.fallback = fallback

        def optimizer(rate: Any, fallback: Any) -> GradientTransformation:
            return entry.make(rate, steps, adamw(falling(fallback, steps)))

        def begin(rate: Any, fallback: Any, init: Any) -> Any:
            return init, optimizer(rate, fallback).init(init)

        def go(rate: Any, fallback: Any, carry: Any, batches: Any) -> Any:
            update = optimizer(rate, fallback).update

            def step(carry: Any, batch: Any) -> Any:
                params, state = carry
                value, gradients = jax.value_and_grad(task.loss)(params, batch)
                updates, state = update(gradients, state, params)
                return (fnopt.apply_updates(params, updates), state), value

            return jax.lax.scan(step, carry, batches)

        def end(carry: Any, whole: Any) -> jax.Array:
            params, state = carry
            return task.loss(fnopt.eval_params(state, params), whole)

        self._begin, self._go, self._end = jax.jit(begin), jax.jit(go), jax.jit(end)

    def parts(self, rate: float, task: Task) -> Iterator[Part]:
        """The parts of a run, made as they are asked for."""
        rates = jnp.float32(rate), jnp.float32(self.fallback)
        carry = self._begin(*rates, task.init)
        n = PARTS if task.steps % PARTS == 0 else 1
        for batches in jnp.split(task.batches, n):
            begun = time.process_time()
            carry, losses = jax.block_until_ready(self._go(*rates, carry, batches))
            yield Part(carry, np.asarray(losses, np.float64), time.process_time() - begun)

    def result(self, parts: Sequence[Part], task: Task) -> Run:
        """What came of all parts."""
        losses = np.concatenate([part.losses for part in parts])
        seconds = sum(part.seconds for part in parts)
        return Run(losses, float(self._end(parts[-1].carry, task.whole)), seconds)

    def run(self, rate: float, task: Task) -> Run:
        """A run."""
        return self.result(list(self.parts(rate, task)), task)


class Part(NamedTuple):
    """Some steps of a run.

    Attributes:
      carry: params and state after them.
      losses: of each batch before its step.
      seconds: processor time.
    """

    carry: Any
    losses: np.ndarray
    seconds: float


class Run(NamedTuple):
    """What came of a run.

    Attributes:
      losses: of each batch before its step.
      final: of what is held out, at the params that are for evaluation.
      seconds: processor time of the steps.
    """

    losses: np.ndarray
    final: float
    seconds: float


def measure(
    names: Sequence[str],
    seeds: int,
    steps: int = STEPS,
    old: Results | None = None,
    show: Show = lambda what: None,
) -> Iterator[Results]:
    """The results after each optimizer; old ones stay if they are of as many steps and seeds.

    Args:
      names: of `OPTIMIZERS`; the base is measured first if it is not among the old ones.
      seeds: how many runs at the best rate; the search has the first.
      steps: of each run.
      old: what was measured before.
      show: is told what is next.
    """
    tasks = [
        real.characters(seed, steps=steps, rows=ROWS, held_out=HELD_OUT, sizes=SIZES)
        for seed in range(seeds)
    ]
    base = Program(OPTIMIZERS[BASE], tasks[0], steps)
    if old is None or (old.steps, old.seeds) != (steps, seeds):
        old = None
    if old is None or BASE in names:
        row, run = tuned(BASE, base, tasks, show)
        if old is None or old.rows[BASE].rate != row.rate:
            old = Results(steps, seeds, 0.0, {})
        old = joined(old._replace(milliseconds=1e3 * run.seconds / steps), BASE, row)
        yield old
    for name in names:
        if name != BASE:
            rate = old.rows[BASE].rate
            program = Program(OPTIMIZERS[name], tasks[0], steps, rate)
            row, run = tuned(name, program, tasks, show, base, rate)
            old = joined(old, name, row)
            yield old


def tuned(
    name: str,
    program: Program,
    tasks: Sequence[Task],
    show: Show,
    base: Program | None = None,
    base_rate: float = 0.0,
) -> tuple[Row, Run]:
    """The row of an optimizer, and its last run.

    Args:
      name: of the optimizer.
      program: its runs.
      tasks: one for each seed.
      show: is told what is next.
      base: the base's runs, to time the last one with, in turn.
      base_rate: its rate.
    """
    first: dict[float, Run] = {}

    def loss_at(rate: float) -> float:
        show(f"{name} at {rate:g}")
        first[rate] = program.run(rate, tasks[0])
        return first[rate].final

    rates = search(OPTIMIZERS[name].middle, loss_at)
    rate = best(rates)
    show(f"{name} at {rate:g}, the other seeds")
    runs = [first[rate], *(program.run(rate, task) for task in tasks[1:-1])]
    last, cost = tasks[-1], 1.0
    if base is None:
        found = program.run(rate, last)
    else:
        next(base.parts(base_rate, last))  # compiles it
        pairs = list(zip(program.parts(rate, last), base.parts(base_rate, last)))
        ours, theirs = (list(parts) for parts in zip(*pairs))
        found = program.result(ours, last)
        cost = found.seconds / base.result(theirs, last).seconds
    runs = [*runs, found][-len(tasks) :]
    final = [run.final for run in runs]
    deviation = float(np.std(final, ddof=1)) if len(final) > 1 else 0.0
    losses = np.mean([run.losses for run in runs], axis=0)
    return Row(rates, float(np.mean(final)), deviation, cost, curve(losses)), found


def curve(losses: np.ndarray) -> tuple[float, ...]:
    """The means of the last tenth of the steps, or of fewer at the start, at even distances."""
    window = math.ceil(WINDOW * len(losses))
    ends = np.linspace(0, len(losses), POINTS + 1)[1:].round().astype(int)
    return tuple(float(np.mean(losses[max(0, end - window) : max(end, 1)])) for end in ends)


def joined(old: Results, name: str, row: Row) -> Results:
    """With one more row, in the order of the optimizers, without those that are no more."""
    rows = {**old.rows, name: row}
    return old._replace(rows={name: rows[name] for name in OPTIMIZERS if name in rows})
