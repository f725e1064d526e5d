"""`fnopt schedule`: draws one schedule, and prints its value at both ends and between them."""

from __future__ import annotations

import argparse
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import fnopt
from fnopt.landscape import style
from fnopt.schedules.schedule import Schedule, factories
from fnopt.training.choices import nearest
from fnopt.training.errors import CommandError
from fnopt.training.expressions import read_arguments, read_value

SCHEDULES: Mapping[str, Callable[..., Schedule]] = factories(fnopt)
"""fnopt's schedules by their names."""

FEW, MANY = 40, 4000  # counts: with so few each gets a dot; so many are drawn at most


class Span(NamedTuple):
    """How much of a schedule is shown.

    Attributes:
      steps: the last count of the table.
      shown: the last count of the picture: beyond `steps` where the value stays from there on.
    """

    steps: int
    shown: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to a parser."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _epilog()
    add = parser.add_argument
    add("name", metavar="NAME", help="a schedule, or a whole call in quotes, as it prints")
    add("arguments", metavar="ARGUMENT=VALUE", nargs="*", default=[], help="of the schedule")
    add("--steps", type=int, metavar="N", help="how many to show (up to where the value stays)")
    add("--out", type=Path, default=Path("schedule.png"), help="the picture (%(default)s)")


def _epilog() -> str:
    lines = ["schedules; the ending _schedule may be left out:"]
    for name, factory in SCHEDULES.items():
        words = (
            p.name if p.default is p.empty else f"[{p.name}]"
            for p in inspect.signature(factory).parameters.values()
        )
        lines += textwrap.wrap(
            f"{name}: {' '.join(words)}", 78, initial_indent="  ", subsequent_indent="      "
        )
    lines += [
        "",
        "a value is a number, a word, a list as 10,20, pairs as 10:0.1,20:0.5, or a schedule",
        "",
        "examples:",
        "  fnopt schedule wsd peak_value=1e-3 warmup_steps=100 stable_steps=700 decay_steps=200",
        "  fnopt schedule multistep init_value=0.1 milestones=30,60,90 --steps 120",
        "  fnopt schedule fraction total_steps=1000 fractions_and_values=0:0,0.05:1e-3,1:0",
        "  fnopt schedule join boundaries=50, \\",
        "    schedules='[linear_schedule(0, 1, 50), cosine_decay_schedule(1, 500)]'",
    ]
    return "\n".join(lines)


def run(args: argparse.Namespace) -> int:
    """Runs the command: prints a table, writes the picture.

    Raises:
      CommandError: bad input, or a picture that cannot be drawn or written.
    """
    if args.steps is not None and args.steps < 1:
        raise CommandError(f"--steps must be at least 1, got {args.steps}")
    if args.out.suffix.lower() != ".png":
        raise CommandError(f"--out must name a .png file, got {args.out}")
    schedule = make(args.name, args.arguments)
    span = Span(args.steps, args.steps) if args.steps else usual_span(schedule)
    with style.slide() as Figure:
        figure = draw(Figure, schedule, span)
        print("\n".join([repr(schedule), "", *table(schedule, span.steps)]))
        print(f"wrote {style.save(figure, args.out)}")
    return 0


def make(name: str, words: Sequence[str]) -> Schedule:
    """The schedule of that name with the arguments given as `name=value` words.

    Args:
      name: a name of `SCHEDULES`, with or without `_schedule`; or a call, as
        `cosine_decay_schedule(1e-3, 100)`, and no words.
      words: its arguments.

    Raises:
      CommandError: the schedule or an argument is unknown, missing or out of range.
    """
    if "(" in name and not words:
        made = read_value(name, SCHEDULES)
        if not isinstance(made, Schedule):
            raise CommandError(f"{name!r} is not a schedule")
        return made
    short = {re.sub("_schedules?$", "", known): known for known in SCHEDULES}
    known = short.get(name, name)
    if known not in SCHEDULES:
        begun = [known for known in short if known.startswith(name)]
        pool = begun or (SCHEDULES if "_" in name else short)
        raise CommandError(f"unknown schedule {name!r}; {nearest(name, pool)}")
    factory = SCHEDULES[known]
    read = lambda text: read_value(text, SCHEDULES)
    arguments = read_arguments(known, inspect.signature(factory), words, read)
    try:
        return factory(**arguments)
    except (TypeError, ValueError) as error:
        raise CommandError(str(error)) from None


def usual_span(schedule: Schedule) -> Span:
    """Up to where the value stays; a few times its own lengths where it never does."""
    counts = np.unique(np.geomspace(1, 2**30, 3000).astype(int))
    values = at(schedule, counts)
    changing = np.flatnonzero(values != values[-1])
    if not len(changing):
        return Span(100, 100)
    near = np.flatnonzero(np.abs(values - values[-1]) > 0.01 * np.ptp(values))
    vanishes = counts[near[-1]] < counts[changing[-1]] / 2  # as an exponential, or in jumps
    if vanishes or changing[-1] >= len(counts) - 2:
        steps = 5 * int(max(lengths(dict(schedule.arguments.arguments)), default=20))
        return Span(steps, steps)
    low, high = counts[changing[-1]], counts[changing[-1] + 1]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if schedule(int(middle)) == values[-1] else (middle, high)
    return Span(int(high), int(high) + max(1, int(high) // 12))


def lengths(arguments: Mapping[str, Any]) -> Iterator[float]:
    """The numbers among a schedule's arguments that are steps, those of inner schedules too."""
    for name, value in arguments.items():
        if re.search("steps|size|timescale|boundaries|milestones", name):
            yield from (float(x) for x in np.ravel(list(value) if np.ndim(value) else value or 0))
        elif name == "schedules":
            for inner in value:
                yield from lengths(dict(inner.arguments.arguments))


def at(schedule: Schedule, counts: np.ndarray) -> np.ndarray:
    """The values at counts, compiled."""
    return np.asarray(jax.jit(schedule)(counts))


def table(schedule: Schedule, steps: int) -> list[str]:
    """Lines with the value at both ends and between; where it is highest and lowest is said."""
    every = np.unique(np.linspace(0, steps, min(steps, MANY) + 1).astype(int))
    values = at(schedule, every)
    high, low = every[values.argmax()], every[values.argmin()]
    chosen = {*np.linspace(0, steps, min(steps, 10) + 1).astype(int).tolist(), int(high), int(low)}
    counts = np.array(sorted(chosen))
    lines = [f"{'count':>12}  value"]
    for count, value in zip(counts, at(schedule, counts)):
        notes = {
            "first": count == 0,
            "last": count == steps,
            "highest": count == high and values.max() > max(values[0], values[-1]),
            "lowest": count == low and values.min() < min(values[0], values[-1]),
        }
        said = ", ".join(note for note, here in notes.items() if here)
        lines.append(f"{count:>12}  {value:<12.6g}  {said}".rstrip())
    return lines


def draw(Figure: Any, schedule: Schedule, span: Span) -> Any:
    """The figure: the value over the count, with both ends and the highest value marked."""
    counts = np.unique(np.linspace(0, span.shown, min(span.shown, MANY) + 1).astype(int))
    values = at(schedule, counts)
    color = style.COLORS["sgd"]
    figure = Figure(figsize=(11, 5.4))
    style.headline(figure, schedule.name)
    axes = figure.subplots()
    axes.set_title(textwrap.fill(repr(schedule), 96), fontsize=12, color="#555555")
    axes.plot(counts, values, color=color, marker="o" if span.shown <= FEW else None, ms=5)
    for count in sorted({0, span.steps, int(counts[values.argmax()])}):
        mark(axes, schedule, count, span, color)
    axes.set(xlabel="count: the updates made before", ylabel="value")
    axes.margins(x=0.02, y=0.15)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}" if x == int(x) else "")
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
    return figure


def mark(axes: Any, schedule: Schedule, count: int, span: Span, color: str) -> None:
    """A ring at a count and its value beside it, on the side where the curve is not."""
    right_half = count > 0.85 * span.shown
    beside = count - span.shown // 20 if right_half else count + span.shown // 20
    value, other = float(schedule(count)), float(schedule(max(beside, 0)))
    below = other > value
    axes.plot(count, value, "o", ms=10, mfc="white", mec=color, mew=2.4, zorder=5)
    axes.annotate(
        f"{value:.4g} at {count:,}",
        (count, value),
        xytext=(-10 if right_half else 10, -8 if below else 8),
        textcoords="offset points",
        ha="right" if right_half else "left",
        va="top" if below else "bottom",
        bbox={"color": "white", "alpha": 0.8, "pad": 1, "lw": 0},
    )
