"""`fnopt landscape`: what the optimizers do on surfaces that one can see."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fnopt.landscape import style
from fnopt.landscape.pictures import Paths, animate, draw
from fnopt.landscape.surfaces import SURFACES, Surface
from fnopt.landscape.trajectories import RATES, trajectories
from fnopt.training.choices import assignments, build, find_optimizer, nearest, rate_name
from fnopt.training.errors import CommandError

DEFAULT_OPTIMIZERS = "sgd,momentum,adagrad,rmsprop,adam"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to a parser."""
    add = parser.add_argument
    add("--optimizers", default=DEFAULT_OPTIMIZERS, metavar="NAMES", help="(%(default)s)")
    add("--surfaces", default=",".join(SURFACES), metavar="NAMES", help="(%(default)s)")
    add("--steps", type=int, default=200, help="of each path (%(default)s)")
    add(
        "--set",
        action="append",
        default=[],
        metavar="[OPTIMIZER.]NAME=VALUE",
        help="a hyperparameter, as adam.learning_rate=0.1; a learning rate that is not set is the "
        f"best of a grid from {RATES[0]:g} to {RATES[-1]:g}",
    )
    add("--out", type=Path, default=Path("landscape.png"), help="the picture (%(default)s)")
    add("--gif", type=Path, metavar="FILE", help="write an animated GIF too")


def run(args: argparse.Namespace) -> int:
    """Runs the command: prints a table, writes the pictures.

    Raises:
      CommandError: bad input, or a picture that cannot be drawn or written.
    """
    names = listed("optimizer", args.optimizers)
    chosen = {name: find_optimizer(name) for name in names}
    surfaces = {name: find_surface(name) for name in listed("surface", args.surfaces)}
    if args.steps < 1:
        raise CommandError(f"--steps must be at least 1, got {args.steps}")
    for option, file, suffix in (("--out", args.out, ".png"), ("--gif", args.gif, ".gif")):
        if file is not None and file.suffix.lower() != suffix:
            raise CommandError(f"{option} must name a {suffix} file, got {file}")
    arguments = {name: overrides(name, names, args.set, args.steps) for name in names}
    with style.slide():
        pass  # a missing matplotlib is said before the work

    paths = {
        name: trajectories(factory, arguments[name], surfaces, args.steps)
        for name, factory in chosen.items()
    }
    print("\n".join(table(surfaces, paths)))
    print(f"wrote {draw(surfaces, paths, args.steps, args.out)}")
    if args.gif is not None:
        print(f"wrote {animate(surfaces, paths, args.steps, args.gif)}")
    return 0


def listed(kind: str, text: str) -> list[str]:
    """The names in a comma-separated list, each once."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise CommandError(f"--{kind}s names none: expected names with commas between them")
    return names


def find_surface(name: str) -> Surface:
    """The surface of that name.

    Raises:
      CommandError: there is none; it offers the nearest name.
    """
    if name not in SURFACES:
        raise CommandError(f"unknown surface {name!r}; {nearest(name, SURFACES)}")
    return SURFACES[name]


def overrides(
    name: str, names: Iterable[str], settings: Iterable[str], steps: int
) -> dict[str, Any]:
    """The arguments of an optimizer's factory; the learning rate only if it is set."""
    own = assignments(settings, name, names)
    built = build(name, [f"{key}={text}" for key, text in own.items()], steps)
    arguments = dict(built.arguments.arguments)
    rate = rate_name(find_optimizer(name))
    return {k: v for k, v in arguments.items() if k != rate or k in own}


def table(surfaces: Mapping[str, Surface], paths: Paths) -> list[str]:
    """A line a path: its learning rate, when it arrived, where it ended."""
    lines = [
        f"{'surface':<12}{'optimizer':<18}{'learning rate':>14}{'arrives':>9}{'last value':>14}"
    ]
    for key, surface in surfaces.items():
        for name, path in ((name, found[key]) for name, found in paths.items()):
            arrival = path.arrival(surface.arrived)
            when = "diverges" if path.diverged else "never" if arrival is None else str(arrival)
            rate = f"{path.learning_rate:.3g}" if np.isfinite(path.learning_rate) else "schedule"
            lines.append(
                f"{key:<12}{style.label(name):<18}{rate:>14}{when:>9}{path.values[-1]:>14.3g}"
            )
    return lines
