"""MADGRAD: dual averaging with Adagrad's scaling by a cube root, and momentum as an average.

    λₜ = (η + ε) √t
    s ← s + λg;   v ← v + λg²
    z = θ₀ − s / (∛v + ε)
    θ ← βθ + (1−β)z − ηwθ                      w: weight decay

Made to do as well as SGD with momentum on images and as Adam on language.

Good for: images, by its authors' tests: as SGD with momentum, with less tuning of the schedule.
Caveat: use a rate other than SGD's or Adam's, and often less weight decay. The decay is
decoupled and scaled by the rate (the authors' `decouple_decay`); their default and optax add wθ
to g. A jump of the rate keeps its past: old gradients have the weight of their own step. θ₀ is kept
without momentum too, where the authors recover it from θ, which is rounded in low precision.
Memory: three values per parameter.
Source: Defazio and Jelassi 2021, arXiv 2101.11075, and the authors' code, which adds ε to η.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Decay, LearningRate, NonNegative
from fnopt.masks import chosen


class MadgradState(NamedTuple):
    """The count, int32 (); v, real; s and θ₀: like the params."""

    count: Any
    weighted_squares: Any
    gradient_sum: Any
    start: Any


@gradient_transformation
def scale_by_madgrad(
    learning_rate: LearningRate,
    momentum: Decay = 0.9,
    eps: NonNegative = 1e-6,
    *,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
) -> Any:
    """u ← (1−β)(z − θ) − ηwθ, ready to be added.

    Args:
      learning_rate: η ≥ 0.
      momentum: β in [0, 1).
      eps: ε, outside the root, and added to η.
      weight_decay: w ≥ 0.
      mask: which leaves decay: a tree of bools with the params' structure or a prefix of it, or a
        function of the params that returns one.

    Memory: three values per parameter.
    """
    no_decay = tree.is_static_zero(weight_decay)

    def init(params: Any) -> MadgradState:
        zeros = tree.real_zeros_like(params), tree.zeros_like(params)
        return MadgradState(tree.zero_count(), *zeros, params)

    def offset(s: jax.Array, v: jax.Array) -> jax.Array:
        return s / (jnp.cbrt(jnp.maximum(v, float(jnp.finfo(v.dtype).tiny))) + eps)

    def update(updates: Any, state: MadgradState, params: Any) -> Any:
        count = tree.increment(state.count)
        weight = (learning_rate + eps) * jnp.sqrt(tree.weak(count.astype(jnp.result_type(float))))

        def step(g: Any, v: Any, s: Any, x0: Any, p: Any, decay_on: Any) -> tuple[Any, ...]:
            v = v + weight * tree.squared(g)
            s = s + weight * tree.saturate(g)
            u = (1 - momentum) * ((x0 - offset(s, v)) - p)
            if decay_on is not None and not no_decay:
                u = u - (learning_rate * weight_decay) * p
            return u, v, s

        marks = jax.tree.map(lambda on: on or None, chosen(mask, params))
        old = (state.weighted_squares, state.gradient_sum, state.start, params, marks)
        updates, v, s = tree.map(step, updates, *old, outputs=3)
        return updates, MadgradState(count, v, s, state.start)

    return init, update


@composition
def madgrad(
    learning_rate: LearningRate,
    momentum: Decay = 0.9,
    weight_decay: NonNegative = 0.0,
    eps: NonNegative = 1e-6,
    *,
    mask: Any = None,
) -> GradientTransformation:
    """MADGRAD.

    Args:
      learning_rate: η ≥ 0.
      momentum: β in [0, 1).
      weight_decay: w ≥ 0, multiplied by the learning rate.
      eps: ε, outside the root, and added to η.
      mask: which leaves decay: a tree of bools with the params' structure or a prefix of it, or a
        function of the params that returns one.

    >>> import fnopt
    >>> fnopt.madgrad(1e-2)
    madgrad(learning_rate=0.01, momentum=0.9, weight_decay=0.0, eps=1e-06)
    """
    return chain(
        scale_by_madgrad(learning_rate, momentum, eps, weight_decay=weight_decay, mask=mask)
    )
