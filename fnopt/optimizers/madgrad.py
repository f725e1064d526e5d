"""MADGRAD: dual averaging with Adagrad's scaling by a cube root, and momentum as an average.

    λₜ = (η + ε) √t
    s ← s + λg;   v ← v + λg²
    z = θ₀ − s / (∛v + ε)
    θ ← βθ + (1−β)z − ηwθ                      w: weight decay

Made to do as well as SGD with momentum on images and as Adam on language.

Good for: images, by its authors' tests: as SGD with momentum, with less tuning of the schedule.
Caveat: use a rate other than SGD's or Adam's, and often less weight decay. The decay is
decoupled and scaled by the rate (the authors' `decouple_decay`); their default and optax add wθ
to g. A jump of the rate keeps its past: old gradients have the weight of their own step.
Memory: three values per parameter; two with momentum=0.
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
    """The count, int32 (); v, real, s and θ₀, like the params.

    θ₀ is None for a static momentum of 0.
    """

    count: Any
    grad_sum_sq: Any
    s: Any
    x0: Any


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
      momentum: β in [0, 1). A static 0 keeps no start values.
      eps: ε, outside the root, and added to η.
      weight_decay: w ≥ 0.
      mask: which leaves decay: a tree of bools with the params' structure or a prefix of it, or a
        function of the params that returns one.

    Memory: three values per parameter; two with momentum=0.
    """
    plain, no_decay = tree.is_static_zero(momentum), tree.is_static_zero(weight_decay)

    def init(params: Any) -> MadgradState:
        start = None if plain else jax.tree.map(lambda p: jnp.array(p, copy=True), params)
        zeros = tree.real_zeros_like(params), tree.zeros_like(params)
        return MadgradState(tree.zero_count(), *zeros, start)

    def offset(s: jax.Array, v: jax.Array) -> jax.Array:
        return s / (jnp.cbrt(jnp.maximum(v, float(jnp.finfo(v.dtype).tiny))) + eps)

    def update(updates: Any, state: MadgradState, params: Any) -> Any:
        count = tree.increment(state.count)
        weight = (learning_rate + eps) * jnp.sqrt(tree.weak(count.astype(jnp.result_type(float))))

        def step(g: Any, v: Any, s: Any, x0: Any, p: Any, decay_on: Any) -> tuple[Any, ...]:
            before = offset(s, v) if plain else x0
            v = v + weight * tree.squared(g)
            s = s + weight * tree.saturate(g)
            u = before - offset(s, v)
            if not plain:
                u = (1 - momentum) * (u - p)
            if decay_on is not None and not no_decay:
                u = u - (learning_rate * weight_decay) * p
            return u, v, s

        start = tree.nones_like(updates) if plain else state.x0
        marks = jax.tree.map(lambda on: on or None, chosen(mask, params))
        old = (state.grad_sum_sq, state.s, start, params, marks)
        updates, v, s = tree.map(step, updates, *old, outputs=3)
        return updates, MadgradState(count, v, s, state.x0)

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
