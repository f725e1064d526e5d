"""`fnopt sweep` and `fnopt lr-find`, on a small table."""

import csv

import numpy as np
import pytest
from matplotlib import image

from fnopt.cli import main

FEW = ["--data", "quadrants.npz", "--hidden", "4", "--batch-size", "8"]


@pytest.fixture
def table(workdir):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    np.savez("quadrants.npz", x=x, y=(x[:, 0] > 0).astype(int))
    return workdir


def sweep(*words):
    return main(["sweep", *FEW, "--epochs", "2", *words])


def rows_of(file):
    with open(file, newline="") as lines:
        return list(csv.DictReader(lines))


def test_one_hyperparameter(table, capsys):
    assert sweep("--set", "learning_rate=log:1e-3:1e-1:4", "--optimizer", "sgd") == 0
    printed = capsys.readouterr().out
    assert "4 settings of sgd in" in printed
    assert "wrote sweep.png and sweep.csv" in printed
    rows = rows_of("sweep.csv")
    best = min(rows, key=lambda row: float(row["test_loss"]))
    assert f"fnopt train --optimizer sgd --set learning_rate={best['learning_rate']}" in printed
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx(
        [1e-3, 4.64159e-3, 2.15443e-2, 1e-1]
    )
    assert image.imread("sweep.png")[..., :3].std() > 0.01


@pytest.mark.parametrize("by", ["test_loss", "test_accuracy", "train_loss", "train_accuracy"])
def test_two_hyperparameters_and_a_fixed_one(table, capsys, by):
    words = ["--set", "learning_rate=1e-3,1e-2,1e-1", "--set", "weight_decay=0,0.1"]
    assert sweep(*words, "--set", "b1=0.8", "--by", by, "--out", "out/map.png") == 0
    assert "6 settings of adamw" in capsys.readouterr().out
    rows = rows_of("out/map.csv")
    assert len(rows) == 6
    assert set(rows[0]) > {"learning_rate", "weight_decay", "test_loss", "train_accuracy"}
    assert image.imread("out/map.png")[..., :3].std() > 0.01


def test_three_hyperparameters(table):
    words = ["learning_rate=1e-3,1e-2", "b1=0.8,0.9", "b2=0.9,0.99,0.999"]
    assert sweep(*(w for word in words for w in ("--set", word))) == 0
    assert len(rows_of("sweep.csv")) == 12


def test_some_or_all_diverge(table, capsys):
    assert sweep("--optimizer", "sgd", "--set", "learning_rate=0.1,1e30") == 0
    assert "(1 diverged)" in capsys.readouterr().out
    assert rows_of("sweep.csv")[1]["test_loss"] == ""
    assert sweep("--optimizer", "sgd", "--set", "learning_rate=1e30,2e30") == 1
    assert "(2 diverged)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep"], "nothing varies"),
        (["sweep", "--set", "learning_rate=1,2", "--out", "a.jpg"], "must name a .png"),
        (["sweep", "--optimizer", "adm", "--set", "learning_rate=1,2"], "did you mean 'adam'"),
        (["sweep", "--set", "learning_rate=1,2", "--data", "none.npz"], "no such file"),
        (["sweep", "--set", "learning_rate=1,2", "--label", "a"], "--label names a column"),
        (["lr-find", "--low", "1", "--high", "0.1"], "expected 0 < --low < --high"),
        (["lr-find", "--set", "learning_rate=1"], "learning_rate is what is looked for"),
        (["lr-find", "--optimizer", "lio"], "did you mean 'lion'"),
        (["lr-find", "--out", "picture"], "must name a .png"),
    ],
)
def test_mistakes_are_one_line(words, message, workdir, capsys):
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not list(workdir.iterdir())


def test_lr_find(table, capsys):
    words = ["--passes", "3", "--optimizer", "adam", "--set", "b1=0.8", "--out", "rate.png"]
    assert main(["lr-find", *FEW, *words]) == 0
    printed = capsys.readouterr().out
    assert "the loss falls most steeply at" in printed
    assert "fnopt sweep --optimizer adam --set learning_rate=log:" in printed
    assert image.imread("rate.png")[..., :3].std() > 0.01


def test_lr_find_where_nothing_falls(table, capsys):
    words = ["--low", "1e4", "--high", "1e6", "--optimizer", "sgd"]
    assert main(["lr-find", *FEW, *words]) in (1, 2)
    said = capsys.readouterr()
    assert "try another range" in said.out or "try a smaller --low" in said.err
