"""One run of `fnopt train`: a network, an optimizer, a data set and a folder that it can die in."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import math
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnopt import losses, mlp
from fnopt.core import GradientTransformation
from fnopt.summaries import summary as state_summary
from fnopt.training.checkpoints import Checkpoints, digest, to_numpy
from fnopt.training.choices import build
from fnopt.training.data import Dataset
from fnopt.training.epoch import count_batches
from fnopt.training.errors import CommandError
from fnopt.training.loop import Record, fit
from fnopt.training.progress import make_progress
from fnopt.training.runs import append_row, keep_rows, read_rows, read_summary, write_summary
from fnopt.training.settings import Settings
from fnopt.training.step import TrainState, TrainStep, make_train_step

Summary = dict[str, Any]


class Trial(NamedTuple):
    """A run that can begin.

    Attributes:
      settings: its own, of one optimizer.
      optimizer: built, with schedules of the run's length.
      train_step: of the network's loss and the optimizer.
      start: () -> the initial weights.
    """

    settings: Settings
    optimizer: GradientTransformation
    train_step: TrainStep
    start: Callable[[], Any]

    def abstract(self) -> Any:
        """The weights' shapes and dtypes."""
        return jax.eval_shape(self.start)


class Outcome(NamedTuple):
    """A run that has ended.

    Attributes:
      name: the optimizer's.
      summary: as summary.json holds it; its `status` is "finished" or "stopped".
      history: one record per good epoch.
    """

    name: str
    summary: Summary
    history: list[Record]


def total_steps(settings: Settings, dataset: Dataset) -> int:
    """The steps of the whole run.

    Raises:
      CommandError: a batch is greater than the training set.
    """
    try:
        return settings.epochs * count_batches(len(dataset.x_train), settings.batch_size)
    except ValueError as error:
        words = str(error).removeprefix("fit: batch_size")
        raise CommandError(f"--batch-size{words}") from None


def prepare(
    settings: Settings, dataset: Dataset, optimizer: GradientTransformation | None = None
) -> Trial:
    """A run's optimizer, step and weights' maker, tried out without computing anything.

    Args:
      settings: of one optimizer.
      dataset: what it will be trained on.
      optimizer: in the place of the one that the settings describe.

    Raises:
      CommandError: a hyperparameter is wrong, or the optimizer cannot train such a network.
    """
    steps = total_steps(settings, dataset)
    if optimizer is None:
        optimizer = build(settings.optimizer, settings.set, steps, settings.seed)
    sizes = (dataset.x_train.shape[1], *settings.hidden, len(dataset.classes))
    activation = settings.activation

    def loss_fn(params: Any, batch: Any) -> jax.Array:
        return mlp.loss(params, *batch, activation=activation)

    def backprop(params: Any, batch: Any) -> tuple[jax.Array, Any]:
        return mlp.backprop(params, *batch, activation=activation)

    by_hand = backprop if settings.gradients == "backprop" else None
    key = jax.random.fold_in(jax.random.key(settings.seed), 2)
    train_step = make_train_step(
        loss_fn, optimizer, gradients=by_hand, key=key, log_layers=settings.log_layers
    )

    @jax.jit
    def start() -> Any:
        key = jax.random.fold_in(jax.random.key(settings.seed), 0)
        return mlp.init(key, sizes, activation=activation, dtype=jnp.dtype(settings.dtype))

    def one_step() -> Any:
        rows = dataset.x_train[: settings.batch_size], dataset.y_train[: settings.batch_size]
        return train_step.unjitted(train_step.init(start()), rows)

    try:
        jax.eval_shape(one_step)
    except (ValueError, TypeError) as error:
        words = " ".join(str(error).split())
        raise CommandError(f"{settings.optimizer} cannot train this network: {words}") from None
    return Trial(settings, optimizer, train_step, start)


def run_trial(trial: Trial, dataset: Dataset, folder: Path, label: str = "") -> Outcome:
    """Trains in a folder, from its last checkpoint if it has one.

    Args:
      trial: as `prepare` gives it.
      dataset: what it is trained on.
      folder: an existing run folder; empty, or what a run with these settings left there.
      label: tells several runs apart while they go on.

    Raises:
      CommandError: the folder is damaged or cannot be written.
    """
    settings, train_step = trial.settings, trial.train_step
    if (folder / "summary.json").exists():
        summary = read_summary(folder)
        if summary.get("status") in ("finished", "stopped"):
            return Outcome(settings.optimizer, summary, read_rows(folder))
    summary = describe(settings, dataset)
    summary |= {"status": "running", "optimizer": repr(trial.optimizer)}
    kept = dataclasses.asdict(state_summary(trial.optimizer, trial.abstract()))
    summary |= {"state": kept | {"rows": list(kept["rows"])}}
    write_summary(folder, summary)
    train, test = (dataset.x_train, dataset.y_train), (dataset.x_test, dataset.y_test)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        done, state = checkpoints.restore(train_step.init(trial.start()))
        if done == 0 and len(read_rows(folder)) > 1:
            raise CommandError(f"the checkpoints in {folder / 'checkpoints'} are missing")
        history = keep_rows(folder, done)

        def on_epoch(record: Record, state: TrainState) -> None:
            append_row(folder, record)
            checkpoints.save(int(record["epoch"]), state)

        result = fit(
            train_step,
            state,
            train,
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            seed=jax.random.fold_in(jax.random.key(settings.seed), 1),
            start_epoch=done,
            evaluate=evaluator(settings.activation),
            evaluation_data={"train": train, "test": test},
            on_epoch=on_epoch,
            progress=make_progress(True, label),
        )
    history = history + result.history
    summary |= ending(history, result.state)
    summary |= {"status": "stopped" if result.stopped else "finished", "stopped": result.stopped}
    write_summary(folder, summary)
    return Outcome(settings.optimizer, summary, history)


def evaluator(activation: str) -> Any:
    """(params, (x, y)) -> the mean loss and the accuracy."""

    def evaluate(params: Any, batch: Any) -> dict[str, jax.Array]:
        x, y = batch
        logits = mlp.apply(params, x, activation=activation)
        each = losses.softmax_cross_entropy_with_integer_labels(logits, y)
        right = (jnp.argmax(logits, axis=-1).astype(y.dtype) == y).astype(each.dtype)
        return {"loss": jnp.mean(each), "accuracy": jnp.mean(right)}

    return evaluate


def describe(settings: Settings, dataset: Dataset) -> Summary:
    """What a summary says before the run: settings, data, versions, device."""
    device = jax.devices()[0]
    names = ("jax", "jaxlib", "numpy", "orbax-checkpoint", "scikit-learn")
    return {
        "settings": settings.as_json(),
        "seed": settings.seed,
        "data": {
            "name": dataset.name,
            "training_rows": len(dataset.x_train),
            "test_rows": len(dataset.x_test),
            "features": dataset.x_train.shape[1],
            "classes": list(dataset.classes),
            "digest": dataset.digest,
        },
        "versions": {
            "python": platform.python_version(),
            "fnopt": importlib.import_module("fnopt").__version__,
        }
        | {name: importlib.metadata.version(name) for name in names},
        "device": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": jax.device_count(),
            "cpu_cores": os.cpu_count(),
        },
    }


def _known(value: float | None) -> float | None:
    """A number that JSON has, or None."""
    return value if value is not None and math.isfinite(value) else None


def ending(history: list[Record], state: TrainState) -> Summary:
    """What a summary says after the run: the last epoch's numbers and the weights' digest."""
    last: Record = history[-1] if history else {}
    names = ("epoch", "loss", "train_loss", "train_accuracy", "test_loss", "test_accuracy")
    arrays = {name: np.asarray(x) for name, x in to_numpy(state.params).items()}
    return {
        **{name: _known(last.get(name)) for name in names},
        "steps": int(state.step),
        "seconds": round(sum(record.get("seconds", 0.0) for record in history), 3),
        "parameters": sum(x.size for x in arrays.values()),
        "weights_sha256": digest(arrays),
    }
