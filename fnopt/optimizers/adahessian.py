"""AdaHessian: Adam that divides by the Hessian's diagonal instead of the gradient's size.

    D = z ⊙ Hz, z of random signs      then |D| averaged over each output unit of a kernel
    m ← β₁m + (1−β₁)g                 m̂ = m / (1−β₁ᵗ)
    v ← β₂v + (1−β₂)D²                v̂ = v / (1−β₂ᵗ)
    θ ← θ − η (m̂ / (√v̂ᵏ + ε) + λθ)

D is an extra argument, so that it can be computed on the batch, the mesh and in the dtypes of the
caller's choice; `hutchinson` is the usual estimate.

    diagonal = hutchinson(loss, params, key)
    updates, state = optimizer.update(gradients, state, params, hessian=diagonal)

Good for: small, ill-conditioned models that can afford a product with the Hessian at each step.
Caveat: a product with the Hessian costs about two gradients. Matrices are taken for (in, out) and
averaged over the inputs, larger kernels for convolutions (window, in, out) and averaged over the
window: a stack of matrices needs `spatial_averaging=False`. The decay is scaled by the rate.
Memory: one value per parameter and one per output unit (of a convolution, per input and output);
vectors two per parameter.
Source: Yao et al. 2020, arXiv 2006.00719.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import leaves, mesh_axes, reductions, tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Decay, Fraction, LearningRate, NonNegative
from fnopt.transforms.decay import add_decayed_weights
from fnopt.transforms.scaling import scale_by_learning_rate


class AdaHessianState(NamedTuple):
    """The count, int32 (); m, like the params, or None; v, real, of the params' ranks."""

    count: Any
    mu: Any
    nu: Any


def hutchinson(
    value_fn: Callable[[Any], jax.Array], params: Any, key: jax.Array, *, axis_name: Any = None
) -> Any:
    """z ⊙ Hz for z of random signs: its expectation is the diagonal of the Hessian H.

    Args:
      value_fn: params -> scalar, twice differentiable.
      params: real; leaves that are not float arrays are left alone and get None.
      key: a PRNG key, another for each call.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension: each device draws z for the whole leaf and keeps its part. Without it
        all parts of a leaf have the same signs, and the estimate is off.
    """
    every, treedef = leaves.flatten(params)
    live = [leaves.is_inexact(x) for x in every]

    def value(chosen: list[Any]) -> jax.Array:
        rest = iter(chosen)
        return value_fn(treedef.unflatten(next(rest) if on else x for x, on in zip(every, live)))

    point = [jnp.asarray(x) for x, on in zip(every, live) if on]
    signs = random_signs(key, point, axis_name)
    products = iter(tree.map(jnp.multiply, signs, jax.jvp(jax.grad(value), (point,), (signs,))[1]))
    return treedef.unflatten(next(products) if on else None for on in live)


def random_signs(key: jax.Array, like: list[jax.Array], axis_name: Any = None) -> list[jax.Array]:
    """±1 at random, in the shapes, dtypes and shardings of `like`, from one bit for each.

    `axis_name` as in `hutchinson`.
    """
    counts = [-(-x.size * mesh_axes.parts(x, axis_name) // 32) for x in like]
    words = jax.random.bits(key, (sum(counts), 1), jnp.uint32)

    def unpack(x: jax.Array, words: jax.Array) -> jax.Array:
        bits = (words >> jnp.arange(32, dtype=jnp.uint32)[None, :]) & jnp.uint32(1)
        shape = mesh_axes.whole_shape(x, axis_name)
        signs = 1 - 2 * bits.astype(jnp.int8).reshape(-1)[: math.prod(shape)].reshape(shape)
        signs = mesh_axes.part(signs, mesh_axes.split_axes(x, axis_name) if x.ndim else ())
        return jnp.ones_like(x) * signs.astype(x.dtype)

    ends = itertools.accumulate(counts)
    return [unpack(x, words[end - n : end]) for x, n, end in zip(like, counts, ends)]


def unit_axes(ndim: int) -> tuple[int, ...]:
    """The axes to average over: a kernel's inputs, a convolution's window; none of a vector."""
    if ndim < 2:
        return ()
    return (0,) if ndim < 4 else tuple(range(ndim - 2))


@gradient_transformation
def scale_by_adahessian(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-4,
    *,
    hessian_power: Fraction = 1.0,
    spatial_averaging: bool = True,
    axis_name: Any = None,
) -> Any:
    """u ← m̂ / (√v̂ᵏ + ε); `update` needs `hessian=`, a tree like the updates.

    Args:
      b1: β₁ in [0, 1), the decay of the mean. A static 0 keeps no mean.
      b2: β₂ in [0, 1), the decay of the mean square of D.
      eps: ε, outside the root.
      hessian_power: k in [0, 1]; at 0 it is momentum.
      spatial_averaging: average |D| over the inputs of each output unit.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension.

    Memory: one value per parameter and one per output unit, or two per parameter.
    """
    no_mean = tree.is_static_zero(b1)

    def init(params: Any) -> AdaHessianState:
        def moment(p: jax.Array) -> jax.Array:
            axes = unit_axes(p.ndim) if spatial_averaging else ()
            return reductions.reduced_zeros(p, axes, axis_name)

        mu = None if no_mean else tree.zeros_like(params)
        return AdaHessianState(tree.zero_count(), mu, jax.tree.map(moment, params))

    def update(updates: Any, state: AdaHessianState, *, hessian: Any) -> Any:
        names = "hessian", "updates"
        leaves.require_same_structure("scale_by_adahessian", names, hessian, updates)
        hessian = leaves.clean(hessian, updates)
        leaves.require_same_shapes("scale_by_adahessian", hessian, updates)
        t = tree.increment(state.count)
        c1 = tree.debias(b1, t)
        c2 = tree.debias(b2, t)
        plain = isinstance(hessian_power, float) and hessian_power == 1.0

        def step(g: jax.Array, d: jax.Array, m: jax.Array | None, v: jax.Array) -> tuple[Any, ...]:
            axes = unit_axes(g.ndim) if spatial_averaging else ()
            size = jnp.abs(tree.saturate(d))
            if axes and g.size:
                size = reductions.axis_mean(size, axes, axis_name)
            v = b2 * v + (1 - b2) * tree.squared(size if g.size else v)
            g = tree.saturate(g)
            m = g if m is None else b1 * m + (1 - b1) * g
            root = tree.sqrt(c2 * v)
            return c1 * m / ((root if plain else root**hessian_power) + eps), m, v

        mu = tree.nones_like(updates) if no_mean else state.mu
        updates, mu, nu = tree.map(step, updates, hessian, mu, state.nu, outputs=3)
        return updates, AdaHessianState(t, None if no_mean else mu, nu)

    return init, update


@composition
def adahessian(
    learning_rate: LearningRate,
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-4,
    hessian_power: Fraction = 1.0,
    spatial_averaging: bool = True,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
    axis_name: Any = None,
) -> GradientTransformation:
    """AdaHessian; `update` needs `hessian=`, of `hutchinson` for example.

    Args:
      learning_rate: η ≥ 0; the authors take 0.15 for images.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      eps: ε, outside the root.
      hessian_power: k in [0, 1].
      spatial_averaging: average |D| over the inputs of each output unit.
      weight_decay: λ ≥ 0, multiplied by the learning rate.
      mask: which leaves decay: a tree of bools with the params' structure or a prefix of it, or a
        function of the params that returns one.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension.

    >>> import fnopt
    >>> fnopt.adahessian(0.15).arguments.arguments["hessian_power"]
    1.0
    """
    return chain(
        scale_by_adahessian(
            b1,
            b2,
            eps,
            hessian_power=hessian_power,
            spatial_averaging=spatial_averaging,
            axis_name=axis_name,
        ),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
