"""Every optimizer has a card, and reaches the loss that the card states."""

import importlib
import pkgutil

import jax
import pytest

import fnopt
from fnopt.bench import cards, tasks
from fnopt.training import choices


def test_no_optimizer_lacks_a_card():
    modules = pkgutil.iter_modules(importlib.import_module("fnopt.optimizers").__path__)
    files = {f"fnopt.optimizers.{module.name}" for module in modules}
    carded = {getattr(fnopt, name).__module__ for name in cards.CARDS}
    assert set(choices.optimizers()) <= set(cards.CARDS)
    assert files <= carded


@pytest.mark.parametrize("task", tasks.TASKS)
@pytest.mark.parametrize("name", cards.CARDS)
def test_the_stated_loss_is_reached(name, task):
    assert cards.reached(name, task) < cards.CARDS[name].runs()[task].loss


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
