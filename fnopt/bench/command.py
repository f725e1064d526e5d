"""`fnopt bench`: measurements of the package, as Markdown pages."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fnopt.bench import costs, costs_page, matrices, matrices_page, precision, precision_page
from fnopt.training.choices import nearest
from fnopt.training.errors import CommandError
from fnopt.training.options import require

OWN = {
    "costs": ("tree", "rounds"),
    "precision": ("tasks", "seeds", "steps"),
    "matrices": ("seeds", "steps"),
}
"""Benchmark -> the options that not all have."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to a parser."""
    what = (
        "costs: bytes, memory and compile time of a step, beside optax where it is installed; "
        "precision: losses of training in low precision; "
        "matrices: losses of matrix optimizers beside AdamW"
    )
    add = parser.add_argument
    add("benchmark", choices=tuple(OWN), metavar="BENCHMARK", help=what)
    add("--out", type=Path, metavar="FILE", help="the page to write, or to bring up to date")
    add("--only", metavar="NAMES", help="configurations, settings or optimizers, with commas (all)")
    more = parser.add_argument_group("costs").add_argument
    more("--tree", choices=list(costs.TREES), action="append", help="of the params; again for more")
    more("--rounds", type=int, help="compilations to take medians of (3)")
    more = parser.add_argument_group("precision").add_argument
    more("--tasks", metavar="NAMES", help=f"of {', '.join(precision.TASKS)} (all)")
    more = parser.add_argument_group("precision and matrices").add_argument
    more("--seeds", type=int, help="runs of each setting (3)")
    more("--steps", type=int, help="of each run (as many as the task has)")


def run(args: argparse.Namespace) -> int:
    """Runs the command: measures, and prints or writes the page.

    Raises:
      CommandError: an unknown name, a number out of range, or an option of another benchmark.
    """
    for option in dict.fromkeys(option for options in OWN.values() for option in options):
        value = getattr(args, option)
        owners = [benchmark for benchmark, options in OWN.items() if option in options]
        if value is not None and args.benchmark not in owners:
            raise CommandError(f"--{option} is an option of fnopt bench {' and '.join(owners)}")
        if isinstance(value, int) and value < 1:
            raise CommandError(f"--{option} must be at least 1, got {value}")
    if args.out is not None and not args.out.parent.is_dir():
        raise CommandError(f"--out {args.out}: there is no folder {args.out.parent}")
    runs = {"costs": run_costs, "precision": run_precision, "matrices": run_matrices}
    page = runs[args.benchmark](args)
    print(f"wrote {args.out}" if args.out else page.rstrip())
    return 0


def run_costs(args: argparse.Namespace) -> str:
    """The page of costs; with `--out` it is written after each row."""
    found = costs.configurations()
    names = listed("configuration", args.only, found)
    chosen = list(dict.fromkeys(args.tree or costs.TREES))
    old = costs_page.rows_on(args.out.read_text()) if args.out and args.out.exists() else {}
    command = "fnopt bench costs" + (f" --out {args.out}" if args.out else "")
    page = ""
    with progress(len(chosen) * len(names)) as show:
        for where in chosen:
            tree = costs.TREES[where][1]()
            for name in names:
                show(f"{where}: {name}")
                row = costs.measure(found[name], tree, args.rounds or 3)
                old.setdefault(where, {})[name] = row
                page = costs_page.page(in_order(old, found), command)
                if args.out is not None:
                    args.out.write_text(page)
    return page


def run_precision(args: argparse.Namespace) -> str:
    """The page of losses; with `--out` it and its picture are written after each task.

    Raises:
      CommandError: an unknown setting or task, or a package that it needs is missing.
    """
    names = listed("setting", args.only, precision.SETTINGS)
    tasks = listed("task", args.tasks, precision.TASKS)
    old = precision_page.sections_on(args.out.read_text()) if args.out and args.out.exists() else {}
    command = "fnopt bench precision" + (f" --out {args.out}" if args.out else "")
    picture = args.out.with_suffix(".png") if args.out else Path("precision.png")
    require({"sklearn": "scikit-learn"} | ({"matplotlib": "matplotlib"} if args.out else {}))
    page = ""
    with progress(len(tasks) * (len(precision.RATES) + len(set(names) - {precision.BASE}))) as show:
        for task in tasks:
            try:
                section = precision.measure(task, names, args.seeds or 3, args.steps, show)
            except FileNotFoundError as error:
                raise CommandError(str(error)) from None
            old[task] = precision.joined(old.get(task), section)
            sections = {name: old[name] for name in precision.TASKS if name in old}
            page = precision_page.page(sections, command, picture.name)
            if args.out is not None:
                args.out.write_text(page)
                precision_page.draw(sections, picture)
    return page


def run_matrices(args: argparse.Namespace) -> str:
    """The page of matrix optimizers; with `--out` it and its picture are written after each one.

    Raises:
      CommandError: an unknown optimizer, or something that it needs is missing.
    """
    names = listed("optimizer", args.only, matrices.OPTIMIZERS)
    command = "fnopt bench matrices" + (f" --out {args.out}" if args.out else "")
    picture = args.out.with_suffix(".png") if args.out else Path("matrices.png")
    require({"matplotlib": "matplotlib"} if args.out else {})

    def there() -> str:
        return args.out.read_text() if args.out and args.out.exists() else ""

    steps, old, page = args.steps or matrices.STEPS, matrices_page.results_on(there()), ""
    with progress(None) as show:
        try:
            for results in matrices.measure(names, args.seeds or 3, steps, old, show):
                notes = matrices_page.notes_on(there())  # perhaps written since
                page = matrices_page.page(results, command, picture.name, notes)
                if args.out is not None:
                    args.out.write_text(page)
                    matrices_page.draw(results, picture)
        except FileNotFoundError as error:
            raise CommandError(str(error)) from None
    return page


def listed(kind: str, words: str | None, known: Mapping[str, Any]) -> list[str]:
    """The names in words with commas between; all that are known if there are none.

    Raises:
      CommandError: a name is not known.
    """
    names = list(known) if words is None else [name.strip() for name in words.split(",")]
    for name in names:
        if name not in known:
            raise CommandError(f"unknown {kind} {name!r}; {nearest(name, known)}")
    return names


def in_order(
    tables: costs_page.Tables, found: Mapping[str, Any]
) -> dict[str, dict[str, costs.Row]]:
    """The tables without rows of configurations that are no more."""
    return {
        where: {name: tables[where][name] for name in found if name in tables[where]}
        for where in costs.TREES
        if where in tables
    }


@contextlib.contextmanager
def progress(total: int | None) -> Iterator[Callable[[str], None]]:
    """A function that says on standard error what is next: on a bar if rich is there.

    Args:
      total: how many things; None if that shows only as they come.
    """
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        done = itertools.count(1)
        of = f"/{total}" if total else ""
        yield lambda what: print(f"{next(done)}{of} {what}", file=sys.stderr, flush=True)
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        begun = itertools.count()
        yield lambda what: bar.update(task, completed=next(begun), description=what)
