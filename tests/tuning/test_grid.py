"""Grids: what may be written, and what it makes."""

import numpy as np
import pytest

import fnopt
from fnopt.training.errors import CommandError
from fnopt.tuning.grid import make_grid, read_axis


def test_a_grid_of_two():
    words = ["learning_rate=log:1e-3:1e-1:3", "weight_decay=0.1,0", "b1=0.8"]
    grid = make_grid("adamw", words, 10)
    rate, decay = fnopt.Tunable(1e-3), fnopt.Tunable(0.0)
    assert grid.optimizer == fnopt.adamw(rate, b1=0.8, weight_decay=decay)
    assert grid.size == 6
    np.testing.assert_allclose(grid.settings["learning_rate"], [1e-3, 1e-3, 1e-2, 1e-2, 1e-1, 1e-1])
    np.testing.assert_allclose(grid.settings["weight_decay"], [0, 0.1] * 3)
    assert [axis.log for axis in grid.axes] == [True, False]


def test_a_schedule_holds_for_all():
    grid = make_grid("adamw", ["learning_rate=cosine:1e-3,alpha=0.1", "b1=lin:0.5:0.9:5"], 10)
    assert grid.optimizer.arguments.arguments["learning_rate"] == fnopt.cosine_decay_schedule(
        1e-3, 10, 0.1
    )
    assert grid.axes[0].values == (0.5, 0.6, 0.7, 0.8, 0.9)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,10,5", (1.0, 5.0, 10.0)), ("0.5", None), ("cosine:1e-3", None), ("none", None),
        ("lin:-1:1:3", (-1.0, 0.0, 1.0)), ("log:1:100:3", (1.0, 10.0, 100.0)),
    ],
)  # fmt: skip
def test_values(text, values):
    axis = read_axis("x", text)
    assert (axis and axis.values) == values


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing varies"),
        (["learning_rate=0.1"], "nothing varies"),
        (["learning_rate=log:0:1:3"], "low < high above 0"),
        (["learning_rate=lin:1:0:3"], "low < high, and"),
        (["learning_rate=log:1:2:1"], "a count of 2 or more"),
        (["learning_rate=log:1:2"], "expected log:low:high:count"),
        (["learning_rate=log:1:2:3:4"], "expected log:low:high:count"),
        (["learning_rate=1,1"], "a value comes twice"),
        (["b1=0.5,1.5"], r"adam: b1 must be in \[0, 1\), got 1.5"),
        (["beta1=0.5,0.6"], "beta1 cannot vary; did you mean 'b1'"),
        (["nesterov=0,1"], "nesterov cannot vary"),
        (["b1=lin:0.1:0.9:100", "b2=lin:0.1:0.9:100"], "10000 settings are too many"),
    ],
)
def test_mistakes(words, message):
    with pytest.raises(CommandError, match=message):
        make_grid("adam", words, 10)


def test_what_is_read_once_cannot_vary():
    with pytest.raises(CommandError, match="initial_accumulator_value is read once"):
        make_grid("adagrad", ["initial_accumulator_value=0.1,0.2"], 10)
