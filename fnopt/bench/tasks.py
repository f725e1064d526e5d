"""Three small tasks that every optimizer is tried on, and a run over one of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import mlp
from fnopt.state import eval_params
from fnopt.testing import problems
from fnopt.training.data import load_digits
from fnopt.training.epoch import order
from fnopt.training.settings import Settings
from fnopt.training.step import make_train_step


class Task(NamedTuple):
    """A loss to descend for a number of steps.

    Attributes:
      init: params to start from.
      loss: (params, batch) -> scalar.
      batches: a tree of arrays, (steps, rows, ...): one batch a step.
      whole: the batch that the final loss is measured on.
    """

    init: Any
    loss: Callable[[Any, Any], jax.Array]
    batches: Any
    whole: Any

    @property
    def steps(self) -> int:
        """How many steps are made."""
        return len(jax.tree.leaves(self.batches)[0])


@functools.cache
def parabola(steps: int = 200) -> Task:
    """A parabola in ten dimensions, of condition number 100, in a random basis."""
    return _without_data(problems.quadratic(jax.random.key(0)), steps)


@functools.cache
def rosenbrock(steps: int = 2000) -> Task:
    """Rosenbrock's valley in two dimensions, from (-1.2, 1)."""
    return _without_data(problems.rosenbrock(), steps)


@functools.cache
def digits(epochs: int = 10) -> Task:
    """The network and the digits of `fnopt train`, a third of its epochs; mean cross entropy."""
    data, usual = load_digits(), Settings()
    sizes = (data.x_train.shape[1], *usual.hidden, len(data.classes))
    x, y = jnp.asarray(data.x_train), jnp.asarray(data.y_train)
    keys = [jax.random.fold_in(jax.random.key(usual.seed), i) for i in range(2)]
    each = [order(keys[1], epoch, len(y), usual.batch_size) for epoch in range(epochs)]
    init, rows = mlp.init(keys[0], sizes), jnp.concatenate(each)
    return Task(init, lambda params, batch: mlp.loss(params, *batch), (x[rows], y[rows]), (x, y))


TASKS: dict[str, Callable[[], Task]] = {
    "parabola": parabola,
    "rosenbrock": rosenbrock,
    "digits": digits,
}
"""The tasks by name; a call makes one."""


def _without_data(problem: problems.Problem, steps: int) -> Task:
    """A task whose batches are a row that the loss does not read."""
    nothing = jnp.zeros((steps, 1), jnp.float32)
    return Task(problem.init, lambda params, _: problem.loss(params), nothing, nothing[0])


def start(task: Task) -> float:
    """The loss before the first step."""
    return float(task.loss(task.init, task.whole))


def descend(optimizer: Any, task: Task) -> jax.Array:
    """The loss of the whole task, (), after its steps, at the params that are for evaluation."""
    train_step = make_train_step(task.loss, optimizer, key=jax.random.key(2))
    state, _ = jax.lax.scan(
        lambda state, batch: (train_step.unjitted(state, batch)[0], None),
        train_step.init(task.init),
        task.batches,
    )
    return task.loss(eval_params(state.optimizer_state, state.params), task.whole)
