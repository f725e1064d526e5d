"""MARS: AdamW and Lion on gradients with their variance reduced by the last gradient.

    c = g + γ β₁/(1−β₁) (g − g₋₁);   c ← c / max(1, ‖c‖)           the norm over each leaf
    m ← β₁m + (1−β₁)c
    v ← β₂v + (1−β₂)c²;   θ ← θ − η (m̂ / (√v̂ + ε) + λθ)            mars_adamw
    θ ← θ − η (sign(m) + λθ)                                       mars_lion

Vectors and scalars take Adam's step with decays of their own, unless `optimize_1d`.

Good for: language models: among the leaders of an independent comparison (arXiv 2509.01440).
Caveat: g₋₁ is zero at the first step, as in the authors' code, so c starts 1 + γβ₁/(1−β₁) times
too long before its norm is bounded. This is the authors' approximate form: g₋₁ is the gradient of
the last batch, not that of this batch at the last parameters. Vectors have the same rate and
decay here; the authors' code has a decay of 0.1 for them, and takes every leaf that has not just
two dimensions for a vector.
Memory: mars_adamw three values per parameter, mars_lion two; for vectors and scalars two.
Source: Yuan et al. 2024, arXiv 2411.10438, and the authors' code.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import reductions, tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.fusion import overwrite_after, recompute
from fnopt.hyperparameters import Decay, LearningRate, NonNegative
from fnopt.transforms.decay import add_decayed_weights
from fnopt.transforms.factored import largest_root
from fnopt.transforms.scaling import scale_by_learning_rate


class MarsState(NamedTuple):
    """The count, int32 (); m, like the params; v, real, like them; the last gradient, like them.

    None stands for v where the sign is taken, and for the last gradient of vectors and scalars.
    """

    count: Any
    mu: Any
    nu: Any
    last: Any


def correct(
    g: jax.Array,
    last: jax.Array,
    factor: Any,
    axes: tuple[int, ...] | None = None,
    axis_name: Any = None,
) -> jax.Array:
    """c = g + factor · (g − last), its norm at most 1: over the leaf, or over some axes of it."""

    def raw(g: Any, last: Any, factor: Any, most: Any) -> Any:
        if not jnp.iscomplexobj(g):
            g, last = (jnp.minimum(jnp.maximum(x, -most), most) for x in (g, last))
        return g + factor * (g - last)

    c = recompute(raw, g, last, factor, largest_root(g))
    whole = lambda: tree.weak(reductions.norm([c], axis_name))
    norm = reductions.axis_norm(c, axes, axis_name) if axes else whole()
    g, last = tree.saturate(g), tree.saturate(last)
    return (1 / jnp.maximum(norm, 1.0)) * (g + factor * (g - last))


@gradient_transformation
def scale_by_mars(
    *,
    b1: Decay = 0.95,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-8,
    gamma: NonNegative = 0.025,
    sign: bool = False,
    optimize_1d: bool = False,
    b1_1d: Decay = 0.9,
    b2_1d: Decay = 0.95,
    axis_name: Any = None,
) -> Any:
    """u ← Adam's step of c, or the sign of its mean.

    Args:
      b1: β₁ in [0, 1), the decay of the mean.
      b2: β₂ in [0, 1), the decay of the mean square.
      eps: ε, outside the root.
      gamma: γ ≥ 0, how much of the gradient's change is added.
      sign: take the mean's sign, as Lion does; then b2 is not read.
      optimize_1d: treat vectors and scalars as all other leaves.
      b1_1d: β₁ of vectors and scalars.
      b2_1d: β₂ of vectors and scalars.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split.

    Memory: three values per parameter, two with `sign`; for vectors and scalars two.
    """

    def corrects(p: jax.Array) -> bool:
        return optimize_1d or p.ndim > 1

    def init(params: Any) -> MarsState:
        def squares(p: jax.Array) -> Any:
            return None if sign and corrects(p) else tree.real_zeros_like(p)

        last = jax.tree.map(lambda p: jnp.zeros_like(p) if corrects(p) else None, params)
        nu = jax.tree.map(squares, params)
        return MarsState(tree.zero_count(), tree.zeros_like(params), nu, last)

    def update(updates: Any, state: MarsState) -> Any:
        t = tree.increment(state.count)
        factor = gamma * b1 / (1 - b1)
        matrices = (b1, b2, tree.debias(b1, t), tree.debias(b2, t))
        c1_1d, c2_1d = tree.bias_correction(b1_1d, t), tree.bias_correction(b2_1d, t)
        vectors = (b1_1d, b2_1d, 1 / c1_1d, 1 / c2_1d)

        def step(g: Any, m: Any, v: Any, last: Any) -> tuple[Any, ...]:
            d1, d2, c1, c2 = vectors if last is None else matrices
            c = tree.saturate(g) if last is None else correct(g, last, factor, None, axis_name)
            m = d1 * m + (1 - d1) * c
            if v is None:
                return jnp.sign(m), m, None, overwrite_after(g, m)
            v = d2 * v + (1 - d2) * tree.squared(g if last is None else c)
            last = None if last is None else overwrite_after(g, m, v)
            return c1 * m / (tree.sqrt(c2 * v) + eps), m, v, last

        updates, mu, nu, last = tree.map(step, updates, state.mu, state.nu, state.last, outputs=4)
        return updates, MarsState(t, mu, nu, last)

    return init, update


@composition
def mars_adamw(
    learning_rate: LearningRate,
    *,
    b1: Decay = 0.95,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-8,
    gamma: NonNegative = 0.025,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
    optimize_1d: bool = False,
    b1_1d: Decay = 0.9,
    b2_1d: Decay = 0.95,
    axis_name: Any = None,
) -> GradientTransformation:
    """MARS with AdamW's step.

    Args:
      learning_rate: η ≥ 0; the authors' is 3e-3.
      b1: β₁ in [0, 1), the decay of the mean.
      b2: β₂ in [0, 1), the decay of the mean square.
      eps: ε, outside the root.
      gamma: γ ≥ 0, how much of the gradient's change is added.
      weight_decay: λ ≥ 0, multiplied by the learning rate.
      mask: which leaves decay: a tree of bools with the params' structure or a prefix of it, or a
        function of the params that returns one.
      optimize_1d: treat vectors and scalars as all other leaves.
      b1_1d: β₁ of vectors and scalars.
      b2_1d: β₂ of vectors and scalars.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split.

    >>> import fnopt
    >>> fnopt.mars_adamw(3e-3).name
    'mars_adamw'
    """
    rule = scale_by_mars(
        b1=b1,
        b2=b2,
        eps=eps,
        gamma=gamma,
        optimize_1d=optimize_1d,
        b1_1d=b1_1d,
        b2_1d=b2_1d,
        axis_name=axis_name,
    )
    decay = add_decayed_weights(weight_decay, mask)
    return chain(rule, decay, scale_by_learning_rate(learning_rate))


@composition
def mars_lion(
    learning_rate: LearningRate,
    *,
    b1: Decay = 0.95,
    eps: NonNegative = 1e-8,
    gamma: NonNegative = 0.025,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
    optimize_1d: bool = False,
    b1_1d: Decay = 0.9,
    b2_1d: Decay = 0.95,
    axis_name: Any = None,
) -> GradientTransformation:
    """MARS with the sign of the mean, as in Lion; vectors and scalars take Adam's step.

    Args:
      learning_rate: η ≥ 0.
      b1: β₁ in [0, 1), the decay of the mean.
      eps: ε of Adam's step.
      gamma: γ ≥ 0, how much of the gradient's change is added.
      weight_decay: λ ≥ 0, multiplied by the learning rate.
      mask: which leaves decay: a tree of bools with the params' structure or a prefix of it, or a
        function of the params that returns one.
      optimize_1d: treat vectors and scalars as all other leaves.
      b1_1d: β₁ of vectors and scalars.
      b2_1d: β₂ of vectors and scalars.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split.

    >>> import fnopt
    >>> fnopt.mars_lion(1e-3).name
    'mars_lion'
    """
    rule = scale_by_mars(
        b1=b1,
        eps=eps,
        gamma=gamma,
        sign=True,
        optimize_1d=optimize_1d,
        b1_1d=b1_1d,
        b2_1d=b2_1d,
        axis_name=axis_name,
    )
    decay = add_decayed_weights(weight_decay, mask)
    return chain(rule, decay, scale_by_learning_rate(learning_rate))
