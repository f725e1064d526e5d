"""Options that the commands share: the data, the network, and how long it is trained."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fnopt.training.data import Dataset, load_digits, load_file
from fnopt.training.errors import CommandError
from fnopt.training.settings import ACTIVATIONS, Settings


def add_problem(parser: argparse.ArgumentParser, epochs: int | None = None) -> None:
    """Adds the options of a problem, each None if it is not given; --epochs if it has a default."""
    usual, add = Settings(), parser.add_argument
    add("--data", metavar="FILE", help="an .npz, .csv or MNIST IDX file (the digits)")
    add("--label", metavar="COLUMN", help="the column of a .csv file that holds the labels (label)")
    add(
        "--hidden",
        metavar="N,N",
        type=_sizes,
        help=f"units of each hidden layer, or none ({','.join(map(str, usual.hidden))})",
    )
    add("--activation", choices=ACTIVATIONS, help=f"of the hidden layers ({usual.activation})")
    if epochs is not None:
        add("--epochs", metavar="N", type=positive, help=f"passes over the data ({epochs})")
    add("--batch-size", metavar="N", type=positive, help=f"rows per step ({usual.batch_size})")
    add("--seed", metavar="N", type=_seed, help="of the weights and the order of the rows (0)")


def checked(what: str, accept: Callable[[str], Any]) -> Callable[[str], Any]:
    """An argparse type whose error says what was expected."""

    def convert(text: str) -> Any:
        try:
            return accept(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected {what}, got {text!r}") from None

    return convert


def _within(low: int, high: int, text: str) -> int:
    value = int(text)
    if not low <= value <= high:
        raise ValueError
    return value


def _layers(text: str) -> tuple[int, ...]:
    if text.lower() == "none":
        return ()
    return tuple(_within(1, 2**31 - 1, word) for word in text.split(","))


positive = checked("a positive integer", lambda text: _within(1, 2**31 - 1, text))
_seed = checked("an integer from 0 to 2147483647", lambda text: _within(0, 2**31 - 1, text))
_sizes = checked("positive integers with commas between", _layers)


def given(args: argparse.Namespace) -> dict[str, Any]:
    """The settings among the arguments that were given."""
    names = vars(Settings())
    return {k: v for k, v in vars(args).items() if k in names and v is not None and v is not False}


def settings_of(given: Mapping[str, Any]) -> Settings:
    """The settings, the data's path made absolute.

    Raises:
      CommandError: there is a label, but no file that it could be a column of.
    """
    values = dict(given)
    if "set" in values:
        values["set"] = tuple(values["set"])
    if "data" in values:
        values["data"] = str(Path(values["data"]).expanduser().absolute())
    elif "label" in values:
        raise CommandError("--label names a column of the .csv file that --data gives")
    return Settings(**values)


def load(settings: Settings) -> Dataset:
    """The data that the settings name, in float64 for float64 parameters, else in float32."""
    wide = "float64" if settings.dtype == "float64" else "float32"
    if settings.data is None:
        return load_digits(wide)
    return load_file(settings.data, settings.label, wide)


def require(packages: Mapping[str, str]) -> None:
    """Refuses to begin where a module is missing.

    Args:
      packages: module -> the package that has it, of the extra `train`.

    Raises:
      CommandError: for the first that is missing.
    """
    for module, package in packages.items():
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise CommandError(f"{package} is not installed: pip install 'fnopt[train]'")
