"""The page of `fnopt bench precision`: its Markdown from results and back, and its picture."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from fnopt.bench.precision import BASE, RATES, TASKS, TOLERANCE, Row, Section, outside
from fnopt.landscape import style

HEAD = """# Precision on data

What training in low precision loses beside AdamW in float32, and what keeps it.

Made by `{command}`: jax {jax}, Python {python}, {platform}.

![Final losses of every setting, as ratios to float32 AdamW]({picture})

`f32` is `adamw` with params, gradients and state in float32. `bf16` has params and gradients in
bfloat16 (and the networks' arithmetic, but for the perceptron's), and the optimizer's state in
float32: `bf16` alone rounds the new params to the nearest, `bf16 stochastic` at random, by
`apply_updates(..., rounding="stochastic", key=...)`; `kahan`, `split_master` and `master_weights`
are the wrappers of these names. The `f32` settings after them are the presets of these names, with
the state stored in bfloat16, 8 and 4 bits; `bf16 master_weights 8bit` is
`master_weights(adamw_8bit(...))`.

Every setting makes the same steps from the same start on the same batches: a tenth of the steps to
warm up, then half a cosine to zero, with weight decay 0.01. The highest rate, one of {rates},
is that at which `f32` ends lowest. Means ± standard deviations are over the seeds: of the loss on
what is held out, after the last step, and of its ratio to that of `f32` with the same seed. The
training loss is the mean of the last tenth of the batches. Bytes are per parameter; the presets do
not encode leaves of fewer than 4,096 entries.

A setting is within if its mean is at most one standard deviation of `f32`, or {tolerance:.0%},
above the mean of `f32`. Where the seeds differ much, as on the digits, that says little, and the
training loss more. `split_master` and `master_weights` step the same float32 params: what lies
between their losses is what a difference in the last bit grows to, and no merit of either.

`--tasks` and `--only` choose; with `--out` what is not measured stays. All takes about ten minutes
of one core.
"""

HEADS = (
    "", "held-out loss", "of f32", "training loss", "of f32", "params", "state", "within",
)  # fmt: skip


def page(sections: Mapping[str, Section], command: str, picture: str) -> str:
    """The Markdown page.

    Args:
      sections: by the tasks' names; each has a row of the base.
      command: what made it.
      picture: the file beside the page.
    """
    head = HEAD.format(
        command=command, jax=jax.__version__, python=sys.version.split()[0],
        platform=jax.devices()[0].platform, picture=picture, tolerance=TOLERANCE,
        rates=", ".join(f"{rate:g}" for rate in RATES),
    )  # fmt: skip
    lines = [head]
    for name, section in sections.items():
        losses = ", ".join(f"{rate:g}: {loss:.4f}" for rate, loss in section.rates.items())
        missed = [f"{n} ({section.rows[n].ratio:.3f})" for n in outside(section)]
        lines += [
            f"## {name}: {TASKS[name][0]}\n",
            f"Steps: {section.steps}. Seeds: {section.seeds}. The rates and what `f32` reached:",
            f"{losses}.\n",
            table(section),
            f"\nNot within: {', '.join(missed) or 'none'}.\n",
        ]
    return "\n".join(lines).rstrip() + "\n"


def table(section: Section) -> str:
    """The Markdown table of a task's rows."""
    lines: list[Any] = [HEADS, ["---"] * len(HEADS)]
    missed = outside(section)
    for name, r in section.rows.items():
        lines.append(
            (
                name,
                f"{r.loss:.4f} ± {r.deviation:.4f}",
                f"{r.ratio:.4f} ± {r.ratio_deviation:.4f}",
                f"{r.training:.4g}",
                f"{r.training_ratio:.3f}",
                f"{r.params:.2f}",
                f"{r.state:.2f}",
                "no" if name in missed else "yes",
            )
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def sections_on(text: str) -> dict[str, Section]:
    """The results as a page has them, by task."""
    found = {}
    for part in text.split("\n## ")[1:]:
        name, *lines = part.splitlines()
        counts = re.search(r"Steps: (\d+)\. Seeds: (\d+)\.", part)
        rates = re.findall(r"([\d.e-]+): ([\d.]+|nan)(?=, |\.$)", part.split("|")[0], re.MULTILINE)
        rows = {}
        for line in [line for line in lines if line.startswith("|")][2:]:
            setting, *cells, _ = (cell.strip() for cell in line.split("|")[1:-1])
            rows[setting] = Row(*(float(n) for cell in cells for n in cell.split(" ± ")))
        if counts:
            steps, seeds = map(int, counts.groups())
            losses = {float(rate): float(loss) for rate, loss in rates}
            found[name.partition(":")[0]] = Section(steps, seeds, losses, rows)
    return found


def draw(sections: Mapping[str, Section], path: Path) -> None:
    """The picture: a column for each task, above the held-out losses, below those of training.

    Raises:
      CommandError: matplotlib is not installed, or the place cannot be written.
    """
    from matplotlib.ticker import MaxNLocator

    names = list(dict.fromkeys(name for section in sections.values() for name in section.rows))
    with style.slide() as Figure:
        figure = Figure(figsize=(4.6 * len(sections) + 3, 3 + 0.6 * len(names)))
        panels = figure.subplots(2, len(sections), sharey=True, squeeze=False)
        for (above, below), (task, section) in zip(panels.T, sections.items()):
            allowed = section.allowed / section.rows[BASE].loss
            above.axvspan(2 - allowed, allowed, color="#DDEBF7", lw=0, zorder=0)
            for i, name in enumerate(names):
                if (row := section.rows.get(name)) is not None:
                    color = "#D55E00" if name in outside(section) else "#0072B2"
                    look: Any = {"fmt": "o", "color": color, "capsize": 3}
                    above.errorbar(row.ratio, i, xerr=row.ratio_deviation, **look)
                    below.plot(row.training_ratio, i, "D", color=color)
            above.set_title(f"{task}, {section.steps} steps")
            above.set_xlabel("held-out loss / f32's")
            below.set_xlabel("training loss / f32's")
        for axes in panels.flat:
            axes.axvline(1, color="#888888", lw=1, zorder=1)
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.set_yticks(range(len(names)), names)
        panels[0, 0].invert_yaxis()
        style.headline(figure, "Final losses beside float32 AdamW; the band is one deviation or 1%")
        style.save(figure, path)
