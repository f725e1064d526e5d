"""`fnopt bench`: measurements of the package, as Markdown pages."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fnopt.bench import costs, costs_page
from fnopt.training.choices import nearest
from fnopt.training.errors import CommandError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to a parser."""
    what = "costs: bytes, memory and compile time of a step, beside optax where it is installed"
    add = parser.add_argument
    add("benchmark", choices=("costs",), metavar="BENCHMARK", help=what)
    add("--out", type=Path, metavar="FILE", help="the page to write, or to bring up to date")
    add("--only", metavar="NAMES", help="configurations, with commas between (all)")
    add("--tree", choices=list(costs.TREES), action="append", help="of the params; again for more")
    add("--rounds", type=int, default=3, help="compilations to take medians of (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Runs the command: measures, and prints or writes the page.

    Raises:
      CommandError: an unknown configuration, or a number out of range.
    """
    if args.rounds < 1:
        raise CommandError(f"--rounds must be at least 1, got {args.rounds}")
    found = costs.configurations()
    names = list(found) if args.only is None else [n.strip() for n in args.only.split(",")]
    for name in names:
        if name not in found:
            raise CommandError(f"unknown configuration {name!r}; {nearest(name, found)}")
    chosen = list(dict.fromkeys(args.tree or costs.TREES))
    if args.out is not None and not args.out.parent.is_dir():
        raise CommandError(f"--out {args.out}: there is no folder {args.out.parent}")
    old = costs_page.rows_on(args.out.read_text()) if args.out and args.out.exists() else {}
    command = "fnopt bench costs" + (f" --out {args.out}" if args.out else "")
    tables: dict[str, dict[str, costs.Row]] = {}
    with progress(len(chosen) * len(names)) as show:
        for where in chosen:
            tree = costs.TREES[where][1]()
            for name in names:
                show(f"{where}: {name}")
                row = costs.measure(found[name], tree, args.rounds)
                old.setdefault(where, {})[name] = row
                tables = in_order(old, found)
                if args.out is not None:
                    args.out.write_text(costs_page.page(tables, command))
    print(f"wrote {args.out}" if args.out else costs_page.page(tables, command).rstrip())
    return 0


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
def progress(total: int) -> Iterator[Callable[[str], None]]:
    """A function that says on standard error what is next: on a bar if rich is there."""
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        done = iter(range(1, total + 1))
        yield lambda what: print(f"{next(done)}/{total} {what}", file=sys.stderr, flush=True)
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        begun = iter(range(total))
        yield lambda what: bar.update(task, completed=next(begun), description=what)
