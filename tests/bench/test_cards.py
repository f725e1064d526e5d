"""Every optimizer has a card, and reaches the loss that the card states."""

import importlib
import pkgutil
import re

import jax
import pytest

import fnopt
from fnopt.bench import cards, tasks
from fnopt.training import choices

TOGETHER = 10
"""How many optimizers one compiled program runs: fewer cost more, and more are no cheaper."""

EPOCHS = {"muon": 2, "normuon": 3, "psgd_kron": 2, "soap": 2}
"""Those that reach on the digits what they state long before the task's end."""

ON_DIGITS = [*EPOCHS, "adam", "adafactor", "came", "dion", "galore", "lamb", "scion", "shampoo"]
"""Tried on the digits each time, for what they do to a matrix; the sweep tries all."""

PARTS = 8
"""In so many tests."""


def task_of(name, task):
    """The task, cut short where that is enough."""
    if task == "digits" and name in EPOCHS:
        return tasks.digits(EPOCHS[name])
    return tasks.TASKS[task]()


def finals(names, task):
    """Name -> the final loss on a task, or the exception that its trace ended with."""
    whole, failed = {name: task_of(name, task) for name in names}, {}

    @jax.jit
    def program(data):
        losses = {}
        for name, (init, *data_of_it) in data.items():
            its = tasks.Task(init, whole[name].loss, *data_of_it)
            try:
                optimizer = cards.make(name, cards.CARDS[name].runs()[task], its.steps)
                losses[name] = tasks.descend(optimizer, its)
            except Exception as error:
                failed[name] = error
        return losses

    return program({name: (t.init, t.batches, t.whole) for name, t in whole.items()}) | failed


def missed(names, task):
    """What is to say of those that do not reach what their cards state."""
    found = {}
    for i in range(0, len(names), TOGETHER):
        found |= finals(names[i : i + TOGETHER], task)
    stated = {name: cards.CARDS[name].runs()[task].loss for name in names}
    return [
        f"{name} on {task}: {found[name]!r}, stated: below {loss:g}"
        for name, loss in stated.items()
        if isinstance(found[name], Exception) or not found[name] < loss
    ]


def test_no_optimizer_lacks_a_card():
    modules = pkgutil.iter_modules(importlib.import_module("fnopt.optimizers").__path__)
    files = {f"fnopt.optimizers.{module.name}" for module in modules}
    carded = {getattr(fnopt, name).__module__ for name in cards.CARDS}
    assert set(choices.optimizers()) <= set(cards.CARDS)
    assert files <= carded


@pytest.mark.parametrize("task", ["parabola", "rosenbrock"])
def test_the_stated_loss_is_reached(task):
    assert not missed(list(cards.CARDS), task)


def test_the_stated_loss_is_reached_on_the_digits():
    assert not missed(ON_DIGITS, "digits")


# 440 steps of a network with 50,000 weights, 80 times over: the steps themselves take 45 s
@pytest.mark.sweep
@pytest.mark.parametrize("part", range(PARTS))
def test_every_stated_loss_is_reached_on_the_digits(part):
    assert not missed([*cards.CARDS][part::PARTS], "digits")


@pytest.mark.parametrize("task", tasks.TASKS)
def test_the_stated_losses_are_far_below_the_start(task):
    start = tasks.start(tasks.TASKS[task]())
    stated = {name: card.runs()[task].loss for name, card in cards.CARDS.items()}
    assert not [name for name, loss in stated.items() if not loss < start / 3]


def test_a_rate_that_is_too_small_does_not_reach_it(monkeypatch):
    for task in tasks.TASKS:
        card = cards.CARDS["adam"]
        run = cards.Run("1e-6", card.runs()[task].loss)
        monkeypatch.setitem(cards.CARDS, "adam", card._replace(**{task: run}))
        assert not cards.reached("adam", task) < run.loss


def test_each_failure_is_reported_and_hides_no_other(monkeypatch):
    for name, run in {"adam": cards.Run("1e-6", 2.0), "sgd": cards.Run("b9=1", 3.0)}.items():
        monkeypatch.setitem(cards.CARDS, name, cards.CARDS[name]._replace(parabola=run))
    slow, broken = missed(["sign_sgd", "adam", "sgd"], "parabola")
    assert re.fullmatch(r"adam on parabola: .*\d\.\d+.*, stated: below 2", slow)
    assert re.fullmatch(r"sgd on parabola: .*b9.*, stated: below 3", broken)


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("adam", "", ["learning_rate=0.001"]),
        ("prodigy", "", ["learning_rate=1"]),
        ("adafactor", "", []),
        ("polyak_sgd", "2 eps=1", ["max_learning_rate=2", "eps=1"]),
        ("cautious", "cosine:0.1", ["learning_rate=cosine:0.1"]),
        ("sgd", "momentum=0.9", ["learning_rate=0.2", "momentum=0.9"]),
    ],
)
def test_words(name, settings, expected):
    assert cards.words(name, cards.Run(settings, 1.0)) == expected


def test_a_wrapper_stands_around_adam():
    made = cards.make("cautious", cards.Run("0.1", 1.0), 10)
    assert made == fnopt.cautious(fnopt.adam(0.1))


def test_every_task_has_a_batch_for_each_step():
    for make in tasks.TASKS.values():
        task = make()
        first = [len(x) for x in jax.tree.leaves(task.batches)]
        assert set(first) == {task.steps}
