"""Whole runs over a task with several seeds, in one program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt.apply import apply_updates
from fnopt.bench.tasks import Task
from fnopt.state import eval_params

Apply = Callable[[Any, Any, jax.Array], Any]


class Learned(NamedTuple):
    """What came of the runs.

    Attributes:
      losses: float32 (seeds, steps), of each batch before its step.
      final: float32 (seeds,), of what is held out, at the params that are for evaluation.
    """

    losses: jax.Array
    final: jax.Array


def learn(
    tasks: Sequence[Task],
    optimizer: Any,
    apply: Apply = lambda params, updates, key: apply_updates(params, updates),
) -> Learned:
    """Runs an optimizer over tasks that differ in their seeds alone, each in one `lax.scan`.

    The seeds run one after another, because under `vmap` matrices and convolutions become batches
    of them, which a CPU is no faster with.

    Args:
      tasks: with the same loss and shapes.
      optimizer: a transformation that reads gradients and params.
      apply: (params, updates, key) -> params, with a key of the run and step.
    """
    loss = tasks[0].loss

    def one(run: Any) -> Learned:
        init, batches, whole, key = run

        def step(carry: Any, now: Any) -> Any:
            params, state = carry
            batch, key = now
            value, gradients = jax.value_and_grad(loss)(params, batch)
            updates, state = optimizer.update(gradients, state, params)
            return (apply(params, updates, key), state), value

        keys = jax.random.split(key, len(jax.tree.leaves(batches)[0]))
        (params, state), losses = jax.lax.scan(step, (init, optimizer.init(init)), (batches, keys))
        return Learned(losses, loss(eval_params(state, params), whole))

    parts = [(task.init, task.batches, task.whole) for task in tasks]
    runs = jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)
    keys = jax.random.split(jax.random.key(1), len(tasks))
    return jax.jit(lambda runs: jax.lax.map(one, runs))((*runs, keys))
