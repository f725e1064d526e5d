"""SM3: Adagrad in the memory of a few vectors, one along each axis of a leaf.

    ν(i) ← min over the axes of μ_axis(i) + g(i)²
    μ_axis ← max of ν over all other axes
    m ← βm + (1−β) g / √(ν + ε)
    θ ← θ − ηm

ν is never less than Adagrad's sum of squares, and for entries that are large together near it.

Good for: embeddings and large sparse layers when memory is short.
Caveat: like Adagrad's, the rates only fall; with `b2` below 1 they do not
(ν ← β₂ min μ + (1−β₂)g²). This is the paper's SM3-II with ε inside the root, as optax has it.
Memory: one value per parameter for m, none with momentum=0; for an (m, n) leaf m + n more.
Source: Anil et al. 2019, arXiv 1901.11150.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import mesh_axes, reductions, tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.fusion import recompute
from fnopt.hyperparameters import Decay, Fraction, LearningRate, NonNegative
from fnopt.transforms.factored import largest_root
from fnopt.transforms.scaling import scale_by_learning_rate


class Sm3State(NamedTuple):
    """μ, a dict `axis_0`, ... for each leaf, with size 1 along the other axes; m, like the params.

    m is None for a static decay of 0.
    """

    axis_bounds: Any
    mu: Any


def axes_of(p: jax.Array) -> dict[str, tuple[int, ...]]:
    """For each accumulator of a leaf the axes that it is a maximum over."""
    if p.ndim < 2:
        return {"axis_0": ()}
    return {f"axis_{i}": tuple(j for j in range(p.ndim) if j != i) for i in range(p.ndim)}


@gradient_transformation
def scale_by_sm3(
    b1: Decay = 0.9,
    b2: Fraction = 1.0,
    eps: NonNegative = 1e-8,
    *,
    axis_name: Any = None,
) -> Any:
    """u ← m, with m ← β₁m + (1−β₁) u / √(ν + ε).

    Args:
      b1: β₁ in [0, 1), the decay of the mean. A static 0 keeps no mean.
      b2: β₂ in [0, 1]: 1 adds up squares, less averages them.
      eps: ε, inside the root.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension.

    Memory: one value per parameter, none with b1=0; for an (m, n) leaf m + n more.
    """
    no_mean = tree.is_static_zero(b1)
    gain = jnp.where(b2 < 1, 1 - b2, 1.0) if isinstance(b2, jax.Array) else (1 - b2 or 1.0)

    def init(params: Any) -> Sm3State:
        def zeros(p: jax.Array) -> dict[str, jax.Array]:
            axes = axes_of(p).items()
            return {name: reductions.reduced_zeros(p, over, axis_name) for name, over in axes}

        return Sm3State(jax.tree.map(zeros, params), None if no_mean else tree.zeros_like(params))

    def step(g: jax.Array, old: dict[str, jax.Array], m: Any) -> tuple[Any, ...]:
        def bound(square: jax.Array, b2: Any, gain: Any, *old: jax.Array) -> jax.Array:
            return b2 * functools.reduce(jnp.minimum, old) + gain * square

        def again(g: jax.Array, most: Any, reader: Any, *rest: Any) -> jax.Array:
            return bound(jnp.square(jnp.minimum(jnp.maximum(g, -most), most)), *rest)

        rest = (b2, gain, *old.values())
        most = largest_root(g)
        v = bound(tree.squared(g), *rest)
        new = {}
        for name, over in axes_of(g).items():
            # computed again for each reader, so that ν is never stored
            one = v if jnp.iscomplexobj(g) else recompute(again, g, most, old[name], *rest)
            largest = reductions.axis_max(one, over, axis_name) if over else v
            new[name] = mesh_axes.vary(largest, mesh_axes.varying(old[name]))
        u = tree.saturate(g) / tree.sqrt(v + eps)
        m = u if m is None else b1 * m + (1 - b1) * u
        return m, new, m

    def update(updates: Any, state: Sm3State) -> Any:
        mu = tree.nones_like(updates) if no_mean else state.mu
        updates, new, mu = tree.map(step, updates, state.axis_bounds, mu, outputs=3)
        return updates, Sm3State(new, None if no_mean else mu)

    return init, update


@composition
def sm3(
    learning_rate: LearningRate,
    momentum: Decay = 0.9,
    *,
    axis_name: Any = None,
) -> GradientTransformation:
    """SM3, for embeddings and other large sparse leaves.

    Args:
      learning_rate: η ≥ 0.
      momentum: β in [0, 1), the decay of the mean of the steps.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension.

    >>> import fnopt
    >>> fnopt.sm3(0.1)
    sm3(learning_rate=0.1, momentum=0.9)
    """
    return chain(scale_by_sm3(momentum, axis_name=axis_name), scale_by_learning_rate(learning_rate))
