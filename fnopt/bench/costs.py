"""What a step of every optimizer costs, beside optax: `fnopt bench costs`.

Bytes, temporary memory and state are the compiler's counts, which repeat exactly. Times are
processor seconds of all threads, and compared in pairs that alternate in one process.
"""

from __future__ import annotations

import contextlib
import functools
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax

import fnopt
from fnopt.bench import trees
from fnopt.bench.counts import Count, count, needs
from fnopt.training import choices

TREES: dict[str, tuple[str, Callable[[], Any]]] = {
    "transformer": ("a transformer's 12 hidden layers of 256", trees.transformer),
    "wide": ("one wide leaf", trees.wide_leaf),
    "many": ("many small leaves", trees.many_leaves),
}
"""Name -> what it is, and a function that makes it."""

FLOOR = {
    "sgd": 12, "momentum": 24, "sgd with momentum": 24, "sgd with nesterov": 28, "adagrad": 28,
    "rmsprop": 28, "adam": 40, "adamw": 40, "radam": 40, "yogi": 40, "nadam": 44, "lion": 28,
    "clip + adamw": 44, "adabelief": 44, "adan": 72, "lamb": 56, "lars": 36, "adafactor": 32,
    "ademamix": 56, "adopt": 40, "prodigy": 68, "schedule_free_adamw": 48,
    "accumulate 4 × adamw": 60,
}  # fmt: skip
"""Bytes per parameter of one loop per output, each reading what it needs (float32)."""

MOST_USED = (
    "sgd", "sgd with momentum", "sgd with nesterov", "adagrad", "rmsprop", "adam", "adamw",
    "clip + adamw", "lion", "adafactor",
)  # fmt: skip
"""The configurations whose counts a test compares with the committed table."""

GIVEN: dict[str, dict[str, Any]] = {
    "dpsgd": {"l2_norm_clip": 1.0, "noise_multiplier": 1.0, "seed": 0},
    "noisy_sgd": {"key": 0},
}
"""Arguments without which an optimizer cannot be made, beside its rate."""

RATE = 0.01
SLACK = 0.1  # bytes per parameter: scalars, and sums over the leaves


class Configuration(NamedTuple):
    """An optimizer with its arguments.

    Attributes:
      ours: makes it.
      theirs: makes optax's; None where optax has none or is not installed.
    """

    ours: Callable[[], Any]
    theirs: Callable[[], Any] | None


class Row(NamedTuple):
    """What a configuration costs on a tree.

    Attributes:
      ours: the medians of its counts.
      theirs: those of optax's; None where there is none.
      lowering: the time to trace and lower it over optax's: the median of the pairs' ratios.
      compiling: the time to compile it over optax's, likewise.
      pairs: how many times it was compiled.
    """

    ours: Count
    theirs: Count | None = None
    lowering: float | None = None
    compiling: float | None = None
    pairs: int = 1


def configurations() -> dict[str, Configuration]:
    """Every whole optimizer of the package with its defaults, and its other rules."""
    peer = _peer()
    found = {}
    for name, factory in choices.optimizers().items():
        arguments = {str(choices.rate_name(factory)): RATE, **GIVEN.get(name, {})}
        theirs = peer(name)
        found[name] = Configuration(
            functools.partial(factory, **arguments),
            theirs and functools.partial(theirs, **arguments),
        )

    def variant(name: str, factory: str, **arguments: Any) -> None:
        ours, theirs = getattr(fnopt, factory), peer(factory)
        found[name] = Configuration(
            lambda: ours(RATE, **arguments), theirs and (lambda: theirs(RATE, **arguments))
        )

    variant("sgd with momentum", "sgd", momentum=0.9)
    variant("sgd with nesterov", "sgd", momentum=0.9, nesterov=True)
    variant("rmsprop centered", "rmsprop", centered=True)
    variant("rmsprop with momentum", "rmsprop", momentum=0.9)
    variant("adam with nesterov", "adam", nesterov=True)
    with contextlib.suppress(ImportError):
        import optax

        found["momentum"] = found["momentum"]._replace(
            theirs=lambda: optax.chain(optax.scale_by_learning_rate(RATE), optax.trace(0.9))
        )
    found["clip + adamw"] = Configuration(
        lambda: fnopt.chain(fnopt.clip_by_global_norm(1.0), fnopt.adamw(RATE)),
        peer("chain") and (lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(RATE))),
    )
    found["accumulate 4 × adamw"] = Configuration(
        lambda: fnopt.accumulate(fnopt.adamw(RATE), 4),
        peer("MultiSteps") and (lambda: optax.MultiSteps(optax.adamw(RATE), 4)),
    )
    return found


def _peer() -> Callable[[str], Any]:
    """A name of optax or optax.contrib; None where there is none."""
    try:
        import optax
        import optax.contrib
    except ImportError:
        return lambda name: None
    return lambda name: getattr(optax.contrib, name, None) or getattr(optax, name, None)


@contextlib.contextmanager
def without_cache() -> Iterator[None]:
    """Compiles everything anew inside: the persistent compilation cache is off."""
    from jax.experimental.compilation_cache.compilation_cache import reset_cache

    option = "jax_enable_compilation_cache"
    before = getattr(jax.config, option)
    jax.config.update(option, False)
    reset_cache()  # whether it is on is asked once, before the first compilation
    try:
        yield
    finally:
        jax.config.update(option, before)
        reset_cache()


def measure(configuration: Configuration, tree: Any, rounds: int = 1) -> Row:
    """The row of a configuration: `rounds` compilations of each of the two, in turn.

    Args:
      configuration: the two optimizers.
      tree: the params' shapes.
      rounds: how many pairs.
    """
    needed = needs(configuration.ours(), tree)
    extras = {k: v for k, v in needed["extras"].items() if k != "key"}  # optax's state has it

    def ours() -> Count:
        return count(configuration.ours(), tree, **needed)

    def theirs(make: Callable[[], Any]) -> Count:
        import optax

        return count(make(), tree, optax.apply_updates, **needed | {"extras": extras})

    runs = [ours]
    if configuration.theirs is not None:
        runs.append(functools.partial(theirs, configuration.theirs))
    found: list[list[Count]] = [[] for _ in runs]
    with without_cache():
        for i in range(rounds):
            for j in (range(len(runs)), reversed(range(len(runs))))[i % 2]:
                found[j].append(runs[j]())
    medians = [Count(*map(statistics.median, zip(*counts))) for counts in found]
    if len(found) == 1:
        return Row(medians[0], pairs=rounds)
    pairs = list(zip(*found))
    return Row(
        medians[0],
        medians[1],
        statistics.median((a.trace + a.lower) / (b.trace + b.lower) for a, b in pairs),
        statistics.median(a.compile / b.compile for a, b in pairs),
        rounds,
    )


# The page


HEAD = """# What a step costs

Made by `{command}`: {machine}.

Bytes are those that one compiled `update` and `apply_updates` read and write per float32 parameter,
as the compiler counts them, with params and state donated; temporary memory and state are bytes per
parameter too. The gradient, the params and the new params alone are 12. The floor is one loop for
each output that reads what it needs, which is the best that the CPU compiler does by default. These
counts repeat exactly, and a test compares some with this page.

Times are processor seconds of all threads, without the persistent compilation cache: the median of
so many compilations, and of their ratios to optax's, with which they alternate in one process. The
machine is shared and noisy: the ratio of a single pair says little below a fifth.

Sophia's step has an estimate of the Hessian in it, DP-SGD's one example. Every optimizer has its
defaults; where optax's defaults are another rule, the two are not the same program.
"""

HEADS = (
    "", "floor", "bytes", "optax", "temporary", "optax", "state", "optax", "compile s", "of optax",
    "trace and lower s", "of optax", "pairs",
)  # fmt: skip

Tables = Mapping[str, Mapping[str, Row]]
"""For each tree the rows by their configurations' names."""


def page(tables: Tables, command: str) -> str:
    """The Markdown page.

    Args:
      tables: the rows.
      command: what made it.
    """
    lines = [HEAD.format(command=command, machine=machine())]
    for name, rows in tables.items():
        what, make = TREES[name]
        tree = make()
        size = f"{trees.size(tree):,} parameters; leaves: {len(jax.tree.leaves(tree))}."
        lines += [f"## {name}: {what}\n", f"{size}\n", table(rows), ""]
        lines += [*(f"- {line}" for line in above(rows)), ""]
    return "\n".join(lines).rstrip() + "\n"


def machine() -> str:
    """The versions and the device."""
    versions = [f"jax {jax.__version__}"]
    with contextlib.suppress(ImportError):
        import optax

        versions.append(f"optax {optax.__version__}")
    return ", ".join([*versions, jax.devices()[0].platform])


def table(rows: Mapping[str, Row]) -> str:
    """The Markdown table of a tree's rows."""
    lines = [HEADS, ["---"] * len(HEADS)]
    for name, row in rows.items():
        ours, theirs = row.ours, row.theirs or (None,) * len(row.ours)
        numbers = [n for pair in zip(ours[:3], theirs[:3]) for n in pair]
        numbers += [ours.compile, row.compiling, ours.trace + ours.lower, row.lowering]
        shown = ["" if n is None else f"{n:.2f}" for n in numbers]
        lines.append([name, str(FLOOR.get(name, "")), *shown, str(row.pairs)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def rows_on(text: str) -> dict[str, dict[str, Row]]:
    """The rows as a page has them: by tree and configuration; optax's times are not there."""
    found: dict[str, dict[str, Row]] = {}
    for section in text.split("\n## ")[1:]:
        rows = found[section.partition(":")[0]] = {}
        lines = [line for line in section.splitlines() if line.startswith("|")]
        for line in lines[2:]:
            name, _, *cells, pairs = (cell.strip() for cell in line.split("|")[1:-1])
            n = [float(cell) if cell else None for cell in cells]
            ours: Any = (*n[0:6:2], 0.0, n[8], n[6])
            theirs: Any = (*n[1:6:2], 0.0, 0.0, 0.0)
            peer = None if n[1] is None else Count(*theirs)
            rows[name] = Row(Count(*ours), peer, n[9], n[7], int(pairs))
    return found


def above(rows: Mapping[str, Row]) -> list[str]:
    """Where the numbers are above the floor, or above optax's, as sentences."""

    def listed(pairs: Iterable[tuple[str, str]]) -> str:
        return ", ".join(f"{name} ({number})" for name, number in pairs) or "none"

    compared = {name: row for name, row in rows.items() if row.theirs is not None}
    lines = [
        "Above the floor: "
        + listed(
            (name, f"{row.ours.bytes:.2f} of {FLOOR[name]}")
            for name, row in rows.items()
            if row.ours.bytes > FLOOR.get(name, float("inf")) + SLACK
        )
    ]
    for field, what in (("bytes", "bytes"), ("temporary", "temporary memory"), ("state", "state")):
        pairs = [
            (name, f"{a:.2f} of {b:.2f}")
            for name, row in compared.items()
            if (a := getattr(row.ours, field)) > (b := getattr(row.theirs, field)) + SLACK
        ]
        lines.append(f"Above optax in {what}: {listed(pairs)}")
    slower = sorted(compared.items(), key=lambda item: -(item[1].compiling or 0))
    pairs = [(n, f"{r.compiling:.2f}") for n, r in slower if (r.compiling or 0) > 1]
    lines.append(f"Above optax in time to compile: {listed(pairs)}")
    ratios = [row.compiling for row in compared.values() if row.compiling is not None]
    if ratios:
        middle = statistics.median(ratios)
        lines.append(f"The median of the {len(ratios)} ratios of compile times: {middle:.2f}")
    return [f"{line}." for line in lines]
