"""Options that the commands share."""

import argparse

import pytest

from fnopt.training import options
from fnopt.training.errors import CommandError
from fnopt.training.settings import Settings


def parsed(*words):
    parser = argparse.ArgumentParser(exit_on_error=False)
    options.add_problem(parser, 7)
    return options.given(parser.parse_args(words))


def test_only_what_was_given_counts():
    assert parsed() == {}
    assert parsed("--seed", "0", "--hidden", "none") == {"seed": 0, "hidden": ()}
    assert parsed("--hidden", "4,2", "--epochs", "3") == {"hidden": (4, 2), "epochs": 3}


@pytest.mark.parametrize("words", [("--seed", "-1"), ("--epochs", "0"), ("--hidden", "4,x")])
def test_values_out_of_range(words):
    with pytest.raises(argparse.ArgumentError, match=f"expected .*, got '{words[1]}'"):
        parsed(*words)


def test_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = options.settings_of({"set": ["b1=0.5"], "data": "a.csv", "label": "y"})
    assert made == Settings(set=("b1=0.5",), data=str(tmp_path / "a.csv"), label="y")
    with pytest.raises(CommandError, match="--label names a column"):
        options.settings_of({"label": "y"})


def test_a_missing_package_is_named():
    options.require({"json": "python"})
    for module in ("no_such_module", "no_such.module"):
        with pytest.raises(CommandError, match="thing is not installed"):
            options.require({module: "thing"})
