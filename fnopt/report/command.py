"""`fnopt report RUN`: writes a run of `fnopt train` as one page for the browser."""

from __future__ import annotations

import argparse
from pathlib import Path

from fnopt.report.page import Run, page
from fnopt.training.errors import CommandError
from fnopt.training.runs import read_rows, read_summary, write_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to a parser."""
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run or comparison")
    parser.add_argument("--out", type=Path, help="the page (report.html in the folder)")


def run(args: argparse.Namespace) -> int:
    """Runs the command.

    Raises:
      CommandError: the folder is none of a run, or the page cannot be written.
    """
    folder = args.run.expanduser()
    summary = read_summary(folder)
    runs = read_runs(folder)
    if not any(run.rows for run in runs):
        raise CommandError(f"{folder} has no epoch to report yet")
    names = ", ".join(run.name for run in runs)
    title = f"{names} on {summary.get('data', {}).get('name', 'data')}"
    out = folder / "report.html" if args.out is None else args.out
    write_text(out, page(title, summary, runs))
    print(f"wrote {out}")
    return 0


def read_runs(folder: Path) -> list[Run]:
    """The run in a folder, or those of a comparison that have begun.

    Raises:
      CommandError: a file is missing or damaged.
    """
    settings = read_summary(folder)["settings"]
    names = settings.get("compare") or []
    if not names:
        return [Run(str(settings.get("optimizer")), read_summary(folder), read_rows(folder))]
    begun = [name for name in names if (folder / name / "summary.json").exists()]
    return [Run(n, read_summary(folder / n), read_rows(folder / n)) for n in begun]
