"""`fnopt sweep`: trains every setting of a grid at once, ranks them and draws the scores."""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import numpy as np

from fnopt.landscape import style
from fnopt.training.choices import find_optimizer
from fnopt.training.errors import CommandError
from fnopt.training.options import add_problem, given, load, require, settings_of
from fnopt.training.progress import make_progress
from fnopt.training.trial import prepare, total_steps
from fnopt.tuning.grid import Grid, make_grid
from fnopt.tuning.pictures import draw_sweep, shown
from fnopt.tuning.population import SCORES, Result, train

EPOCHS = 10
LISTED = 12  # of the ranking


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to a parser."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n".join(
        [
            "values to try: a,b,c; log:low:high:n, by equal ratios; lin:low:high:n, evenly",
            "a --set with one value, or a schedule, holds for all settings",
            "",
            "examples:",
            "  fnopt sweep --set learning_rate=log:1e-4:1e-1:16",
            "  fnopt sweep --optimizer adamw --set learning_rate=log:1e-4:1e-1:16 \\",
            "    --set weight_decay=0,1e-3,1e-2,1e-1",
        ]
    )
    add = parser.add_argument
    add("--optimizer", metavar="NAME", help="a factory of fnopt's (adam; adamw for a decay)")
    add(
        "--set",
        metavar="NAME=VALUES",
        action="append",
        default=[],
        help="a hyperparameter and the values to try; may be repeated",
    )
    add_problem(parser, EPOCHS)
    add(
        "--by",
        choices=SCORES,
        default="test_loss",
        help="the score after the last epoch that ranks the settings (%(default)s)",
    )
    add("--out", type=Path, default=Path("sweep.png"), help="the picture (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Runs the command: trains, prints the ranking, writes the picture and all scores.

    Returns:
      0; 1 if every setting diverged.

    Raises:
      CommandError: an input is wrong, or a file cannot be written.
    """
    require({"sklearn": "scikit-learn"})
    if args.out.suffix.lower() != ".png":
        raise CommandError(f"--out must name a .png file, got {args.out}")
    with style.slide():
        pass  # a missing matplotlib is said before the work
    usual = {"optimizer": _usual(args.set), "epochs": EPOCHS}
    settings = settings_of(usual | given(args) | {"set": ()})
    find_optimizer(settings.optimizer)
    dataset = load(settings)
    steps = total_steps(settings, dataset)
    grid = make_grid(settings.optimizer, args.set, steps, settings.seed)
    trial = prepare(settings, dataset, grid.optimizer)
    result = train(trial, dataset, grid.settings, make_progress(True, f"{grid.size} settings"))
    order = ranking(result, args.by)
    show(grid, result, order, settings.optimizer)
    if not len(order):
        return 1
    file = write_scores(grid, result, args.out.with_suffix(".csv"))
    best = {axis.name: float(grid.settings[axis.name][order[0]]) for axis in grid.axes}
    said = ", ".join(f"{name} {shown(value)}" for name, value in best.items())
    title = f"{style.label(settings.optimizer)} on {dataset.name}: best with {said}"
    print(f"wrote {draw_sweep(grid, result, args.by, int(order[0]), title, args.out)} and {file}")
    again = " ".join(f"--set {name}={value:g}" for name, value in best.items())
    print(f"train with it: fnopt train --optimizer {settings.optimizer} {again}")
    return 0


def _usual(words: list[str]) -> str:
    """adamw where a weight decay is set, else adam."""
    return "adamw" if any(word.startswith("weight_decay=") for word in words) else "adam"


def ranking(result: Result, by: str) -> np.ndarray:
    """The numbers of the settings that did not diverge, the best first."""
    scores = result.last(by) * (-1 if by.endswith("accuracy") else 1)
    order = np.argsort(scores, kind="stable")
    return order[np.isfinite(scores[order])]


def show(grid: Grid, result: Result, order: np.ndarray, optimizer: str) -> None:
    """Prints the first of the ranking, the best in bold if rich is there, and how many are left."""
    head, *rows = table(grid, result, order)
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        widths = [max(len(row[k]) for row in [head, *rows]) for k in range(len(head))]
        for row in [head, *rows]:
            print("  ".join(cell.rjust(n) for cell, n in zip(row, widths)))
    else:
        shelf = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for word in head:
            shelf.add_column(word, justify="right", no_wrap=True)
        for i, row in enumerate(rows):
            shelf.add_row(*row, style="bold" if i == 0 else None)
        Console(highlight=False, width=None if sys.stdout.isatty() else 100).print(shelf)
    more, lost = len(order) - len(rows), grid.size - len(order)
    notes = [f"{more} more"] * bool(more) + [f"{lost} diverged"] * bool(lost)
    said = f" ({', '.join(notes)})" if notes else ""
    print(f"{grid.size} settings of {optimizer} in {result.seconds:.1f} s{said}")


def table(grid: Grid, result: Result, order: np.ndarray) -> list[list[str]]:
    """The head of the ranking and its first rows, in words."""
    names = [axis.name for axis in grid.axes]
    rows = [
        [
            str(rank + 1),
            *(shown(float(grid.settings[name][i])) for name in names),
            f"{result.last('train_loss')[i]:.4g}",
            f"{result.last('test_loss')[i]:.4g}",
            f"{100 * result.last('test_accuracy')[i]:.2f}%",
        ]
        for rank, i in enumerate(order[:LISTED])
    ]
    return [["", *names, "train loss", "test loss", "test acc"], *rows]


def write_scores(grid: Grid, result: Result, file: Path) -> Path:
    """Writes every setting and its last scores as .csv; a score of a diverged one is empty.

    Raises:
      CommandError: the file cannot be written.
    """
    names = [axis.name for axis in grid.axes]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w", encoding="utf-8", newline="") as lines:
            writer = csv.writer(lines, lineterminator="\n")
            writer.writerow([*names, *SCORES])
            for i in range(grid.size):
                scores = [result.last(score)[i] for score in SCORES]
                shown_scores = ["" if np.isnan(x) else f"{x:.9g}" for x in scores]
                writer.writerow([*(f"{grid.settings[n][i]:g}" for n in names), *shown_scores])
    except OSError as error:
        raise style.unwritable(file, error) from error
    return file
