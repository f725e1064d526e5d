"""The time of `fit`'s scanned epoch beside a scan written by hand: `python -m fnopt.bench.epoch`.

Both make the same step of the same network on the same shuffled batches, with the same metrics.
The runs alternate, each begun first every other round; printed are both medians and their ratio.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnopt import mlp
from fnopt.apply import apply_updates
from fnopt.hyperparameters import hyperparameters
from fnopt.optimizers.adam import adam
from fnopt.training.epoch import make_epoch
from fnopt.training.step import make_train_step
from fnopt.transforms.clipping import global_norm

Epoch = Callable[[Any, Any, jax.Array, Any], Any]


def loss_fn(params: Any, batch: Any) -> jax.Array:
    """The network's mean cross entropy."""
    return mlp.loss(params, *batch)


def by_hand(optimizer: Any, n: int, batch_size: int) -> Epoch:
    """What one writes without `fnopt.training`: ((params, state), data, key, epoch) -> ..."""

    @jax.jit
    def epoch(carry: Any, data: Any, key: jax.Array, number: Any) -> Any:
        x, y = data
        batches = n // batch_size
        order = jax.random.permutation(jax.random.fold_in(key, number), n)
        order = order[: batches * batch_size].reshape(batches, batch_size)

        def step(carry: Any, rows: jax.Array) -> Any:
            params, state = carry
            loss, grads = jax.value_and_grad(loss_fn)(params, (x[rows], y[rows]))
            updates, state = optimizer.update(grads, state, params)
            norms = global_norm(grads), global_norm(updates)
            rate = hyperparameters(state)["learning_rate"]
            return (apply_updates(params, updates), state), (loss, *norms, rate)

        return jax.lax.scan(step, carry, order)

    return epoch


def main(
    rounds: int = 30, n: int = 1437, features: int = 64, hidden: int = 256, batch_size: int = 32
) -> float:
    """Prints the medians in milliseconds, and prints and returns their ratio."""
    key = jax.random.key(0)
    x = jax.random.normal(jax.random.fold_in(key, 1), (n, features))
    y = jax.random.randint(jax.random.fold_in(key, 2), (n,), 0, 10)
    params = mlp.init(jax.random.fold_in(key, 3), (features, hidden, hidden // 2, 10))
    optimizer = adam(1e-3)
    train_step = make_train_step(loss_fn, optimizer)
    state = train_step.init(params)
    runs: dict[str, tuple[Epoch, Any]] = {
        "fit": (make_epoch(train_step, n, batch_size), state),
        "by hand": (by_hand(optimizer, n, batch_size), (state.params, state.optimizer_state)),
    }
    number = jnp.zeros((), jnp.int32)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for epoch, start in runs.values():
        jax.block_until_ready(epoch(start, (x, y), key, number))
    for i in range(rounds):
        for name in sorted(runs, reverse=bool(i % 2)):
            epoch, start = runs[name]
            begin = time.perf_counter()
            jax.block_until_ready(epoch(start, (x, y), key, number))
            times[name].append(time.perf_counter() - begin)
    medians = {name: statistics.median(found) for name, found in times.items()}
    ratio = medians["fit"] / medians["by hand"]
    shown = ", ".join(f"{name} {median * 1e3:.2f} ms" for name, median in medians.items())
    print(f"an epoch of {n // batch_size} steps: {shown}, ratio {ratio:.3f} ({rounds} rounds)")
    return ratio


if __name__ == "__main__":
    main()
