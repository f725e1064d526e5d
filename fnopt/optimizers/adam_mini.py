"""Adam-mini: Adam with one second moment for a whole block of parameters.

    m ← β₁m + (1−β₁)g                 m̂ = m / (1−β₁ᵗ)
    v ← β₂v + (1−β₂) mean(g²)         v̂ = v / (1−β₂ᵗ)      the mean over each block
    θ ← θ − η (m̂ / (√v̂ + ε) + λθ)

A block should be a dense part of the Hessian: an attention head of queries and keys, a token's
row of an embedding, an output unit of any other matrix. No names are guessed: `blocks` declares
them, as a function of a leaf's path and shape that returns how many blocks lie along each axis.

    def blocks(name, shape):
        if name.endswith("embedding"):               # (tokens, width)
            return shape[0], 1
        if name.endswith(("query", "key")):          # (width, heads · size)
            return 1, 16
        return output_units(name, shape)

Good for: language models at half of AdamW's memory, by its authors' tests.
Caveat: the default takes every matrix for a kernel (…, in, out). The decay is scaled by the rate.
Memory: one value per parameter and one per block; vectors two per parameter.
Source: Zhang et al. 2024, arXiv 2406.16793.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import mesh_axes, tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Decay, LearningRate, NonNegative
from fnopt.transforms.decay import add_decayed_weights
from fnopt.transforms.factored import squares_for
from fnopt.transforms.scaling import scale_by_learning_rate

Shape = tuple[int, ...]


class AdamMiniState(NamedTuple):
    """The count, int32 (); m, like the params, or None; v, real, of the params' ranks."""

    count: Any
    mu: Any
    nu: Any


def output_units(name: str, shape: Shape) -> Shape:
    """One block for each index of the last axis of a kernel; each entry of a vector is one."""
    return shape if len(shape) < 2 else (1,) * (len(shape) - 1) + shape[-1:]


def _counts(blocks: Callable[[str, Shape], Any], path: Any, shape: Shape) -> Shape:
    name = tree.path_name(path)
    counts = tuple(blocks(name, shape))
    fits = len(counts) == len(shape) and all(
        c == 1 or (c > 0 and n % c == 0) or c == n for c, n in zip(counts, shape)
    )
    if not fits:
        raise ValueError(
            f"scale_by_adam_mini: blocks({name!r}, {shape}) is {counts}: it must have a number for "
            "each axis that divides the axis"
        )
    return counts


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Blocks:
    """A leaf's blocks on a device.

    Attributes:
      counts: how many lie along each axis.
      axes: the mesh axes over which the parts lie that cut them along the first axis, where every
        device has the numbers of all of these; () where each part has whole blocks.
    """

    counts: Shape
    axes: tuple[Any, ...]

    @property
    def whole(self) -> bool:
        """Whether the first axis has one block, over all parts."""
        return self.counts[:1] == (1,)


def _blocks(blocks: Callable[[str, Shape], Any], path: Any, p: Any, axis_name: Any) -> _Blocks:
    counts = _counts(blocks, path, mesh_axes.whole_shape(p, axis_name))
    parts = mesh_axes.parts(p, axis_name)
    if not p.ndim or counts[0] % parts == 0:
        return _Blocks((counts[0] // parts, *counts[1:]) if p.ndim else (), ())
    return _Blocks(counts, mesh_axes.split_axes(p, axis_name))


def _rows(n: int, b: _Blocks) -> jax.Array:
    """The block along the first axis that each row of a part lies in."""
    parts = math.prod(map(jax.lax.axis_size, b.axes))
    start = jax.lax.axis_index(b.axes) * n
    return (start + jnp.arange(n)) // (n * parts // b.counts[0])


def _mean(x: jax.Array, b: _Blocks) -> jax.Array:
    """The mean over each block, of shape `counts`."""
    if not b.axes:
        size = max(x.size // max(math.prod(b.counts), 1), 1)
        return _sum(x, b.counts) / size
    size = max(x.size * mesh_axes.parts(x, b.axes) // max(math.prod(b.counts), 1), 1)
    if b.whole:
        total = _sum(x, b.counts)
    else:
        rows = _sum(x, (x.shape[0], *b.counts[1:]))
        total = jnp.zeros(b.counts, x.dtype).at[_rows(x.shape[0], b)].add(rows)
    return jax.lax.psum(total, b.axes) / size


def _sum(x: jax.Array, counts: Shape) -> jax.Array:
    if all(c in (1, n) for c, n in zip(counts, x.shape)):
        axes = tuple(i for i, c in enumerate(counts) if c == 1)
        return x.sum(axis=axes, keepdims=True)
    apart = x.reshape([k for c, n in zip(counts, x.shape) for k in (c, n // c)])
    return apart.sum(axis=tuple(range(1, 2 * x.ndim, 2)))


def _spread(v: jax.Array, shape: Shape, b: _Blocks) -> jax.Array:
    """Each block's number at all of its entries, or in a form that broadcasts to them."""
    if b.axes and not b.whole:
        v = v[_rows(shape[0], b)]
    if all(c in (1, n) for c, n in zip(v.shape, shape)):
        return v
    apart = v.reshape([k for c in v.shape for k in (c, 1)])
    return jnp.broadcast_to(
        apart, [k for c, n in zip(v.shape, shape) for k in (c, n // c)]
    ).reshape(shape)


@gradient_transformation
def scale_by_adam_mini(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    *,
    blocks: Callable[[str, Shape], Any] = output_units,
    axis_name: Any = None,
) -> Any:
    """u ← m̂ / (√v̂ + ε), with one v for each block.

    Args:
      b1: β₁ in [0, 1), the decay of the mean. A static 0 keeps no mean.
      b2: β₂ in [0, 1), the decay of the blocks' mean squares.
      eps: ε, outside the root.
      blocks: (path as "layer/kernel", shape) -> the number of blocks along each axis.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension; `blocks` is still given the shapes of whole leaves.

    Memory: one value per parameter and one per block.

    Raises:
      ValueError: in `init`, where the blocks do not divide a leaf.
    """
    no_mean = tree.is_static_zero(b1)

    def init(params: Any) -> AdamMiniState:
        def moment(path: Any, p: jax.Array) -> jax.Array:
            b = _blocks(blocks, path, p, axis_name)
            zeros = jnp.zeros(b.counts, jnp.finfo(p.dtype).dtype)
            return mesh_axes.vary(zeros, mesh_axes.varying(p) - {*b.axes})

        mu = None if no_mean else tree.zeros_like(params)
        return AdamMiniState(
            tree.zero_count(), mu, jax.tree_util.tree_map_with_path(moment, params)
        )

    def update(updates: Any, state: AdamMiniState) -> Any:
        t = tree.increment(state.count)
        c1 = tree.debias(b1, t)
        c2 = tree.debias(b2, t)

        def step(g: jax.Array, m: jax.Array | None, v: jax.Array, b: _Blocks) -> tuple[Any, ...]:
            v = b2 * v + (1 - b2) * _mean(squares_for(g, v), b)
            g = tree.saturate(g)
            m = g if m is None else b1 * m + (1 - b1) * g
            return c1 * m / _spread(tree.sqrt(c2 * v) + eps, g.shape, b), m, v

        def found(path: Any, g: jax.Array, v: jax.Array) -> _Blocks:
            told = axis_name is not None
            return _blocks(blocks, path, g, axis_name) if told else _Blocks(v.shape, ())

        mu = tree.nones_like(updates) if no_mean else state.mu
        each = jax.tree_util.tree_map_with_path(found, updates, state.nu)
        updates, mu, nu = tree.map(step, updates, mu, state.nu, each, outputs=3)
        return updates, AdamMiniState(t, None if no_mean else mu, nu)

    return init, update


@composition
def adam_mini(
    learning_rate: LearningRate,
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    blocks: Callable[[str, Shape], Any] = output_units,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
    axis_name: Any = None,
) -> GradientTransformation:
    """Adam-mini.

    Args:
      learning_rate: η ≥ 0.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      eps: ε, outside the root.
      blocks: (path as "layer/kernel", shape) -> the number of blocks along each axis.
      weight_decay: λ ≥ 0, multiplied by the learning rate.
      mask: which leaves decay: a tree of bools with the params' structure or a prefix of it, or a
        function of the params that returns one.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension; `blocks` is still given the shapes of whole leaves.

    >>> import fnopt
    >>> fnopt.adam_mini(1e-3).arguments.arguments["blocks"].__name__
    'output_units'
    """
    return chain(
        scale_by_adam_mini(b1, b2, eps, blocks=blocks, axis_name=axis_name),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
