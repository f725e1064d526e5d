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

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import tree
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


def _counts(blocks: Callable[[str, Shape], Any], path: Any, p: Any) -> Shape:
    name, shape = tree.path_name(path), tuple(p.shape)
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


def _mean(x: jax.Array, counts: Shape) -> jax.Array:
    """The mean over each block, of shape `counts`."""
    size = max(x.size // max(math.prod(counts), 1), 1)
    if all(c in (1, n) for c, n in zip(counts, x.shape)):
        axes = tuple(i for i, c in enumerate(counts) if c == 1)
        return x.sum(axis=axes, keepdims=True) / size
    apart = x.reshape([k for c, n in zip(counts, x.shape) for k in (c, n // c)])
    return apart.sum(axis=tuple(range(1, 2 * x.ndim, 2))) / size


def _spread(v: jax.Array, shape: Shape) -> jax.Array:
    """Each block's number at all of its entries, or in a form that broadcasts to them."""
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
) -> Any:
    """u ← m̂ / (√v̂ + ε), with one v for each block.

    Args:
      b1: β₁ in [0, 1), the decay of the mean. A static 0 keeps no mean.
      b2: β₂ in [0, 1), the decay of the blocks' mean squares.
      eps: ε, outside the root.
      blocks: (path as "layer/kernel", shape) -> the number of blocks along each axis.

    Memory: one value per parameter and one per block.

    Raises:
      ValueError: in `init`, where the blocks do not divide a leaf.
    """
    no_mean = tree.is_static_zero(b1)

    def init(params: Any) -> AdamMiniState:
        def moment(path: Any, p: jax.Array) -> jax.Array:
            return jnp.zeros(_counts(blocks, path, p), jnp.finfo(p.dtype).dtype)

        mu = None if no_mean else tree.zeros_like(params)
        return AdamMiniState(
            tree.zero_count(), mu, jax.tree_util.tree_map_with_path(moment, params)
        )

    def update(updates: Any, state: AdamMiniState) -> Any:
        t = tree.increment(state.count)
        c1 = tree.debias(b1, t)
        c2 = tree.debias(b2, t)

        def step(g: jax.Array, m: jax.Array | None, v: jax.Array) -> tuple[Any, ...]:
            v = b2 * v + (1 - b2) * _mean(squares_for(g, v), v.shape)
            g = tree.saturate(g)
            m = g if m is None else b1 * m + (1 - b1) * g
            return c1 * m / _spread(tree.sqrt(c2 * v) + eps, g.shape), m, v

        mu = tree.nones_like(updates) if no_mean else state.mu
        updates, mu, nu = tree.map(step, updates, mu, state.nu, outputs=3)
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

    >>> import fnopt
    >>> fnopt.adam_mini(1e-3).arguments.arguments["blocks"].__name__
    'output_units'
    """
    return chain(
        scale_by_adam_mini(b1, b2, eps, blocks=blocks),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
