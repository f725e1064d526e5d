"""The `fnopt` command: finds the subcommand, and turns its errors into one line."""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from fnopt.training.errors import CommandError

COMMANDS = {
    "train": ("fnopt.training.command", "train a network on the digits or on a file"),
    "sweep": ("fnopt.tuning.sweep.command", "train every setting of a grid at once, and rank them"),
    "lr-find": ("fnopt.tuning.lr_find.command", "find the learning rates at which a loss falls"),
    "report": ("fnopt.report.command", "write a run as one page for the browser"),
    "landscape": ("fnopt.landscape.command", "draw the paths of optimizers over a surface"),
    "schedule": ("fnopt.schedules.command", "draw a schedule and print its values"),
    "check": ("fnopt.testing.command", "say which laws an optimizer keeps"),
    "memory": ("fnopt.memory.command", "say what a training step needs in memory"),
    "bench": ("fnopt.bench.command", "measure what steps cost, and what low precision loses"),
}
"""Name -> module with `add_arguments(parser)` and `run(args) -> int`, and a line of help."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, with exit status 2."""

    def error(self, message: str) -> NoReturn:
        """Says what was wrong and where to read more."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `fnopt ...` and returns the exit status: 0, 1, 2 for bad input, 130 after Ctrl-C.

    Args:
      argv: the words after `fnopt`; the process's own if None.
    """
    try:
        return _main(list(sys.argv[1:] if argv is None else argv))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)


def _main(argv: list[str]) -> int:
    if not argv or argv[0].startswith("-"):
        _top().parse_args(argv)
        _top().print_help()
        return 0 if not argv else 2
    name = argv[0]
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(COMMANDS)}"
        print(f"fnopt: unknown command {name!r}; {hint}", file=sys.stderr)
        return 2
    path, help_line = COMMANDS[name]
    module = importlib.import_module(path)
    summary = help_line[0].upper() + help_line[1:] + "."
    parser = Parser(prog=f"fnopt {name}", description=summary, allow_abbrev=False)
    module.add_arguments(parser)
    args = parser.parse_intermixed_args(argv[1:])
    try:
        return module.run(args)
    except CommandError as error:
        print(f"fnopt {name}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nfnopt {name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe, as `head`, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _top() -> argparse.ArgumentParser:
    lines = [f"  {name:12} {help_line}" for name, (_, help_line) in COMMANDS.items()]
    parser = Parser(
        prog="fnopt",
        usage="fnopt COMMAND [options]",
        description="Optimizers for JAX.",
        epilog="\n".join(["commands:", *lines, "", "fnopt COMMAND --help says more."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = importlib.import_module("fnopt").__version__
    parser.add_argument("--version", action="version", version=f"fnopt {version}")
    return parser
