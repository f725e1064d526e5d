"""StableAdamW: AdamW that shortens a leaf's step where its second moment is out of date.

    β̂ᵢ = (βᵢᵗ − βᵢ) / (βᵢᵗ − 1)
    m ← β̂₁m + (1−β̂₁)g
    v ← β̂₂v + (1−β̂₂)g²
    ηₜ = η / max(1, RMS),  RMS² = mean(g² / max(v, ε²))     for each leaf
    θ ← θ − ηₜ (m / (√v + ε) + λθ)

The corrected decays make m and v true averages from the first step. A burst of gradients that v
does not know yet has RMS > 1; Adafactor's clipping against it replaces gradient clipping.

Good for: low precision and large rates, where AdamW's loss spikes.
Caveat: the decay is scaled by the shortened rate ηₜ, as in the paper.
Memory: two values per parameter; one with b1=0.
Source: Wortsman et al. 2023, arXiv 2304.13013, algorithm 2.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import reductions, tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.fusion import recompute
from fnopt.hyperparameters import Decay, LearningRate, NonNegative
from fnopt.masks import chosen
from fnopt.transforms.factored import largest_root
from fnopt.transforms.scaling import scale_by_learning_rate


class StableAdamState(NamedTuple):
    """The count, int32 (); m, like the params, None for a static b1 of 0; v, real, like them."""

    count: Any
    mu: Any
    nu: Any


@gradient_transformation
def scale_by_stable_adam(
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-8,
    *,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
    axis_name: Any = None,
) -> Any:
    """u ← (m / (√v + ε) + λθ) / max(1, RMS).

    Args:
      b1: β₁ in [0, 1), the decay of the mean. A static 0 keeps no mean.
      b2: β₂ in [0, 1), the decay of the mean square.
      eps: ε, outside the root.
      weight_decay: λ ≥ 0; it stands here because the clipping scales it.
      mask: which leaves decay, as in `add_decayed_weights`.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split.

    Memory: two values per parameter; one with b1=0.
    """
    no_mean, no_decay = tree.is_static_zero(b1), tree.is_static_zero(weight_decay)

    def init(params: Any) -> StableAdamState:
        mu = None if no_mean else tree.zeros_like(params)
        return StableAdamState(tree.zero_count(), mu, tree.real_zeros_like(params))

    def ratio(g: jax.Array, v: jax.Array, eps: Any, tiny: Any, most: Any) -> jax.Array:
        return jnp.minimum(jnp.abs(g), most) / jnp.maximum(jnp.sqrt(jnp.maximum(v, tiny)), eps)

    def step(g: jax.Array, m: Any, v: jax.Array, p: Any, w1: Any, w2: Any) -> tuple[Any, ...]:
        v = (1 - w2) * v + w2 * tree.squared(g)
        m = tree.saturate(g) if m is None else (1 - w1) * m + w1 * tree.saturate(g)
        tiny = float(jnp.finfo(v.dtype).tiny)
        size = recompute(ratio, g, v, eps, tiny, largest_root(v))
        rms = reductions.rms(size, axis_name)
        u = m / (tree.sqrt(v) + eps)
        return (u if p is None else u + weight_decay * p) / jnp.maximum(rms, 1.0), m, v

    def update(updates: Any, state: StableAdamState, params: Any = None) -> Any:
        if params is None and not no_decay:
            raise ValueError(
                "scale_by_stable_adam needs params: call update(updates, state, params)"
            )
        t = tree.increment(state.count)
        w1 = (1 - b1) * tree.debias(b1, t)
        w2 = (1 - b2) * tree.debias(b2, t)
        decaying = tree.nones_like(updates)
        if not no_decay:
            decaying = jax.tree.map(lambda on, p: p if on else None, chosen(mask, params), params)
        columns = updates, tree.nones_like(updates) if no_mean else state.mu, state.nu, decaying
        updates, mu, nu = tree.map(functools.partial(step, w1=w1, w2=w2), *columns, outputs=3)
        return updates, StableAdamState(t, None if no_mean else mu, nu)

    return init, update


@composition
def stable_adamw(
    learning_rate: LearningRate,
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 1e-2,
    mask: Any = None,
    axis_name: Any = None,
) -> GradientTransformation:
    """StableAdamW: AdamW with update clipping.

    Args:
      learning_rate: η ≥ 0.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      eps: ε, outside the root.
      weight_decay: λ ≥ 0, multiplied by the learning rate and by the clipping.
      mask: which leaves decay: a tree of bools with the params' structure or a prefix of it, or a
        function of the params that returns one.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split.

    >>> import fnopt
    >>> fnopt.stable_adamw(2e-3)
    stable_adamw(learning_rate=0.002, b1=0.9, b2=0.99, eps=1e-08, weight_decay=0.01)
    """
    return chain(
        scale_by_stable_adam(
            b1, b2, eps, weight_decay=weight_decay, mask=mask, axis_name=axis_name
        ),
        scale_by_learning_rate(learning_rate),
    )
