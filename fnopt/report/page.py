"""The page of a run: its curves, its numbers, which rule each parameter has, its settings."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fnopt.report.charts import COLORS, Line, chart, colors

STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 1180px; padding: 28px 24px 60px; background: #fff; color: #1c2733;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 26px; margin: 0 0 2px; } h2 { font-size: 19px; margin: 38px 0 10px; }
p { margin: 4px 0; } .quiet { color: #5b6b7a; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(118px, 1fr));
  gap: 12px; margin: 20px 0 8px; }
.tiles div { background: #f4f7fa; border-radius: 8px; padding: 10px 12px; }
.tiles b { display: block; font-size: 21px; } .tiles span { color: #5b6b7a; font-size: 13px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr));
  gap: 22px 28px; }
figure { margin: 0; } figcaption { font-weight: 600; margin-bottom: 2px; }
svg { width: 100%; height: auto; display: block; }
svg text { font-size: 12px; fill: #5b6b7a; }
svg .left { text-anchor: end; dominant-baseline: middle; } svg .below { text-anchor: middle; }
svg .grid { stroke: #e3e8ed; stroke-width: 1; }
.key { display: flex; flex-wrap: wrap; gap: 2px 16px; font-size: 13px; padding-left: 58px; }
.key i { display: inline-block; width: 20px; margin-right: 6px; vertical-align: 4px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { text-align: left; color: #5b6b7a; font-weight: 600; border-bottom: 2px solid #d5dde4; }
th, td { padding: 5px 14px 5px 0; vertical-align: top; } td { border-bottom: 1px solid #edf1f4; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
code { font: 13px ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
.stopped { background: #fdf0e6; border-left: 4px solid #D55E00; padding: 8px 14px; margin: 12px 0; }
"""

LAYERS = {
    "grad_norm": "Gradient norm of each parameter",
    "update_norm": "Update norm of each parameter",
    "update_ratio": "Update norm over weight norm",
    "effective_rate": "Effective learning rate: update norm over gradient norm",
}


class Run(NamedTuple):
    """A run's optimizer, its summary.json, and the rows of its metrics.csv."""

    name: str
    summary: Mapping[str, Any]
    rows: Sequence[Mapping[str, float]]


def page(title: str, summary: Mapping[str, Any], runs: Sequence[Run]) -> str:
    """The whole page as HTML, without scripts and without anything from outside.

    Args:
      title: of the page.
      summary: the run's, or the comparison's: its settings, data, versions and device.
      runs: one, or those compared.
    """
    data, settings = summary.get("data", {}), summary["settings"]
    layers = [data.get("features"), *settings.get("hidden", ()), len(data.get("classes", ()))]
    words = f"{data.get('name', 'data')}, network {'-'.join(map(str, layers))}"
    parts = [
        f"<h1>{_text(title)}</h1><p class=quiet>{_text(words)}, status: "
        f"{_text(summary.get('status', 'unknown'))}</p>",
        *(_stopped(run) for run in runs),
        _tiles(runs[0]) if len(runs) == 1 else _comparison(runs),
        "<h2>Curves</h2>",
        _grid(_curves(runs)),
    ]
    for run in runs:
        logged = _layers(run)
        of = "" if len(runs) == 1 else f" of {_text(run.name)}"
        if logged:
            parts += [f"<h2>Layers{of}</h2>", _grid(logged)]
        parts += [f"<h2>Rules and state{of}</h2>", _state(run)]
    parts += ["<h2>Settings</h2>", _settings(summary)]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{_text(title)}</title>"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _text(value: Any) -> str:
    return html.escape(str(value))


def _grid(figures: Sequence[str]) -> str:
    return f'<div class="charts">{"".join(figures)}</div>'


def _stopped(run: Run) -> str:
    reason = run.summary.get("stopped")
    return f'<p class="stopped">{_text(run.name)} stopped: {_text(reason)}</p>' if reason else ""


def _number(summary: Mapping[str, Any], name: str) -> str:
    """A score in words: accuracies in percent, seconds and counts, losses in four digits."""
    value = summary.get(name)
    if value is None:
        return "–"
    if name.endswith("accuracy"):
        return f"{100 * value:.2f}%"
    if name == "seconds":
        return f"{value:.1f} s"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


SCORES = {
    "test_accuracy": "test accuracy", "train_accuracy": "training accuracy",
    "test_loss": "test loss", "train_loss": "training loss", "epoch": "epochs", "steps": "steps",
    "parameters": "parameters", "seconds": "training time",
}  # fmt: skip


def _tiles(run: Run) -> str:
    tiles = "".join(
        f"<div><b>{_number(run.summary, name)}</b><span>{words}</span></div>"
        for name, words in SCORES.items()
    )
    return f'<div class="tiles">{tiles}</div>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: frozenset[int]) -> str:
    """A table of cells that are HTML already; the columns of `numbers` flush right."""

    def line(cells: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=number' if i in numbers else ''}>{cell}</{tag}>"
            for i, cell in enumerate(cells)
        )

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{line(head, "th")}</tr>{body}</table></div>'


def _comparison(runs: Sequence[Run]) -> str:
    ranked = sorted(runs, key=lambda run: -(run.summary.get("test_accuracy") or 0.0))
    rows = [[_text(run.name), *(_number(run.summary, name) for name in SCORES)] for run in ranked]
    return _table(["optimizer", *SCORES.values()], rows, frozenset(range(1, 9)))


def _points(run: Run, name: str, factor: float = 1.0) -> list[tuple[float, float]]:
    return [(row["epoch"], factor * row[name]) for row in run.rows if name in row]


def _curves(runs: Sequence[Run]) -> list[str]:
    hues = colors([run.name for run in runs])

    def lines(name: str, factor: float = 1.0) -> list[Line]:
        return [Line(r.name, _points(r, name, factor), *hues[r.name]) for r in runs]

    if len(runs) == 1:
        (run,) = runs

        def both(name: str, factor: float = 1.0) -> list[Line]:
            return [
                Line("training", _points(run, f"train_{name}", factor), COLORS[0]),
                Line("test", _points(run, f"test_{name}", factor), COLORS[1]),
            ]

        norms = [
            Line("gradient", _points(run, "grad_norm"), COLORS[2]),
            Line("update", _points(run, "update_norm"), COLORS[3]),
        ]
        return [
            chart("Loss", both("loss")),
            chart("Accuracy", both("accuracy", 100.0), "%", log=False),
            chart("Norms of the gradient and of the update", norms),
            chart("Learning rate at the end of each epoch", lines("learning_rate"), log=False),
        ]
    return [
        chart("Training loss", lines("train_loss")),
        chart("Test accuracy", lines("test_accuracy", 100.0), "%", log=False),
        chart("Gradient norm", lines("grad_norm")),
        chart("Update norm", lines("update_norm")),
    ]


def _layers(run: Run) -> list[str]:
    """A chart for each number that was logged for each parameter."""
    known = list(dict.fromkeys(name for row in run.rows for name in row if "/" in name))
    paths = list(dict.fromkeys(name.partition("/")[2] for name in known))
    hues = colors(paths)
    return [
        chart(title, [Line(p, _points(run, f"{metric}/{p}"), *hues[p]) for p in paths], log=True)
        for metric, title in LAYERS.items()
        if any(name.startswith(f"{metric}/") for name in known)
    ]


def _state(run: Run) -> str:
    state = run.summary.get("state")
    optimizer = f"<p><code>{_text(run.summary.get('optimizer', run.name))}</code></p>"
    if state is None:
        return f"{optimizer}<p class=quiet>This run did not record its state.</p>"
    params, kept = state["param_bytes"], state["state_bytes"]
    rows = [
        [*(f"<code>{_text(row[k])}</code>" for k in ("path", "shape")), _text(row["rule"]),
         _text(row["state"]), f"{row['bytes']:,}"]
        for row in state["rows"]
    ]  # fmt: skip
    ratio = kept / params if params else 0.0
    said = f"Parameters {params:,} bytes, state {kept:,} bytes: {ratio:.2f} of the parameters."
    table = _table(["leaf", "shape", "rule", "state", "bytes"], rows, frozenset({4}))
    return f"{optimizer}<p>{said}</p>{table}"


def _settings(summary: Mapping[str, Any]) -> str:
    device = summary.get("device", {})
    words = {**summary["settings"], **{f"{k} version": v for k, v in _versions(summary)}}
    words["device"] = f"{device.get('count', '?')} × {device.get('kind', 'unknown')}"
    words["data digest"] = summary.get("data", {}).get("digest", "–")
    rows = [[_text(k), f"<code>{_text(_plain(v))}</code>"] for k, v in words.items()]
    return _table(["setting", "value"], rows, frozenset())


def _versions(summary: Mapping[str, Any]) -> Sequence[tuple[str, Any]]:
    return list(summary.get("versions", {}).items())


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)
