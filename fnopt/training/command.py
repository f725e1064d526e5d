"""`fnopt train`: trains a network on the handwritten digits or on a file, and shows how it went."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import textwrap
from pathlib import Path
from typing import Any

import jax

from fnopt.training import choices
from fnopt.training.data import Dataset
from fnopt.training.errors import CommandError
from fnopt.training.options import add_problem, checked, given, load, require, settings_of
from fnopt.training.rates import SCHEDULES
from fnopt.training.runs import new_folder, read_summary, write_summary
from fnopt.training.settings import DTYPES, GRADIENTS, Settings
from fnopt.training.trial import Outcome, Trial, describe, prepare, run_trial

EXTRAS = {
    "rich": "rich",
    "matplotlib": "matplotlib",
    "sklearn": "scikit-learn",
    "orbax.checkpoint": "orbax-checkpoint",
}
"""Modules of the extra `train`, and their packages."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `fnopt train`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _epilog()
    usual = Settings()
    add = parser.add_argument
    add(
        "--optimizer", metavar="NAME", help="a factory of fnopt's that takes a learning rate (adam)"
    )
    add(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        help="a hyperparameter: a number, true, false, none or a schedule; may be repeated",
    )
    add(
        "--compare",
        metavar="NAME,NAME",
        type=_names,
        help="several optimizers from the same initial weights and with the same batches",
    )
    add_problem(parser, usual.epochs)
    add("--dtype", choices=DTYPES, help=f"of the parameters ({usual.dtype})")
    add("--gradients", choices=GRADIENTS, help="JAX's, or the chain rule written out (autodiff)")
    add(
        "--log-layers",
        action="store_true",
        help="write each parameter's gradient and update norms to metrics.csv, for fnopt report",
    )
    add("--resume", metavar="RUN", help="go on with the run in this folder, with its settings")
    add("--out", metavar="DIR", help="the run's folder, new or empty (runs/<time>-<optimizer>)")


def _epilog() -> str:
    lines = ["schedules, for --set learning_rate=NAME:V, stretched over the whole run:"]
    lines += [f"  {name + ':V':18} {named.help}" for name, named in SCHEDULES.items()]
    lines += [
        "other arguments of the schedule may follow: --set learning_rate=cosine:1e-3,alpha=0.1",
        "",
        "optimizers and their default learning rates, chosen for the digits:",
        *textwrap.wrap(", ".join(_rates()), 78, initial_indent="  ", subsequent_indent="  "),
        "with --compare, --set adam.b1=0.8 concerns adam only",
        "",
        "examples:",
        "  fnopt train",
        "  fnopt train --optimizer adamw --set learning_rate=warmup_cosine:1e-3",
        "  fnopt train --compare sgd,momentum,adagrad,rmsprop,adam",
        "  fnopt train --data iris.csv --label species --hidden 32 --epochs 100",
        "  fnopt train --resume runs/20300101-120000-adam",
    ]
    return "\n".join(lines)


def _rates() -> list[str]:
    rates = {name: choices.default_rate(name) for name in choices.optimizers()}
    return [name if rate is None else f"{name}={rate:g}" for name, rate in rates.items()]


def _several(text: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(","))
    if not all(words) or len(set(words)) < len(words):
        raise ValueError
    return words


_names = checked("different names with commas between", _several)


def run(args: argparse.Namespace) -> int:
    """Does what the arguments say.

    Returns:
      0; 1 if training was stopped because it diverged; 130 after Ctrl-C.

    Raises:
      CommandError: an input is wrong.
    """
    require(EXTRAS)
    chosen = given(args)
    if args.resume is not None:
        extra = [f"--{name.replace('_', '-')}" for name in chosen] + ["--out"] * bool(args.out)
        if extra:
            raise CommandError(f"--resume takes its settings from the run; leave out {extra[0]}")
        folder: Path | None = Path(args.resume).expanduser()
        settings = Settings.from_json(str(folder), read_summary(folder)["settings"])  # type: ignore[arg-type]
    else:
        folder, settings = None, _settings(chosen)
    with jax.enable_x64(settings.dtype == "float64" or jax.config.read("jax_enable_x64")):
        dataset, trials = _plan(settings)
        if folder is None:
            folder = new_folder(args.out, "compare" if settings.compare else settings.optimizer)
        else:
            _check_same(folder, dataset)
        try:
            return _run(settings, dataset, trials, folder)
        except KeyboardInterrupt:
            print(
                f"\nfnopt train: interrupted; go on with: fnopt train --resume {folder}",
                file=sys.stderr,
            )
            return 130


def _settings(chosen: dict[str, Any]) -> Settings:
    if "compare" in chosen and "optimizer" in chosen:
        raise CommandError("give --optimizer or --compare, not both")
    return settings_of(chosen)


def _plan(settings: Settings) -> tuple[Dataset, dict[str, Trial]]:
    """The data and each optimizer's run, all checked before anything is written."""
    names = settings.compare or (settings.optimizer,)
    for name in names:
        choices.find_optimizer(name)
    each = {}
    for name in names:
        own = choices.assignments(settings.set, name, names)
        words = tuple(f"{key}={value}" for key, value in own.items())
        each[name] = dataclasses.replace(settings, optimizer=name, set=words, compare=())
    dataset = load(settings)
    return dataset, {name: prepare(own, dataset) for name, own in each.items()}


def _check_same(folder: Path, dataset: Dataset) -> None:
    before = read_summary(folder).get("data", {})
    if before.get("digest") != dataset.digest:
        raise CommandError(f"the data is not what the run in {folder} began with")


def _run(settings: Settings, dataset: Dataset, trials: dict[str, Trial], folder: Path) -> int:
    """Trains, then shows the table and draws the picture."""
    from fnopt.training.pictures import draw
    from fnopt.training.report import show

    if settings.compare:
        outcomes = _compare(settings, dataset, trials, folder)
    else:
        outcomes = [run_trial(trials[settings.optimizer], dataset, folder)]
    layers = (dataset.x_train.shape[1], *settings.hidden, len(dataset.classes))
    title = f"{dataset.name}, network {'-'.join(map(str, layers))}"
    show(outcomes, title)
    draw(
        outcomes,
        title if settings.compare else f"{outcomes[0].name} on {title}",
        folder / "curves.png",
    )
    print(f"in {folder}: metrics.csv, summary.json, curves.png, checkpoints")
    return int(all(outcome.summary["status"] == "stopped" for outcome in outcomes))


def _compare(
    settings: Settings, dataset: Dataset, trials: dict[str, Trial], folder: Path
) -> list[Outcome]:
    """One run after another, each in a folder of its own."""
    summary = describe(settings, dataset) | {"status": "running"}
    write_summary(folder, summary)
    outcomes = []
    for name, trial in trials.items():
        inner = folder / name
        try:
            inner.mkdir(exist_ok=True)
        except OSError as error:
            raise CommandError(f"cannot write {inner}: {error.strerror or error}") from None
        outcomes.append(run_trial(trial, dataset, inner, name))
    runs = {
        o.name: {k: v for k, v in o.summary.items() if k not in ("settings", "versions", "device")}
        for o in outcomes
    }
    write_summary(folder, summary | {"status": "finished", "runs": runs})
    return outcomes
