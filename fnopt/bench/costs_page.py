"""The page of costs: its Markdown from rows, and the rows from its Markdown."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from fnopt.bench import costs, trees
from fnopt.bench.costs import Row
from fnopt.bench.counts import Count

HEAD = """# What a step costs

Made by `{command}`: {machine}.

Bytes are those that one compiled `update` and `apply_updates` read and write per float32 parameter,
as the compiler counts them, with params and state donated; temporary memory and state are bytes per
parameter too. The gradient, the params and the new params alone are 12. The floor is one loop for
each output that reads what it needs, which is the best that the CPU compiler does by default, on
large leaves: on small ones scalars and partial sums weigh something. These
counts repeat exactly, and a test compares some with this page.

Times are processor seconds of all threads, without the persistent compilation cache: the median of
so many compilations, and of their ratios to optax's, with which they alternate in one process. The
machine is shared and noisy: the ratio of a single pair says little below a fifth.

Every optimizer has its defaults; where optax's are another rule, the two are not the same program.
Sophia's step has an estimate of the Hessian in it, DP-SGD's one example. The compiler counts the
dearer side of a branch: GaLore's is the renewal of its subspace, in one step of 200, of which a
decomposition inside LAPACK is not counted. Schedule-free methods keep the average that optax
recovers from the params, where rounding or b1=0 loses it: four bytes more, by intention. On one
leaf compile times are small, and the count and rate that our states have are a part of them.

`--tree`, `--only` and `--rounds` choose; with `--out` the rows that are not measured stay.
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
        what, make = costs.TREES[name]
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
        lines.append([name, str(costs.FLOOR.get(name, "")), *shown, str(row.pairs)])
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
            (name, f"{row.ours.bytes:.2f} of {costs.FLOOR[name]}")
            for name, row in rows.items()
            if row.ours.bytes > costs.FLOOR.get(name, float("inf")) + costs.SLACK
        )
    ]
    for field, what in (("bytes", "bytes"), ("temporary", "temporary memory"), ("state", "state")):
        pairs = [
            (name, f"{a:.2f} of {b:.2f}")
            for name, row in compared.items()
            if (a := getattr(row.ours, field)) > (b := getattr(row.theirs, field)) + costs.SLACK
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
