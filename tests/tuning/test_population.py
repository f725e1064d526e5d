"""A population under vmap is its members, one by one."""

import dataclasses

import numpy as np
import pytest

from fnopt.training.data import Dataset
from fnopt.training.progress import Progress
from fnopt.training.settings import Settings
from fnopt.training.trial import prepare, run_trial
from fnopt.tuning.grid import make_grid
from fnopt.tuning.population import SCORES, train

rng = np.random.default_rng(0)
X = rng.normal(size=(60, 3)).astype(np.float32)
Y = (X[:, 0] * X[:, 1] > 0).astype(np.int32)
DATA = Dataset("quadrants", X[:48], Y[:48], X[48:], Y[48:], ("no", "yes"))
SETTINGS = Settings(optimizer="adamw", hidden=(4,), epochs=3, batch_size=16)


class Told(Progress):
    def __init__(self):
        super().__init__()
        self.records = []

    def epoch(self, record):
        self.records.append(record)


def population(words, settings=SETTINGS):
    grid = make_grid(settings.optimizer, words, 9)
    told = Told()
    trial = prepare(settings, DATA, grid.optimizer)
    return grid, train(trial, DATA, grid.settings, told), told.records


def test_members_are_as_runs_of_their_own(tmp_path):
    grid, result, told = population(["learning_rate=1e-3,1e-1", "weight_decay=0,0.5"])
    assert [record["epoch"] for record in told] == [1, 2, 3]
    for i in range(grid.size):
        words = tuple(f"{name}={float(column[i])!r}" for name, column in grid.settings.items())
        trial = prepare(dataclasses.replace(SETTINGS, set=words), DATA)
        (tmp_path / str(i)).mkdir()
        history = run_trial(trial, DATA, tmp_path / str(i)).history
        for name in SCORES:
            alone = [record[name] for record in history]
            np.testing.assert_allclose(result.scores[name][:, i], alone, rtol=1e-4, atol=1e-6)
    assert len(set(result.last("train_loss"))) == 4


def test_one_that_diverges_does_not_harm_the_others():
    sgd = dataclasses.replace(SETTINGS, optimizer="sgd")
    _, both, told = population(["learning_rate=0.1,1e30"], sgd)
    _, fine, _ = population(["learning_rate=0.1,0.2"], sgd)
    assert np.isnan(both.last("test_loss")[1])
    np.testing.assert_allclose(both.last("test_loss")[0], fine.last("test_loss")[0], rtol=1e-5)
    assert np.isfinite(told[-1]["loss"])


@pytest.mark.parametrize("optimizer", ["schedule_free_sgd", "dog", "sophia", "lamb"])
def test_other_methods(optimizer):
    settings = dataclasses.replace(SETTINGS, optimizer=optimizer)
    _, result, _ = population(["learning_rate=1e-3,1e-2"], settings)
    assert np.isfinite(result.last("test_loss")).all()


def test_it_is_traced_once(monkeypatch):
    from fnopt import mlp

    traces, loss = [], mlp.loss
    monkeypatch.setattr(mlp, "loss", lambda *a, **k: traces.append(1) or loss(*a, **k))
    population(["learning_rate=log:1e-3:1e-1:8"])
    once = len(traces)
    traces.clear()
    population(["learning_rate=log:1e-3:1e-1:8"], dataclasses.replace(SETTINGS, epochs=6))
    assert len(traces) == once > 0


def test_the_scores_of_one_that_diverges_are_nan():
    sgd = dataclasses.replace(SETTINGS, optimizer="sgd")
    _, both, told = population(["learning_rate=0.1,1e30"], sgd)
    for name in SCORES:
        assert np.isnan(both.last(name)[1]), name
        assert np.isfinite(both.last(name)[0]), name
    assert told[-1]["best_test_accuracy"] == pytest.approx(both.last("test_accuracy")[0])
