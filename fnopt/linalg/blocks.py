"""Large matrices as blocks: what methods with a factor for each side cut a leaf into.

Blocks are of one size, as few as do, and about as long as each other: 1100 rows of at most 1024
are two blocks of 550. The last one is filled with zeros.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fnopt.tree import PyTree


def sides(length: int, block_size: int) -> tuple[int, int]:
    """Into how many parts a side is cut, and how long each is.

    >>> sides(1100, 1024)
    (2, 550)
    """
    parts = max(1, -(-length // block_size))
    return parts, -(-length // parts)


def cut(x: jax.Array, block_size: int) -> jax.Array:
    """(k, rows, columns) as (k, blocks, a, b)."""
    k, rows, columns = x.shape
    (r, a), (c, b) = sides(rows, block_size), sides(columns, block_size)
    if (r * a, c * b) != (rows, columns):
        x = jnp.pad(x, ((0, 0), (0, r * a - rows), (0, c * b - columns)))
    return jnp.swapaxes(x.reshape(k, r, a, c, b), 2, 3).reshape(k, r * c, a, b)


def join(x: jax.Array, rows: int, columns: int, block_size: int) -> jax.Array:
    """(k, blocks, a, b) as (k, rows, columns), without what `cut` filled in."""
    (r, a), (c, b) = sides(rows, block_size), sides(columns, block_size)
    whole = jnp.swapaxes(x.reshape(-1, r, c, a, b), 2, 3).reshape(-1, r * a, c * b)
    return whole[:, :rows, :columns]


def as_placed(new: PyTree, old: PyTree) -> PyTree:
    """The new factors, split over an automatic mesh as the old ones are.

    A compiler's partitioner would else split GGᵀ as G is, and the state would move at its first
    step. JAX 0.12 has no word for it: there, on an automatic mesh, give the step's
    `out_shardings` (`fnopt.state_shardings`).
    """
    try:
        from jax.experimental.shard_alike import shard_alike
    except ImportError:  # from JAX 0.12 on
        return new
    return jax.tree.map(lambda a, b: shard_alike(a, b)[0], new, old)
