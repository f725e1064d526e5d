"""Training in low precision beside float32 AdamW, on real data: `fnopt bench precision`.

Every setting makes the same steps from the same start on the same batches, at the learning rate
that is best for AdamW in float32 of three.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import fnopt
from fnopt.bench import real, trees
from fnopt.bench.learning import Learned, learn
from fnopt.bench.tasks import Task
from fnopt.core import GradientTransformation
from fnopt.leaves import nbytes

RATES = (1e-3, 3e-3, 1e-2)
WEIGHT_DECAY = 0.01
WARMUP = 0.1  # of the steps; then half a cosine to zero
TAIL = 0.1  # of the steps: their batches' losses are the training loss
BASE = "f32"
TOLERANCE = 0.01

TASKS: dict[str, tuple[str, Callable[..., Task]]] = {
    "digits_mlp": ("the perceptron of `fnopt train` on the digits", real.digits_mlp),
    "digits_convolutional": ("a convolutional net on the digits", real.digits_convolutional),
    "characters": ("a transformer on the standard library's characters", real.characters),
}
"""Name -> what it is, and (seed, *, steps, dtype) -> Task."""


class Setting(NamedTuple):
    """How the params and the state are stored.

    Attributes:
      dtype: of the params.
      optimizer: (learning rate) -> transformation.
      stochastic: whether `apply_updates` rounds at random.
    """

    dtype: Any
    optimizer: Callable[[Any], GradientTransformation]
    stochastic: bool = False


def _adamw(rate: Any) -> GradientTransformation:
    return fnopt.adamw(rate, weight_decay=WEIGHT_DECAY)


def _adamw_8bit(rate: Any) -> GradientTransformation:
    return fnopt.adamw_8bit(rate, weight_decay=WEIGHT_DECAY)


F32, BF16 = jnp.float32, jnp.bfloat16
SETTINGS: dict[str, Setting] = {
    BASE: Setting(F32, _adamw),
    "bf16": Setting(BF16, _adamw),
    "bf16 stochastic": Setting(BF16, _adamw, stochastic=True),
    "bf16 kahan": Setting(BF16, lambda rate: fnopt.kahan(_adamw(rate))),
    "bf16 split_master": Setting(BF16, lambda rate: fnopt.split_master(_adamw(rate))),
    "bf16 master_weights": Setting(BF16, lambda rate: fnopt.master_weights(_adamw(rate))),
    "f32 adamw_bf16_state": Setting(
        F32, lambda rate: fnopt.adamw_bf16_state(rate, weight_decay=WEIGHT_DECAY)
    ),
    "f32 adamw_8bit": Setting(F32, _adamw_8bit),
    "f32 adamw_4bit": Setting(F32, lambda rate: fnopt.adamw_4bit(rate, weight_decay=WEIGHT_DECAY)),
    "bf16 master_weights 8bit": Setting(BF16, lambda rate: fnopt.master_weights(_adamw_8bit(rate))),
}
"""The settings by name; the first is what the others are compared with."""


class Row(NamedTuple):
    """What a setting reached on a task: means over the seeds.

    Attributes:
      loss: on what is held out, at the end.
      deviation: its standard deviation over the seeds.
      ratio: that loss over the base's of the same seed.
      ratio_deviation: its standard deviation.
      training: the loss of the last batches.
      training_ratio: over the base's of the same seed.
      params: bytes per parameter.
      state: bytes of state per parameter.
    """

    loss: float
    deviation: float
    ratio: float
    ratio_deviation: float
    training: float
    training_ratio: float
    params: float
    state: float


class Section(NamedTuple):
    """A task's results.

    Attributes:
      steps: of each run.
      seeds: how many runs a setting had.
      rates: learning rate -> the base's mean final loss.
      rows: by their settings' names.
    """

    steps: int
    seeds: int
    rates: Mapping[float, float]
    rows: Mapping[str, Row]

    @property
    def rate(self) -> float:
        """The learning rate of the rows."""
        return min(self.rates, key=self.rates.__getitem__)

    @property
    def allowed(self) -> float:
        """The highest mean loss within one standard deviation or 1% of the base's."""
        base = self.rows[BASE]
        return base.loss + max(base.deviation, TOLERANCE * base.loss)


def measure(
    task: str,
    names: Sequence[str],
    seeds: int,
    steps: int | None = None,
    show: Callable[[str], None] = lambda what: None,
) -> Section:
    """The base at every rate, and settings at its best one.

    Args:
      task: a name of `TASKS`.
      names: of `SETTINGS`.
      seeds: how many runs.
      steps: of each; None for as many as the task has by itself.
      show: is told what is next.
    """
    bases = {}
    for rate in RATES:
        show(f"{task}: {BASE} at {rate:g}")
        bases[rate] = train(SETTINGS[BASE], task, rate, seeds, steps)
    rates = {rate: float(np.mean(found.final)) for rate, found in bases.items()}
    best = min(rates, key=rates.__getitem__)
    rows = {BASE: row(bases[best], bases[best], SETTINGS[BASE], task)}
    for name in names:
        if name != BASE:
            show(f"{task}: {name}")
            found = train(SETTINGS[name], task, best, seeds, steps)
            rows[name] = row(found, bases[best], SETTINGS[name], task)
    return Section(bases[best].losses.shape[1], seeds, rates, in_order(rows))


def joined(old: Section | None, new: Section) -> Section:
    """The new rows, and the old ones that are of as many steps and seeds at the same rate."""
    if old is None or (old.steps, old.seeds, old.rate) != (new.steps, new.seeds, new.rate):
        return new
    return new._replace(rows=in_order({**old.rows, **new.rows}))


def in_order(rows: Mapping[str, Row]) -> dict[str, Row]:
    """The rows in the order of the settings, without those of settings that are no more."""
    return {name: rows[name] for name in SETTINGS if name in rows}


def train(setting: Setting, task: str, rate: float, seeds: int, steps: int | None) -> Learned:
    """The runs of a setting on a task.

    Args:
      setting: from `SETTINGS`.
      task: a name of `TASKS`.
      rate: the highest of the schedule.
      seeds: how many runs.
      steps: of each; None for as many as the task has by itself.
    """
    given = {} if steps is None else {"steps": steps}
    tasks = [TASKS[task][1](seed, dtype=setting.dtype, **given) for seed in range(seeds)]
    total = tasks[0].steps
    warmup = math.ceil(WARMUP * total)
    optimizer = setting.optimizer(fnopt.warmup_cosine_decay_schedule(0.0, rate, warmup, total))
    return learn(tasks, optimizer, _apply_stochastic if setting.stochastic else _apply)


def _apply(params: Any, updates: Any, key: jax.Array) -> Any:
    return fnopt.apply_updates(params, updates)


def _apply_stochastic(params: Any, updates: Any, key: jax.Array) -> Any:
    return fnopt.apply_updates(params, updates, rounding="stochastic", key=key)


def row(found: Learned, base: Learned, setting: Setting, task: str) -> Row:
    """The numbers of a setting's runs beside the base's with the same seeds."""
    loss, least = (np.asarray(x.final, np.float64) for x in (found, base))
    training, lowest = tail(found), tail(base)
    params = TASKS[task][1](steps=1, dtype=setting.dtype).init
    state = jax.eval_shape(setting.optimizer(RATES[0]).init, params)
    n = trees.size(params)
    return Row(
        *_spread(loss),
        *_spread(loss / least),
        float(np.mean(training)),
        float(np.mean(training / lowest)),
        sum(map(nbytes, jax.tree.leaves(params))) / n,
        sum(map(nbytes, jax.tree.leaves(state))) / n,
    )


def tail(found: Learned) -> np.ndarray:
    """The mean loss of the last batches, (seeds,)."""
    losses = np.asarray(found.losses, np.float64)
    return losses[:, -math.ceil(TAIL * losses.shape[1]) :].mean(axis=1)


def _spread(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation over the seeds; 0 for one."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def outside(section: Section) -> Sequence[str]:
    """The settings whose mean loss is higher than allowed, or no number."""
    return [name for name, row in section.rows.items() if not row.loss <= section.allowed]
