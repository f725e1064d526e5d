"""Blocks of entries along a leaf's last axis: their largest magnitudes, and numbers spread to them.

Inside `shard_map` and `pmap` a vector may lie in parts that cut its blocks. Then each device has
the numbers of all the blocks, or of its share of them where they divide into the parts: as the
state law splits them on a mesh.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnopt import mesh_axes
from fnopt.placement import beside, merge_last, pad_last, split_last

Axes = tuple[Any, ...]
"""The mesh axes that a vector's parts lie over; () for a leaf with whole blocks on each device."""


def largest(minus: jax.Array, block: int, unsigned: bool, axes: Axes = ()) -> jax.Array:
    """The largest magnitude in each block of −x; NaN if an entry is, or is negative where
    `unsigned`.

    Args:
      minus: −x, (..., n).
      block: entries of a block.
      unsigned: whether x must not be negative.
      axes: the mesh axes that the parts of a vector lie over.
    """
    cut = _cut(minus.shape, block, axes)
    if cut is None:
        return _largest(minus, max(min(block, minus.shape[-1]), 1), unsigned)
    empty = jnp.zeros(cut.touched * cut.block, minus.dtype)
    placed = jax.lax.dynamic_update_slice_in_dim(empty, minus, cut.offset, 0)
    found = _largest(placed, cut.block, unsigned)
    word = jax.lax.bitcast_convert_type(found, jnp.uint32) & np.uint32(0x7FFFFFFF)
    every = jnp.zeros(cut.blocks + cut.touched, jnp.uint32)
    every = jax.lax.dynamic_update_slice_in_dim(every, word, cut.first, 0)[: cut.blocks]
    whole = jax.lax.bitcast_convert_type(jax.lax.pmax(every, axes), jnp.float32)
    return mesh_axes.part(whole, axes) if cut.divides else whole


def spread(numbers: jax.Array, like: jax.Array, block: int, axes: Axes = ()) -> jax.Array:
    """The numbers of blocks, once for each entry of an array; `axes` as in `largest`."""
    n, cut = like.shape[-1], _cut(like.shape, block, axes)
    if cut is None:
        wide = _repeated(numbers, min(block, n))
        return beside(wide if wide.shape[-1] == n else wide[..., :n], like)
    every = mesh_axes.whole(numbers, axes) if cut.divides else numbers
    every = jnp.pad(every, (0, cut.touched))
    mine = jax.lax.dynamic_slice_in_dim(every, cut.first, cut.touched)
    return jax.lax.dynamic_slice_in_dim(_repeated(mine, cut.block), cut.offset, n)


class Cut:
    """Where a part of a vector lies among the vector's blocks.

    Attributes:
      block: entries of a block.
      blocks: the vector's blocks.
      touched: the most blocks that a part has entries of.
      divides: whether the blocks divide into the parts.
      first: the first block that this part has entries of, int32 ().
      offset: the entries of it that are another part's, int32 ().
    """

    def __init__(self, n: int, block: int, axes: Axes) -> None:
        parts = math.prod(map(jax.lax.axis_size, axes))
        start = jax.lax.axis_index(axes) * n
        self.block = min(block, n * parts)
        self.blocks = -(-n * parts // self.block)
        self.touched = -(-n // self.block) + 1
        self.divides = self.blocks % parts == 0
        self.first, self.offset = start // self.block, start % self.block


def _cut(shape: tuple[int, ...], block: int, axes: Axes) -> Cut | None:
    """For a part of a vector whose blocks the parts cut; None where each has whole blocks."""
    whole = not axes or len(shape) != 1 or shape[0] % block == 0
    return None if whole else Cut(shape[0], block, axes)


def _largest(minus: jax.Array, block: int, unsigned: bool) -> jax.Array:
    """By the bits: NaN is above infinity.

    In two steps, of which the first fuses with what computes its argument: a CPU compiler takes a
    reduction of floats, or of more than 32 entries, for a program of its own.
    """
    word = jax.lax.bitcast_convert_type(minus, jnp.uint32) & np.uint32(0x7FFFFFFF)
    if unsigned:
        word = jnp.where(minus > 0, np.uint32(0x7FC00000), word)
    n = word.shape[-1]
    blocks, parts = -(-n // block), -(-block // 32)
    size = -(-block // parts)
    if blocks * block != n:
        word = pad_last(word, blocks * block)
    word = split_last(word, blocks, block)
    if parts * size != block:
        word = pad_last(word, parts * size)
    word = split_last(word, parts, size)
    partial = jax.lax.bitcast_convert_type(jnp.max(word, axis=-1), jnp.float32)
    return jnp.max(partial, axis=-1)


def _repeated(numbers: jax.Array, block: int) -> jax.Array:
    return merge_last(jnp.broadcast_to(numbers[..., None], (*numbers.shape, block)))
