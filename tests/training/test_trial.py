"""One run in a folder: begun, finished, gone on with, stopped."""

import json

import jax
import numpy as np
import pytest

from fnopt.hyperparameters import LearningRate
from fnopt.training import trial
from fnopt.training.choices import optimizers
from fnopt.training.data import Dataset
from fnopt.training.errors import CommandError
from fnopt.training.runs import read_rows, read_summary
from fnopt.training.settings import Settings
from fnopt.training.step import LAYER_METRICS

RNG = np.random.RandomState(0)
X = RNG.normal(size=(48, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int32)
DATA = Dataset("toy", X[:40], Y[:40], X[40:], Y[40:], ("no", "yes"))
SETTINGS = Settings(hidden=(4,), epochs=3, batch_size=8, set=("learning_rate=0.05",))


def replaced(**options):
    return Settings(**(vars(SETTINGS) | options))


def run(folder, settings=SETTINGS):
    folder.mkdir(exist_ok=True)
    return trial.run_trial(trial.prepare(settings, DATA), DATA, folder)


def test_a_run_leaves_everything_in_its_folder(tmp_path):
    outcome = run(tmp_path / "a")
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    assert summary == outcome.summary
    assert summary["status"] == "finished"
    assert summary["settings"] == SETTINGS.as_json()
    assert summary["optimizer"].startswith("adam(learning_rate=0.05")
    assert summary["steps"] == 15
    assert summary["state"]["state_bytes"] == 2 * summary["state"]["param_bytes"] + 12
    assert summary["state"]["rows"][1]["path"] == "[0]['w']"
    assert summary["parameters"] == 3 * 4 + 4 + 4 * 2 + 2
    assert summary["data"]["classes"] == ["no", "yes"]
    assert summary["data"]["digest"] == DATA.digest
    assert summary["device"]["platform"] == jax.devices()[0].platform
    assert set(summary["versions"]) >= {"python", "fnopt", "jax", "jaxlib", "orbax-checkpoint"}
    rows = read_rows(tmp_path / "a")
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert summary["test_accuracy"] == pytest.approx(rows[-1]["test_accuracy"])
    assert summary["train_loss"] < rows[0]["train_loss"]
    assert sorted(p.name for p in (tmp_path / "a" / "checkpoints").iterdir()) == ["2", "3"]


def test_the_same_seed_gives_the_same_numbers(tmp_path):
    digests = [
        run(tmp_path / name, replaced(seed=seed)).summary["weights_sha256"]
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert digests[0] == digests[1] != digests[2]


NARROW = ("learning_rate=0.05", "min_size=0")


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        replaced(optimizer="adamw_4bit", set=NARROW),
        replaced(optimizer="adamw_8bit", set=NARROW, dtype="bfloat16"),
    ],
    ids=lambda s: s.optimizer,
)
def test_it_goes_on_from_the_last_checkpoint(tmp_path, monkeypatch, settings):
    whole = run(tmp_path / "whole", settings)
    save = trial.Checkpoints.save

    def killed(self, epoch, state):
        if epoch == 2:
            raise KeyboardInterrupt
        save(self, epoch, state)

    monkeypatch.setattr(trial.Checkpoints, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", settings)
    assert len(read_rows(tmp_path / "cut")) == 2
    monkeypatch.undo()
    rest = run(tmp_path / "cut", settings)
    assert rest.summary["weights_sha256"] == whole.summary["weights_sha256"]
    for one, other in zip(read_rows(tmp_path / "whole"), read_rows(tmp_path / "cut"), strict=True):
        assert one | {"seconds": 0} == other | {"seconds": 0}


def test_a_finished_run_is_not_run_again(tmp_path):
    first = run(tmp_path / "a")
    again = run(tmp_path / "a")
    assert again.summary == first.summary
    assert [r["epoch"] for r in again.history] == [1, 2, 3]


def test_a_run_that_diverges_is_stopped(tmp_path):
    outcome = run(tmp_path / "a", replaced(optimizer="sgd", set=("learning_rate=1e30",)))
    assert outcome.summary["status"] == "stopped"
    assert "the state after epoch 0 is kept" in outcome.summary["stopped"]
    assert outcome.summary["test_accuracy"] is None
    json.loads((tmp_path / "a" / "summary.json").read_text(), parse_constant=pytest.fail)


def test_lost_checkpoints_are_noticed(tmp_path):
    import shutil

    run(tmp_path / "a")
    shutil.rmtree(tmp_path / "a" / "checkpoints")
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    (tmp_path / "a" / "summary.json").write_text(json.dumps(summary | {"status": "running"}))
    with pytest.raises(CommandError, match="checkpoints in .* are missing"):
        run(tmp_path / "a")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_dtypes_learn(tmp_path, dtype):
    assert run(tmp_path / "a", replaced(dtype=dtype, epochs=10)).summary["train_accuracy"] > 0.8


def test_backprop_is_autodiff(tmp_path):
    one = run(tmp_path / "a")
    other = run(tmp_path / "b", replaced(gradients="backprop"))
    assert other.summary["train_loss"] == pytest.approx(one.summary["train_loss"], rel=1e-3)


def prepared(name):
    """The text of an optimizer that has made a step of the network, or why it cannot make one."""
    needed = {"dpsgd": ("l2_norm_clip=1.0", "noise_multiplier=0.1")}
    settings = replaced(optimizer=name, set=needed.get(name, ()))
    try:
        return repr(trial.prepare(settings, DATA).optimizer)
    except Exception as error:
        return f"fails: {error!r}"


def test_every_optimizer_can_begin():
    """Traced, not computed: a step of the network by each of fnopt's optimizers."""
    found = {name: prepared(name) for name in optimizers()}
    bad = lambda name, text: text.startswith("fails: ") or name not in text
    assert not {name: text for name, text in found.items() if bad(name, text)}


def test_a_batch_greater_than_the_data():
    with pytest.raises(CommandError, match="--batch-size 41 exceeds the 40 training examples"):
        trial.prepare(replaced(batch_size=41), DATA)


def test_an_optimizer_that_cannot_train_the_network(monkeypatch):
    import fnopt

    @fnopt.gradient_transformation
    def picky(learning_rate: LearningRate):
        def update(updates, state, params, *, logits_fn):
            return updates, state

        return lambda params: (), update

    picky.__module__ = "fnopt.optimizers.picky"
    monkeypatch.setattr(fnopt, "picky", picky, raising=False)
    message = "picky cannot train this network: picky needs logits_fn"
    with pytest.raises(CommandError, match=message):
        trial.prepare(replaced(optimizer="picky", set=()), DATA)


def test_numbers_of_each_layer_are_logged(tmp_path):
    history = run(tmp_path / "a", replaced(log_layers=True)).history
    rows = read_rows(tmp_path / "a")
    names = [f"{m}/{i}/{p}" for i in (0, 1) for p in "bw" for m in LAYER_METRICS]
    assert [name for name in rows[0] if "/" in name] == sorted(names)
    for row, record in zip(rows, history):
        for name in names:
            assert row[name] == pytest.approx(record[name], rel=1e-6)
            assert row[name] > 0
        assert max(row[f"grad_norm/{i}/{p}"] for i in (0, 1) for p in "bw") < row["grad_norm"]
    plain = run(tmp_path / "b", SETTINGS)
    assert plain.summary["weights_sha256"] == read_summary(tmp_path / "a")["weights_sha256"]
