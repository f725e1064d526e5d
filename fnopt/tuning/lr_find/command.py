"""`fnopt lr-find`: the learning rates at which a loss falls, by one pass with a growing rate."""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fnopt.landscape import style
from fnopt.training.choices import assignments, build, find_optimizer, rate_name
from fnopt.training.data import Dataset
from fnopt.training.epoch import host_batches
from fnopt.training.errors import CommandError
from fnopt.training.options import add_problem, given, load, positive, require, settings_of
from fnopt.training.settings import Settings
from fnopt.training.trial import prepare, total_steps
from fnopt.tuning.pictures import draw_range_test, shown
from fnopt.tuning.rates import growing, range_test


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to a parser."""
    add = parser.add_argument
    add("--optimizer", metavar="NAME", help="a factory of fnopt's that takes a rate (adam)")
    add("--set", metavar="NAME=VALUE", action="append", help="another hyperparameter")
    add_problem(parser)
    add("--low", type=float, default=1e-6, metavar="RATE", help="the first (%(default)g)")
    add("--high", type=float, default=10.0, metavar="RATE", help="the last (%(default)g)")
    add("--passes", type=positive, default=1, metavar="N", help="over the data (%(default)s)")
    add("--out", type=Path, default=Path("lr-find.png"), help="the picture (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Runs the command: makes the pass, prints a suggestion, writes the picture.

    Returns:
      0; 1 if the loss fell nowhere.

    Raises:
      CommandError: an input is wrong, or a file cannot be written.
    """
    require({"sklearn": "scikit-learn"})
    if args.out.suffix.lower() != ".png":
        raise CommandError(f"--out must name a .png file, got {args.out}")
    if not 0 < args.low < args.high < math.inf:
        raise CommandError(f"expected 0 < --low < --high, got {args.low:g} and {args.high:g}")
    with style.slide():
        pass  # a missing matplotlib is said before the work
    settings = settings_of({"epochs": args.passes} | given(args))
    find_optimizer(settings.optimizer)
    dataset = load(settings)
    steps = total_steps(settings, dataset)
    optimizer = with_rate(settings, growing(args.low, args.high, steps), steps)
    trial = prepare(settings, dataset, optimizer)
    rates = np.geomspace(args.low, args.high, steps)
    batches = passes(settings, dataset)
    try:
        test = range_test(trial.train_step, trial.train_step.init(trial.start()), batches, rates)
    except ValueError as error:
        raise CommandError(f"{error}; try a smaller --low") from None
    print(f"wrote {draw_range_test(test, settings.optimizer, args.out)}")
    if test.lowest == 0:
        print("the loss fell at no rate; try another range with --low and --high")
        return 1
    lowest = float(test.rates[test.lowest])
    print(f"{settings.optimizer} on {dataset.name}, {len(test.rates)} of {steps} steps")
    print(f"the loss falls most steeply at   {shown(test.suggestion)}")
    print(
        f"the loss is lowest at            {shown(lowest)}, a tenth of it is {shown(lowest / 10)}"
    )
    name = rate_name(find_optimizer(settings.optimizer))
    low, high = sorted((test.suggestion / 10, test.suggestion * 3))
    print(f"begin with {shown(test.suggestion)}, or look around it:")
    print(f"fnopt sweep --optimizer {settings.optimizer} --set {name}=log:{low:.1g}:{high:.1g}:12")
    return 0


def with_rate(settings: Settings, rate: Any, steps: int) -> Any:
    """The settings' optimizer with a schedule for its learning rate.

    Raises:
      CommandError: the settings have a rate of their own.
    """
    factory = find_optimizer(settings.optimizer)
    name = str(rate_name(factory))
    if name in assignments(settings.set, settings.optimizer):
        raise CommandError(f"{name} is what is looked for; leave out --set {name}=...")
    built = build(settings.optimizer, settings.set, steps, settings.seed)
    return factory(**(dict(built.arguments.arguments) | {name: rate}))


def passes(settings: Settings, dataset: Dataset) -> Iterator[Any]:
    """The batches of the settings' passes, in the order of `fnopt train`."""
    key = jax.random.fold_in(jax.random.key(settings.seed), 1)
    rows = dataset.x_train, dataset.y_train
    each = (host_batches(rows, key, e, settings.batch_size) for e in range(settings.epochs))
    return itertools.chain.from_iterable(each)
