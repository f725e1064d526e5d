"""One epoch: the shuffled batches of a data set, on the device in one scan or from the host.

The order of epoch e is a permutation made from the key and e alone, so that a run resumed at any
epoch sees the batches that the uninterrupted run saw. The last n mod batch_size examples of each
epoch's order are left out; the next epoch's order has them elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnopt import leaves
from fnopt.training.step import TrainState, TrainStep
from fnopt.tree import PyTree


def count_examples(data: PyTree) -> int:
    """n, the length of the first axis, which all arrays of the data share.

    Raises:
      ValueError: there are no arrays, one is a scalar, lengths differ, or n is 0.
    """
    shapes = [np.shape(x) for x in jax.tree.leaves(data)]
    if not shapes or any(not s for s in shapes):
        raise ValueError("fit: data must be arrays with one example per row")
    lengths = sorted({s[0] for s in shapes})
    if len(lengths) > 1:
        raise ValueError(f"fit: the arrays of data have different lengths: {lengths}")
    if lengths[0] == 0:
        raise ValueError("fit: data is empty")
    return lengths[0]


def count_batches(n: int, batch_size: int) -> int:
    """The whole batches in n examples; the remainder is dropped.

    Raises:
      ValueError: batch_size is not a positive integer, or exceeds n.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"fit: batch_size must be a positive integer, got {batch_size!r}")
    if batch_size > n:
        raise ValueError(f"fit: batch_size {batch_size} exceeds the {n} training examples")
    return n // batch_size


def order(key: jax.Array, epoch: Any, n: int, batch_size: int) -> jax.Array:
    """The rows of each batch of an epoch: int32 (n // batch_size, batch_size)."""
    batches = n // batch_size
    rows = jax.random.permutation(jax.random.fold_in(key, epoch), n)
    return rows[: batches * batch_size].reshape(batches, batch_size)


def make_epoch(
    train_step: TrainStep, n: int, batch_size: int
) -> Callable[[TrainState, PyTree, jax.Array, Any], tuple[TrainState, dict[str, Any]]]:
    """One epoch as one jitted `lax.scan`: (state, data, key, epoch) -> (state, metrics).

    Args:
      train_step: as `make_train_step` gives it.
      n: examples in the data.
      batch_size: examples in a batch, at most n.

    Returns:
      A function of the state, which is not donated; the data, arrays (n, ...); a JAX random key;
      and the epoch's number, an int32 scalar. The metrics are the step's, each with a leading
      axis of one entry per step.
    """
    count_batches(n, batch_size)
    step = train_step.unjitted

    @jax.jit
    def epoch(
        state: TrainState, data: PyTree, key: jax.Array, number: Any
    ) -> tuple[TrainState, dict[str, Any]]:
        def body(state: TrainState, rows: jax.Array) -> tuple[TrainState, dict[str, Any]]:
            return step(state, jax.tree.map(lambda x: x[rows], data))

        return jax.lax.scan(body, state, order(key, number, n, batch_size))

    return epoch


def host_batches(data: PyTree, key: jax.Array, epoch: int, batch_size: int) -> Iterator[PyTree]:
    """The same batches in the same order, one at a time, from arrays in host memory."""
    arrays = jax.tree.map(np.asarray, data)
    n = count_examples(arrays)
    for rows in np.asarray(order(key, np.int32(epoch), n, batch_size)):
        yield jax.tree.map(lambda x: x[rows], arrays)


@jax.jit
def all_finite(params: PyTree) -> jax.Array:
    """Whether no float or complex entry of a tree is infinite or NaN: bool ()."""
    inexact = [x for x in jax.tree.leaves(params) if leaves.is_inexact(x)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in inexact] or [jnp.array(True)]))


def fits_on_device(data: PyTree) -> bool:
    """Whether the data takes at most half of the memory that the default device has free.

    A device that does not tell (a CPU) is taken to have 8 GB free.
    """
    arrays = [x for x in jax.tree.leaves(data) if hasattr(x, "dtype")]
    size = sum(map(leaves.nbytes, arrays))
    stats = jax.local_devices()[0].memory_stats() or {}
    free = stats.get("bytes_limit", 8 * 10**9) - stats.get("bytes_in_use", 0)
    return size <= free // 2
