"""Pictures of tuning: a score over one or two hyperparameters, and a loss over the rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fnopt.landscape import style
from fnopt.tuning.grid import Axis, Grid
from fnopt.tuning.population import Result
from fnopt.tuning.rates import RangeTest

BEST, OTHER, QUIET = style.COLORS["momentum"], style.COLORS["sgd"], "#B8C4D0"
GROUND = ("#0B3C5D", "#2F7FB8", "#9CCAE1", "#F4F4F0")  # low to high
DIVERGED = "#E3DAD2"
WORDS = {
    "train_loss": "loss on the training set",
    "train_accuracy": "accuracy on the training set (%)",
    "test_loss": "loss on the test set",
    "test_accuracy": "accuracy on the test set (%)",
}


def shown(value: float) -> str:
    """A number in few words: `0.01`, `3e-05`."""
    return f"{value:.3g}"


def tick(value: float) -> str:
    """A number for an axis, two digits of it: `0.016`, `1.6e-4`."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.2g}"
    digits, power = f"{value:.1e}".split("e")
    return f"{digits.removesuffix('.0')}e{int(power)}"


def draw_sweep(grid: Grid, result: Result, name: str, best: int, title: str, file: Path) -> Path:
    """Writes a curve for one hyperparameter, a heat map for two.

    Of more the first two are drawn, each cell with the best of the others.

    Raises:
      CommandError: matplotlib is not installed, or the file cannot be written.
    """
    factor = 100.0 if name.endswith("accuracy") else 1.0
    scores = {
        key: factor * result.last(key).reshape([len(axis.values) for axis in grid.axes])
        for key in (name, name.replace("test", "train"))
    }
    place = np.unravel_index(best, scores[name].shape)
    with style.slide() as Figure:
        if len(grid.axes) == 1:
            figure = Figure(figsize=(10.5, 5.6), dpi=110)
            _curve(figure, grid.axes[0], scores, name, best)
        else:
            figure = _heat_map(Figure, grid.axes, scores[name], name, place)
        style.headline(figure, title)
        return style.save(figure, file)


def _curve(figure: Any, axis: Axis, scores: dict[str, np.ndarray], name: str, best: int) -> None:
    axes = figure.subplots()
    values = np.array(axis.values)
    for key, color, label in (
        (name, OTHER, "test"),
        (name.replace("test", "train"), QUIET, "train"),
    ):
        if key == name.replace("test", "train") == name:
            continue
        axes.plot(values, scores[key], marker="o", ms=5, color=color, label=label, zorder=3)
    top = float(scores[name][best])
    axes.plot(values[best], top, "o", ms=13, mfc="none", mec=BEST, mew=2.6, zorder=5)
    axes.annotate(
        f"{shown(top)} at {shown(float(values[best]))}",
        (values[best], top),
        xytext=(0, 20),
        textcoords="offset points",
        ha="center",
        color=BEST,
        fontsize=14,
        fontweight="bold",
        bbox={"fc": "white", "ec": "none", "alpha": 0.8, "pad": 1},
    )
    if axis.log:
        axes.set_xscale("log")
    if name.endswith("loss"):
        axes.set_yscale("log")
        plain_log(axes.yaxis, axes.get_ylim())
    diverged = values[~np.isfinite(scores[name])]
    if diverged.size:
        worst = axes.get_ylim()[1 if name.endswith("loss") else 0]
        at = np.full(diverged.shape, worst)
        axes.plot(diverged, at, "x", ms=9, mew=2, color="#666666", label="diverged")
    axes.margins(y=0.16)
    axes.grid(True, color="#E4E4E4", lw=0.8)
    axes.set_axisbelow(True)
    axes.set(xlabel=axis.name, ylabel=WORDS[name].replace(" on the test set", ""))
    axes.legend()


def _heat_map(
    Figure: Any, every: Sequence[Axis], scores: np.ndarray, name: str, place: Sequence[Any]
) -> Any:
    from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize

    lower = name.endswith("loss")
    others = tuple(range(2, len(every)))
    sign = 1.0 if lower else -1.0
    kept = sign * np.where(np.isfinite(scores), sign * scores, np.inf).min(axis=others)
    kept = np.where(np.isfinite(kept), kept, np.nan)
    across, down = 0, 1
    if len(every[1].values) > len(every[0].values):
        across, down = 1, 0
    table = kept.T if across == 0 else kept
    columns, rows = every[across], every[down]
    width, height = 2.4 + 0.78 * len(columns.values), 2.6 + 0.62 * len(rows.values)
    figure = Figure(figsize=(min(max(width, 8.5), 18), min(max(height, 3.8), 12)), dpi=110)
    axes = figure.subplots()
    finite = table[np.isfinite(table)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    good = np.quantile(finite, 0.1 if lower else 0.9) if finite.size else 1.0
    if lower:
        norm: Any = LogNorm(low, max(min(high, 30 * low), low * 1.001), clip=True)
    else:
        norm = Normalize(max(low, good - 30), max(high, low + 1e-9), clip=True)
    colors = GROUND if lower else GROUND[::-1]
    ground = LinearSegmentedColormap.from_list("scores", colors, bad=DIVERGED)
    axes.imshow(np.ma.masked_invalid(table), cmap=ground, norm=norm, aspect="auto", origin="lower")
    for axis, values in ((axes.xaxis, columns.values), (axes.yaxis, rows.values)):
        axis.set_ticks(range(len(values)), [tick(v) for v in values])
    if len(columns.values) > 9:
        axes.tick_params("x", rotation=45)
    crowded = max(len(columns.values) / 20, len(rows.values) / 16) > 1
    for (i, j), value in np.ndenumerate(table):
        if not crowded:
            missing = not np.isfinite(value)
            deep = not missing and (norm(value) < 0.6) == lower
            text = "–" if missing else _cell(float(value), lower)
            ink = "white" if deep else "#333333"
            axes.text(j, i, text, ha="center", va="center", fontsize=11, color=ink)
    from matplotlib.patches import Rectangle

    corner = (place[across] - 0.5, place[down] - 0.5)
    axes.add_patch(Rectangle(corner, 1, 1, fill=False, ec=BEST, lw=3.5, zorder=5))
    axes.set(xlabel=columns.name, ylabel=rows.name)
    axes.set_title(
        _reading(name, every, bool(np.isnan(table).any())), fontsize=12.5, color="#555555"
    )
    axes.tick_params(length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    return figure


def _cell(value: float, lower: bool) -> str:
    if not lower:
        return f"{value:.1f}"
    return f"{value:.3f}" if value < 10 else f"{value:.0f}"


def _reading(name: str, every: Sequence[Axis], diverged: bool) -> str:
    """What a cell is, in words."""
    words = [f"each cell: {WORDS[name]}"]
    if len(every) > 2:
        words.append(f"the best over {', '.join(axis.name for axis in every[2:])}")
    if diverged:
        words.append("– diverged")
    return ", ".join(words)


def plain_log(axis: Any, limits: tuple[float, float]) -> None:
    """A logarithmic axis with plain numbers: also 2 and 5 where it spans little."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = limits
    axis.set_major_locator(LogLocator(subs=(1.0,) if high > 100 * low else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def draw_range_test(test: RangeTest, optimizer: str, file: Path) -> Path:
    """Writes the loss over the rate, with the steepest fall and the lowest loss marked.

    Raises:
      CommandError: matplotlib is not installed, or the file cannot be written.
    """
    with style.slide() as Figure:
        figure = Figure(figsize=(10.5, 5.6), dpi=110)
        axes = figure.subplots()
        axes.plot(test.rates, test.losses, "o", ms=4, color=QUIET, label="each step", zorder=2)
        axes.plot(test.rates, test.smooth, color=OTHER, label="average", zorder=3)
        axes.set_xscale("log")
        falling = test.smooth[: test.lowest + 1]
        low, high = float(test.smooth.min()), float(np.quantile(falling, 0.9))
        room = max(high - low, 1e-3 * abs(high))
        axes.set_ylim(min(low - 0.3 * room, float(test.losses.min())), high + 0.9 * room)
        for place, word, color, above in (
            (test.steepest, "steepest fall", BEST, True),
            (test.lowest, "lowest loss", "#444444", False),
        ):
            x, y = test.rates[place], test.smooth[place]
            axes.plot(x, y, "o", ms=11, mfc="white", mec=color, mew=2.6, zorder=5)
            axes.annotate(
                f"{word}\n{shown(float(x))}",
                (x, y),
                xytext=(12, 10) if above else (-12, -6),
                textcoords="offset points",
                ha="left" if above else "right",
                va="bottom" if above else "top",
                color=color,
                fontweight="bold",
            )
        axes.grid(True, color="#E4E4E4", lw=0.8)
        axes.set_axisbelow(True)
        axes.set(xlabel="learning rate of the step", ylabel="mean cross entropy of its batch")
        end = "the loss rose clearly there" if test.diverged else "the end of the range"
        axes.set_title(
            f"{len(test.rates)} steps; the pass ended at {shown(float(test.rates[-1]))}, {end}",
            fontsize=12.5,
            color="#555555",
        )
        axes.legend(loc="upper left")
        name = style.label(optimizer)
        style.headline(figure, f"{name}: the loss falls most steeply at {shown(test.suggestion)}")
        return style.save(figure, file)
