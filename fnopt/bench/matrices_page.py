"""The page of `fnopt bench matrices`: its Markdown from results and back, and its picture."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Any

import jax

from fnopt.bench import matrices
from fnopt.bench.matrices import BASE, Results, Row
from fnopt.landscape import style

HEAD = """# Matrix optimizers on a language model

What optimizers of whole matrices are worth beside AdamW, each at its own best rate.

Made by `{command}`: jax {jax}, Python {python}, {platform}.

![The smoothed training loss of every optimizer, by step and by time]({picture})

The task is a transformer of {layers} layers of {width} on the characters of Python's standard
library, with {rows} pieces of {context} characters a step. Every optimizer makes the same steps
from the same starts on the same batches: a rate that rises for {warmup:.0%} of the steps, then
falls as half a cosine to zero, with weight decay {decay:g}. `schedule_free_adamw` has the same rise
and no fall. The rates are looked for by factors of {factor:g}, on the first seed, until both
neighbours of the best one end higher on what is held out; at the best rate there are runs with the
other seeds.

`muon` and those below it take the hidden matrices: queries, keys, values, outputs and both halves
of the feed-forward layers. Embeddings, positions, the head, norms and biases are stepped by AdamW,
as `{base}` is here, at the rate that is best for `{base}` on everything: it is not tuned again for
each. The decay b2 is {b2:g} in these two, the best of 0.95, 0.99 and 0.999 for `{base}`, and so are
Shampoo's two. All that is not said here is at its default.

The held-out loss is that at the end, mean ± standard deviation over the seeds, for
`schedule_free_adamw` at its averaged params. The training loss is smoothed: the mean of the last
{window:.0%} of the steps. "Steps" is the part of the steps after which it is as low as that of
`{base}` at the end, while the rate is still high: a shorter schedule would need fewer. "A step" is
its processor time over that of a step of `{base}`: whole runs of the two, in {parts} parts that
take turns in one process, with the gradients' time in both. "Time" is the two multiplied. The
gradients of so small a network take little time: in large ones a step costs less beside theirs.

`--only` chooses; with `--out` what is not measured stays, and so does the last section, which is
written by hand. All takes about 25 minutes of one core.
"""

NOTES = "## What was found"
TABLE = ("", "rate", "held-out loss", "training loss", "steps", "a step", "time")
NEVER = "not reached"


def page(results: Results, command: str, picture: str, notes: str = "") -> str:
    """The Markdown page.

    Args:
      results: with a row of the base.
      command: what made it.
      picture: the file beside the page.
      notes: the last section.
    """
    sizes = matrices.SIZES
    head = HEAD.format(
        command=command, jax=jax.__version__, python=sys.version.split()[0],
        platform=jax.devices()[0].platform, picture=picture, base=BASE, b2=matrices.B2,
        layers=sizes.layers, width=sizes.width, context=sizes.context, rows=matrices.ROWS,
        warmup=matrices.WARMUP, decay=matrices.WEIGHT_DECAY, factor=matrices.FACTOR,
        parts=matrices.PARTS, window=matrices.WINDOW,
    )  # fmt: skip
    lines = [
        head,
        "## What each reached\n",
        f"Steps: {results.steps}. Seeds: {results.seeds}. A step of `{BASE}` takes "
        f"{results.milliseconds:.1f} ms.\n",
        _table(TABLE, [_row(results, name) for name in results.rows]),
        "\n## The rates\n",
        "Each rate's held-out loss at the end, with the first seed.\n",
        _table(
            ("", "rates"),
            [
                (name, ", ".join(f"{rate:g}: {loss:.4f}" for rate, loss in row.rates.items()))
                for name, row in results.rows.items()
            ],
        ),
        "\n## The smoothed training loss by step\n",
        _table(("step", *results.rows), _curves(results)),
    ]
    return "\n".join(lines) + "\n" + (f"\n{notes.rstrip()}\n" if notes else "")


def _row(results: Results, name: str) -> tuple[str, ...]:
    row, steps, time = results.rows[name], results.needed(name), results.time_needed(name)
    return (
        name,
        f"{row.rate:g}",
        f"{row.loss:.4f} ± {row.deviation:.4f}",
        f"{row.training:.4f}",
        NEVER if math.isinf(steps) else f"{steps:.2f}",
        f"{row.cost:.2f}",
        NEVER if math.isinf(time) else f"{time:.2f}",
    )


def _curves(results: Results) -> list[tuple[str, ...]]:
    columns = [[f"{loss:.4f}" for loss in row.curve] for row in results.rows.values()]
    points = len(columns[0])
    return [
        (f"{results.steps * (i + 1) / points:g}", *cells) for i, cells in enumerate(zip(*columns))
    ]


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def results_on(text: str, *, anywhere: bool = False) -> Results | None:
    """The results as a page has them, or None.

    Args:
      text: of the page.
      anywhere: take those of another Python too, whose sources are another text.
    """
    python = re.search(r"Python ([^,]+),", text)
    counts = re.search(r"Steps: (\d+)\. Seeds: (\d+)\. A step of \S+ takes ([\d.]+) ms", text)
    if not python or not counts:
        return None
    if not anywhere and python[1] != sys.version.split()[0]:
        return None
    reached, rates, curves = (_cells(text, f"## {title}") for title in _TITLES)
    columns = dict(zip(curves[0][1:], zip(*[line[1:] for line in curves[1:]])))
    rows = {}
    for (name, _, loss, _, _, cost, _), (_, tried) in zip(reached[1:], rates[1:]):
        pairs = (map(float, pair.split(": ")) for pair in tried.split(", "))
        mean, deviation = map(float, loss.split(" ± "))
        curve = tuple(map(float, columns[name]))
        rows[name] = Row({rate: at for rate, at in pairs}, mean, deviation, float(cost), curve)
    return Results(int(counts[1]), int(counts[2]), float(counts[3]), rows)


_TITLES = ("What each reached", "The rates", "The smoothed training loss by step")


def _cells(text: str, title: str) -> list[list[str]]:
    """The first table below a heading, without the line below its head."""
    below = text.partition(f"\n{title}\n")[2].partition("\n## ")[0]
    lines = [line for line in below.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return [cells[0], *cells[2:]]


def notes_on(text: str) -> str:
    """The section that is written by hand."""
    _, found, rest = text.partition(NOTES)
    return found + rest


def draw(results: Results, path: Path) -> None:
    """The picture: the curves by step, and by time with a step of the base as the unit.

    Raises:
      CommandError: matplotlib is not installed, or the place cannot be written.
    """
    colors = {**style.colors(name for name in results.rows if name != BASE), BASE: "#111111"}
    aim = results.rows[BASE].training
    with style.slide() as Figure:
        figure = Figure(figsize=(14, 6.4))
        left, right = figure.subplots(1, 2, sharey=True)
        for name, row in results.rows.items():
            steps = [results.steps * (i + 1) / len(row.curve) for i in range(len(row.curve))]
            look: Any = {"color": colors[name], "label": name}
            left.plot(steps, row.curve, **look)
            right.plot([step * row.cost for step in steps], row.curve, **look)
        for axes in (left, right):
            axes.axhline(aim, color="#888888", lw=1, zorder=1)
        lowest = min(min(row.curve) for row in results.rows.values())
        top = results.rows[BASE].curve[len(results.rows[BASE].curve) // 8]
        left.set_ylim(lowest - 0.02, top)
        left.set_ylabel("smoothed training loss")
        left.set_xlabel("step")
        right.set_xlabel(f"processor time, in steps of {BASE}")
        right.legend()
        style.headline(figure, f"Loss by step and by time; the line is where {BASE} ends")
        style.save(figure, path)
