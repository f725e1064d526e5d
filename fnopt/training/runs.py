"""Run folders: the summary and the metrics of a run, consistent after a kill at any moment."""

from __future__ import annotations

import csv
import datetime
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fnopt.training.errors import CommandError

COLUMNS = (
    "epoch",
    "step",
    "loss",
    "train_loss",
    "train_accuracy",
    "test_loss",
    "test_accuracy",
    "grad_norm",
    "update_norm",
    "learning_rate",
    "seconds",
)
"""The columns of metrics.csv that every run has; those of single parameters, `grad_norm/0/w`,
stand behind them."""


def new_folder(out: str | None, name: str) -> Path:
    """An empty folder for a run: `out`, or runs/<time>-<name>.

    Raises:
      CommandError: it cannot be made or written, or it is not empty.
    """
    if out is None:
        stem = f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{name}"
        folder, again = Path("runs") / stem, 1
        while folder.exists():
            again += 1
            folder = Path("runs") / f"{stem}-{again}"
    else:
        folder = Path(out).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise CommandError(
                f"{folder} is not empty; give another folder with --out, or go on with a run in "
                f"it with --resume {folder}"
            )
        probe = folder / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise CommandError(f"cannot write {folder}: {error.strerror or error}") from None
    return folder


def write_text(file: Path, text: str) -> None:
    """Replaces a file as a whole: a reader, or a killed run, has the old one or the new one.

    Raises:
      CommandError: the folder cannot be written.
    """
    partial = file.with_name(f".{file.name}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as lines:
            lines.write(text)
            lines.flush()
            os.fsync(lines.fileno())
        os.replace(partial, file)
    except OSError as error:
        raise CommandError(f"cannot write {file}: {error.strerror or error}") from None


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Writes summary.json."""
    write_text(folder / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")


def read_summary(folder: Path) -> dict[str, Any]:
    """Reads summary.json.

    Raises:
      CommandError: it is missing or damaged.
    """
    file = folder / "summary.json"
    if not folder.is_dir():
        raise CommandError(f"no such run folder: {folder}")
    try:
        summary = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CommandError(f"{folder} is not a run folder: it has no summary.json") from None
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror or error}") from None
    except ValueError:
        raise CommandError(f"{file} is damaged: it is not JSON") from None
    if not isinstance(summary, dict) or "settings" not in summary:
        raise CommandError(f"{file} is damaged: it has no settings")
    return summary


def append_row(folder: Path, record: Mapping[str, float]) -> None:
    """Adds an epoch's line to metrics.csv, with the header before the first.

    Raises:
      CommandError: it cannot be written.
    """
    file, columns = folder / "metrics.csv", _columns(record)
    try:
        with file.open("a", encoding="utf-8", newline="") as lines:
            if lines.tell() == 0:
                lines.write(_line(columns))
            lines.write(_line(_show(record.get(name)) for name in columns))
            lines.flush()
            os.fsync(lines.fileno())
    except OSError as error:
        raise CommandError(f"cannot write {file}: {error.strerror or error}") from None


def _columns(record: Mapping[str, float]) -> list[str]:
    return [*COLUMNS, *(name for name in record if "/" in name)]


def _line(cells: Any) -> str:
    return ",".join(cells) + "\n"


def _show(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.9g}"


def read_rows(folder: Path) -> list[dict[str, float]]:
    """The whole lines of metrics.csv; an empty list if there is none."""
    file = folder / "metrics.csv"
    if not file.exists():
        return []
    with file.open(encoding="utf-8", newline="") as lines:
        whole = [line for line in lines if line.endswith("\n")]
    rows = []
    for row in csv.DictReader(whole):
        try:
            values = {name: float(text) for name, text in row.items() if text}
            rows.append(values | {k: int(values[k]) for k in ("epoch", "step")})
        except (ValueError, TypeError, KeyError, OverflowError):
            raise CommandError(f"{file} is damaged: it has a line that is no epoch") from None
    return rows


def keep_rows(folder: Path, epochs: int) -> list[dict[str, float]]:
    """Cuts metrics.csv to the epochs that a checkpoint has behind it, and returns them.

    A line is written before its checkpoint, so a killed run may have one line too many, whole or
    in part, never one too few.

    Raises:
      CommandError: a line is missing, so the folder's parts do not belong together.
    """
    rows = [row for row in read_rows(folder) if row.get("epoch", 0) <= epochs]
    if [row.get("epoch") for row in rows] != list(range(1, epochs + 1)):
        raise CommandError(
            f"{folder / 'metrics.csv'} is damaged: it lacks epochs of the checkpoint"
        )
    file = folder / "metrics.csv"
    if file.exists():
        columns = _columns(rows[0]) if rows else []
        lines = [_line(_show(row.get(name)) for name in columns) for row in rows]
        write_text(file, "".join([_line(columns), *lines]) if rows else "")
    return rows
