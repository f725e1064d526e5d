"""`fnopt train` from its arguments to its folder; mistakes end in one line and status 2."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fnopt.cli import main

SMALL = ["--hidden", "8", "--epochs", "2", "--batch-size", "256"]
FILES = ["checkpoints", "checkpoints.json", "curves.png", "metrics.csv", "summary.json"]


@pytest.fixture
def drawn():
    """For a test of a picture: others leave an empty file, in a third of the time."""


@pytest.fixture(autouse=True)
def _blank(request, monkeypatch):
    if "drawn" not in request.fixturenames:
        blank = lambda figure, file, **options: Path(file).touch()
        monkeypatch.setattr("matplotlib.figure.Figure.savefig", blank)


def train(*words):
    return main(["train", *map(str, words)])


def failure(capsys, *words):
    """The one line that a wrong command says."""
    assert train(*words) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("fnopt train: ")
    assert captured.out == ""
    return line


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def test_a_run(workdir, drawn, capsys):
    assert train(*SMALL) == 0
    (folder,) = (workdir / "runs").iterdir()
    assert folder.name.endswith("-adam")
    assert sorted(p.name for p in folder.iterdir()) == FILES
    assert (folder / "curves.png").stat().st_size > 5_000
    out = capsys.readouterr()
    assert "epoch 2/2: loss" in out.out
    assert "digits, network 64-8-10" in out.out
    assert f"in runs/{folder.name}: metrics.csv" in out.out
    assert out.err == ""


@pytest.mark.parametrize(
    "words",
    [
        ["--optimizer", "sgd", "--set", "momentum=0.9", "--set", "nesterov=true"],
        ["--set", "learning_rate=warmup_cosine:1e-2"],
        ["--set", "b1=linear:0.9,end_value=0.5"],
        ["--dtype", "float64"],
        ["--dtype", "bfloat16", "--gradients", "backprop"],
        ["--activation", "tanh", "--seed", "7", "--hidden", "none"],
        ["--hidden", "8,4,6", "--activation", "gelu"],
    ],
)
def test_options(workdir, words):
    assert train(*SMALL, *words, "--out", "a") == 0
    assert summary(workdir / "a")["status"] == "finished"
    rerun = summary(workdir / "a")["settings"]
    assert rerun["epochs"] == 2


def test_a_schedule_spans_the_run(workdir):
    assert train(*SMALL, "--set", "learning_rate=linear:1.0", "--out", "a") == 0
    lines = (workdir / "a" / "metrics.csv").read_text().splitlines()
    rates = [float(line.split(",")[9]) for line in lines[1:]]
    np.testing.assert_allclose(rates, [0.6, 0.1], rtol=1e-6)  # after 5 and 10 steps of 10


def test_a_comparison(workdir, drawn, capsys):
    words = ["--compare", "sgd,adam", "--set", "adam.learning_rate=0", "--set", "sgd.momentum=0"]
    assert train(*SMALL, *words, "--out", "a") == 0
    assert sorted(p.name for p in (workdir / "a").iterdir()) == [
        "adam", "curves.png", "sgd", "summary.json",
    ]  # fmt: skip
    whole = summary(workdir / "a")
    assert list(whole["runs"]) == ["sgd", "adam"]
    assert whole["status"] == "finished"
    assert "learning_rate=0," in whole["runs"]["adam"]["optimizer"]
    assert "momentum=0" in whole["runs"]["sgd"]["optimizer"]
    out = capsys.readouterr().out
    assert "sgd epoch 1/2" in out
    assert "adam epoch 2/2" in out
    assert train("--resume", "a") == 0
    assert summary(workdir / "a")["runs"] == whole["runs"]


def test_the_compared_begin_alike(workdir):
    """With a rate of zero the weights stay those of the beginning, which are the same."""
    words = ["--compare", "sgd,adam,rmsprop", "--set", "learning_rate=0"]
    assert train(*SMALL, *words, "--out", "a") == 0
    runs = summary(workdir / "a")["runs"]
    assert len({run["weights_sha256"] for run in runs.values()}) == 1


def test_a_diverging_run_ends_with_status_1(workdir, capsys):
    words = ["--optimizer", "sgd", "--set", "learning_rate=1e30", "--out", "a"]
    assert train(*SMALL, *words) == 1
    assert "stopped: the loss became" in capsys.readouterr().out
    assert train("--resume", "a") == 1
    words = ["--compare", "sgd,adam", "--set", "sgd.learning_rate=1e30", "--out", "b"]
    assert train(*SMALL, *words) == 0


def test_a_file(workdir):
    rng = np.random.RandomState(0)
    x = rng.normal(size=(60, 2))
    rows = [f"{a},{b},{'up' if a > 0 else 'down'}" for a, b in x]
    (workdir / "t.csv").write_text("\n".join(["a,b,way", *rows]))
    words = ["--data", "t.csv", "--label", "way", "--hidden", "4", "--epochs", "2"]
    assert train(*words, "--out", "a") == 0
    found = summary(workdir / "a")
    assert found["data"]["classes"] == ["down", "up"]
    assert found["settings"]["data"] == str(workdir.resolve() / "t.csv")
    np.savez(workdir / "t.npz", x=x, y=(x[:, 0] > 0).astype(int))
    assert train("--data", "t.npz", "--epochs", "1", "--out", "b") == 0


def test_data_that_has_changed_is_noticed(workdir, capsys):
    def save(seed):
        x = np.random.RandomState(seed).normal(size=(60, 2))
        np.savez(workdir / "t.npz", x=x, y=np.arange(60) % 2)

    save(0)
    assert train("--data", "t.npz", "--epochs", "1", "--out", "a") == 0
    capsys.readouterr()
    save(1)
    line = failure(capsys, "--resume", "a")
    assert line == "fnopt train: the data is not what the run in a began with"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--optimizer", "adm"], "unknown optimizer 'adm'; did you mean 'adam'?"),
        (["--compare", "sgd,momentun"], "unknown optimizer 'momentun'; did you mean 'momentum'?"),
        (["--compare", "sgd,sgd"], "different names with commas between"),
        (["--compare", "sgd,adam", "--optimizer", "sgd"], "not both"),
        (["--set", "b1=2"], "adam: b1 must be in [0, 1), got 2"),
        (["--set", "beta=2"], "adam has no hyperparameter 'beta'"),
        (["--set", "learning_rate=cosin:1"], "did you mean 'cosine'?"),
        (["--compare", "sgd,adam", "--set", "b1=0.5"], "sgd has no hyperparameter 'b1'"),
        (["--compare", "sgd,adam", "--set", "rms.b1=0.5"], "'rms' takes no part"),
        (["--data", "nowhere.csv"], "no such file"),
        (["--label", "y"], "--label names a column"),
        (["--epochs", "0"], "--epochs: expected a positive integer, got '0'"),
        (["--epochs", "x"], "--epochs: expected a positive integer, got 'x'"),
        (["--hidden", "8,-1"], "--hidden: expected positive integers"),
        (["--seed", "-1"], "--seed: expected an integer from 0"),
        (["--dtype", "int8"], "invalid choice: 'int8'"),
        (["--batch-size", "5000"], "--batch-size 5000 exceeds the 1437 training examples"),
        (["--resume", "nowhere"], "no such run folder: nowhere"),
        (["--resume", "."], "not a run folder"),
        (["--resume", ".", "--epochs", "3"], "leave out --epochs"),
        (["--resume", ".", "--batch-size", "3"], "leave out --batch-size"),
        (["--resume", ".", "--out", "a"], "leave out --out"),
        (["--out", "full"], "full is not empty"),
        (["--out", "full/file/a"], "cannot write full/file/a"),
        (["--unknown"], "unrecognized arguments: --unknown"),
        (["more"], "unrecognized arguments: more"),
    ],
)
def test_mistakes(workdir, capsys, words, expected):
    (workdir / "full").mkdir()
    (workdir / "full" / "file").write_text("")
    assert expected in failure(capsys, *words)
    assert [p.name for p in workdir.iterdir()] == ["full"], "nothing is left behind"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,label\n1,0\nnan,1\n", "line 3, column 'a' is NaN"),
        ("a,label\n" + "1,0\n2,1\n" * 10 + "3,-2\n", "line 22, column 'label': label -2 is out"),
        ("a,b\n1,0\n", "no column 'label'"),
    ],
)
def test_bad_data(workdir, capsys, text, expected):
    (workdir / "t.csv").write_text(text)
    assert expected in failure(capsys, "--data", "t.csv", "--epochs", "1")


@pytest.fixture(scope="module")
def three_epochs(tmp_path_factory):
    """The folder of a run."""
    folder = tmp_path_factory.mktemp("three") / "a"
    words = ["--hidden", "8", "--epochs", "3", "--batch-size", "256", "--out", folder]
    assert train(*words) == 0
    return folder


@pytest.fixture
def begun(workdir, three_epochs, capsys):
    """A run that was killed after its second epoch of three."""
    shutil.copytree(three_epochs, workdir / "a")
    shutil.rmtree(workdir / "a" / "checkpoints" / "3")
    whole = summary(workdir / "a")
    running = {k: whole[k] for k in ("settings", "data")} | {"status": "running"}
    (workdir / "a" / "summary.json").write_text(json.dumps(running))
    capsys.readouterr()
    return workdir / "a", whole


def test_resume(begun, capsys):
    folder, whole = begun
    assert train("--resume", "a") == 0
    assert summary(folder)["weights_sha256"] == whole["weights_sha256"]
    assert len((folder / "metrics.csv").read_text().splitlines()) == 4
    out = capsys.readouterr().out
    assert "epoch 3/3" in out
    assert "epoch 2/3" not in out


def test_a_corrupt_checkpoint(begun, capsys):
    folder, _ = begun
    for file in (folder / "checkpoints" / "2").rglob("*"):
        if file.is_file():
            file.write_bytes(b"nonsense")
    line = failure(capsys, "--resume", "a")
    assert "checkpoints/2 is damaged" in line
    assert "delete that folder" not in line, "there is no older one"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("{", "summary.json is damaged"),
        ({"optimizer": "adm"}, "unknown optimizer 'adm'"),
        ({"epochs": "many"}, "the setting 'epochs' has an unexpected value 'many'"),
        ({"hidden": [9]}, "the arrays do not fit the state"),
        ({"data": "/nowhere.npz"}, "no such file: /nowhere.npz"),
    ],
)
def test_a_damaged_run_folder(begun, capsys, change, expected):
    folder, _ = begun
    if isinstance(change, str):
        text = change
    else:
        before = summary(folder)
        text = json.dumps(before | {"settings": before["settings"] | change})
    (folder / "summary.json").write_text(text)
    assert expected in failure(capsys, "--resume", "a")


def test_a_missing_extra_names_the_install(monkeypatch, capsys, workdir):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    line = failure(capsys)
    assert line == "fnopt train: rich is not installed: pip install 'fnopt[train]'"


def test_optimizers_are_given_what_they_read(workdir):
    names = ["polyak_sgd", "momo", "adahessian", "sophia", "noisy_sgd", "dpsgd"]
    words = ["--set", "dpsgd.l2_norm_clip=1", "--set", "dpsgd.noise_multiplier=0.1"]
    assert train(*SMALL, "--compare", ",".join(names), *words, "--out", "a") == 0
    runs = summary(workdir / "a")["runs"]
    assert {name: run["status"] for name, run in runs.items()} == dict.fromkeys(names, "finished")
    assert not [name for name, run in runs.items() if not run["train_loss"] < 2.5]


def test_ctrl_c_says_how_to_go_on(monkeypatch, capsys, workdir):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("fnopt.training.trial.fit", interrupted)
    assert train(*SMALL, "--out", "a") == 130
    line = capsys.readouterr().err.strip()
    assert line == "fnopt train: interrupted; go on with: fnopt train --resume a"
    monkeypatch.undo()
    assert train("--resume", "a") == 0


def test_help_names_the_schedules_and_rates(capsys):
    assert train("--help") == 0
    out = capsys.readouterr().out
    for word in ("warmup_cosine:V", "onecycle:V", "sgd=0.2", "adam=0.001", "--compare", "--resume"):
        assert word in out
