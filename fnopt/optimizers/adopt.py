"""ADOPT: Adam that divides a gradient by what was known before it, and converges for any β₂.

    t = 0:  v ← g²                    no step
    n ← clip(g / max(√v, ε), ±t^¼)    v of the gradients before
    m ← β₁m + (1−β₁)n
    θ ← θ − η (m + λθ)
    v ← β₂v + (1−β₂)g²

Good for: problems on which Adam is unstable and β₂ would have to be tuned.
Caveat: the first call moves nothing and only measures, the decay included, as in the authors'
code. ε bounds the denominator from below instead of being added. There is no bias correction.
Memory: two values per parameter; one with b1=0.
Source: Taniguchi et al. 2024, arXiv 2411.02853, the clipped version of its second edition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.fusion import overwrite_after
from fnopt.hyperparameters import Decay, LearningRate, NonNegative
from fnopt.masks import chosen
from fnopt.storage import StoredMean
from fnopt.transforms.scaling import scale_by_learning_rate


class AdoptState(NamedTuple):
    """The count, int32 (); m, like the params, None for a static b1 of 0; v, real, like them."""

    count: Any
    mu: Any
    nu: Any


def fourth_root(t: Any) -> Any:
    """t^¼, the bound of ADOPT's normalized gradients after t updates."""
    return t**0.25


def _clip(x: jax.Array, bound: Any) -> jax.Array:
    """x within ±bound, by modulus where it is complex."""
    if not jnp.iscomplexobj(x):
        return jnp.minimum(jnp.maximum(x, -bound), bound)
    size = jnp.maximum(jnp.abs(x), float(jnp.finfo(x.dtype).tiny))
    return x * jnp.minimum(bound / size, 1.0)


@gradient_transformation
def scale_by_adopt(
    b1: Decay = 0.9,
    b2: Decay = 0.9999,
    eps: NonNegative = 1e-6,
    mu_dtype: StoredMean = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[Any], Any] = fourth_root,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
) -> Any:
    """u ← m + λθ, m the mean of the normalized gradients; 0 at the first update.

    Args:
      b1: β₁ in [0, 1), the decay of the mean. A static 0 keeps no mean.
      b2: β₂ in [0, 1), the decay of the mean square.
      eps: ε, the least denominator.
      mu_dtype: the dtype or codec that m is stored in, as in `store`; None for the compute dtype.
      nesterov: let the mean look one step ahead.
      use_clipping: bound the normalized gradients.
      clip_value_fn: the bound as a function of the number of updates before.
      weight_decay: λ ≥ 0; it stands here because the first update has none.
      mask: which leaves decay, as in `add_decayed_weights`.

    Memory: two values per parameter; one with b1=0.

    Raises:
      ValueError: in `update`, without params although there is a weight decay.
    """
    no_mean, no_decay = tree.is_static_zero(b1), tree.is_static_zero(weight_decay)

    def init(params: Any) -> AdoptState:
        mu = None if no_mean else tree.zeros_like(params)
        return AdoptState(tree.zero_count(), mu, tree.real_zeros_like(params))

    def update(updates: Any, state: AdoptState, params: Any = None) -> Any:
        if params is None and not no_decay:
            raise ValueError("scale_by_adopt needs params: call update(updates, state, params)")
        later = tree.weak(state.count > 0)
        share = later * b2
        bound = None
        if use_clipping:  # a cheap last word: see `tree.debias`
            bound = jnp.maximum(clip_value_fn(tree.weak(state.count)), 0.0)

        def step(g: jax.Array, m: Any, v: jax.Array, p: Any) -> tuple[Any, ...]:
            near = tree.saturate(g) if bound is None else tree.limit(g)
            n = later * near / jnp.maximum(tree.sqrt(v), eps)
            if bound is not None:  # an infinite gradient stays visible
                n = jnp.where(jnp.isfinite(g), _clip(n, bound), g)
            m = n if m is None else b1 * m + (1 - b1) * n
            v = share * v + (1 - share) * tree.squared(g)
            u = b1 * m + (1 - b1) * n if nesterov else m
            return (u if p is None else u + later * weight_decay * p), m, overwrite_after(v, m)

        decaying = tree.nones_like(updates)
        if not no_decay:
            decaying = jax.tree.map(lambda on, p: p if on else None, chosen(mask, params), params)
        mu = tree.nones_like(updates) if no_mean else state.mu
        updates, mu, nu = tree.map(step, updates, mu, state.nu, decaying, outputs=3)
        return updates, AdoptState(tree.increment(state.count), None if no_mean else mu, nu)

    return init, update


@composition
def adopt(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.9999,
    eps: NonNegative = 1e-6,
    mu_dtype: StoredMean = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[Any], Any] = fourth_root,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
) -> GradientTransformation:
    """ADOPT.

    Args:
      learning_rate: η ≥ 0.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      eps: ε, the least denominator.
      mu_dtype: the dtype or codec that m is stored in, as in `store`; None for the compute dtype.
      nesterov: let the mean look one step ahead.
      use_clipping: bound the normalized gradients.
      clip_value_fn: the bound as a function of the number of updates before.
      weight_decay: λ ≥ 0, multiplied by the learning rate; from the second update on.
      mask: which leaves decay: a tree of bools with the params' structure or a prefix of it, or a
        function of the params that returns one.

    Raises:
      ValueError: in `update`, without params although there is a weight decay.

    >>> import fnopt
    >>> fnopt.adopt(1e-3, b2=0.999).arguments.arguments["b2"]
    0.999
    """
    rule = scale_by_adopt(
        b1,
        b2,
        eps,
        mu_dtype,
        nesterov=nesterov,
        use_clipping=use_clipping,
        clip_value_fn=clip_value_fn,
        weight_decay=weight_decay,
        mask=mask,
    )
    return chain(rule, scale_by_learning_rate(learning_rate))
