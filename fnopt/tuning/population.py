"""A population: one network and optimizer per setting, all trained at once under `jax.vmap`.

Each member begins with the same weights and sees the same batches, so that they differ by their
settings alone. The settings are `Tunable` values in the members' states.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnopt.hyperparameters import hyperparameters, set_hyperparameters
from fnopt.state import eval_params
from fnopt.training.data import Dataset
from fnopt.training.epoch import make_epoch
from fnopt.training.progress import Progress
from fnopt.training.step import TrainState
from fnopt.training.trial import Trial, evaluator

SCORES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")


class Result(NamedTuple):
    """How a population ended.

    Attributes:
      scores: name of `SCORES` -> (epochs, n) float64, after each epoch; NaN after divergence.
      seconds: of training, compilation included.
    """

    scores: dict[str, np.ndarray]
    seconds: float

    def last(self, name: str) -> np.ndarray:
        """A score after the last epoch: (n,)."""
        return self.scores[name][-1]


def with_settings(state: TrainState, settings: Mapping[str, Any]) -> TrainState:
    """A training state with the `Tunable` values of these names, wherever they stand in it."""
    known = hyperparameters(state.optimizer_state)
    values = {name: settings[last] for name in known if (last := name.split("/")[-1]) in settings}
    return state._replace(optimizer_state=set_hyperparameters(state.optimizer_state, **values))


def train(
    trial: Trial, dataset: Dataset, settings: Mapping[str, np.ndarray], progress: Progress
) -> Result:
    """Trains all settings at once, for the trial's epochs.

    Args:
      trial: as `prepare` gives it, its optimizer with a `Tunable` for each name of the settings.
      dataset: what they are trained on.
      settings: name -> (n,) values.
      progress: is told the lowest loss and the best accuracies after each epoch.

    Memory: n times one training's; the data once.
    """
    begin = time.perf_counter()
    own, n = trial.settings, len(dataset.x_train)
    sets = {
        "train": (jnp.asarray(dataset.x_train), jnp.asarray(dataset.y_train)),
        "test": (jnp.asarray(dataset.x_test), jnp.asarray(dataset.y_test)),
    }
    start = trial.train_step.init(trial.start())
    dtype = jnp.result_type(float)
    values = {name: jnp.asarray(column, dtype) for name, column in settings.items()}
    state = jax.jit(jax.vmap(lambda own: with_settings(start, own)))(values)
    one_epoch = make_epoch(trial.train_step, n, own.batch_size)
    epoch = jax.jit(jax.vmap(one_epoch, (0, None, None, None)), donate_argnums=0)
    evaluate = jax.jit(jax.vmap(_scored(evaluator(own.activation)), (0, None)))
    key = jax.random.fold_in(jax.random.key(own.seed), 1)
    history: dict[str, list[np.ndarray]] = {name: [] for name in SCORES}
    with progress as shown:
        shown.start(own.epochs)
        for number in range(own.epochs):
            state, metrics = epoch(state, sets["train"], key, np.int32(number))
            scores = {name: np.asarray(x, np.float64) for name, x in evaluate(state, sets).items()}
            diverged = ~np.isfinite(scores["train_loss"])
            for name, column in scores.items():
                history[name].append(np.where(diverged, np.nan, column))
            losses = np.asarray(metrics["loss"], np.float64).mean(axis=1)
            best = scores["test_accuracy"][~diverged].max(initial=0.0)
            seconds = time.perf_counter() - begin
            record = {"epoch": number + 1, "seconds": seconds, "best_test_accuracy": best}
            shown.epoch(record | {"loss": losses[~diverged].min(initial=np.inf)})
    return Result({k: np.stack(v) for k, v in history.items()}, time.perf_counter() - begin)


def _scored(evaluate: Any) -> Any:
    """(state, sets) -> the scores by name, of the parameters to evaluate."""

    def scored(state: TrainState, sets: Mapping[str, Any]) -> dict[str, jax.Array]:
        params = eval_params(state.optimizer_state, state.params)
        return {
            f"{part}_{name}": value
            for part, rows in sets.items()
            for name, value in evaluate(params, rows).items()
        }

    return scored
