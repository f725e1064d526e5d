"""LAMB: Adam's step, made a fraction of the weights that it changes: for very large batches.

    m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²
    r ← m̂ / (√v̂ + ε) + λθ                   m̂ = m / (1−β₁ᵗ),  v̂ = v / (1−β₂ᵗ)
    θ ← θ − η (‖θ‖ / ‖r‖) r                  the norms over each leaf

Where a norm is zero the ratio is 1.

Good for: batches of tens of thousands, as of BERT in its paper.
Caveat: a leaf is a layer here, so a stack of layers in one leaf gets one ratio. Biases and norms
often do better without decay (`mask`).
Memory: two values per parameter; one with b1=0.
Source: You et al. 2019, arXiv 1904.00962, with φ the identity.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import reductions, tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.fusion import recompute
from fnopt.hyperparameters import Decay, LearningRate, NonNegative
from fnopt.masks import chosen
from fnopt.transforms.normalization import trust_ratio
from fnopt.transforms.scaling import scale_by_learning_rate


class LambState(NamedTuple):
    """The count, int32 (); m, like the params, None for a static b1 of 0; v, real, like them."""

    count: Any
    mu: Any
    nu: Any


@gradient_transformation
def scale_by_lamb(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
    *,
    axis_name: Any = None,
) -> Any:
    """u ← (‖θ‖ / ‖r‖) r, with r = m̂ / (√(v̂ + eps_root) + ε) + λθ.

    One rule and not a chain of Adam, decay and ratio, so that r need not be stored for its norm.

    Args:
      b1: β₁ in [0, 1), the decay of the mean. A static 0 keeps no mean.
      b2: β₂ in [0, 1), the decay of the mean square.
      eps: ε, outside the root.
      eps_root: added inside the root.
      weight_decay: λ ≥ 0.
      mask: which leaves decay: a tree of bools with the params' structure or a prefix of it, or a
        function of the params that returns one.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split.

    Memory: two values per parameter; one with b1=0.
    """
    no_mean, no_decay = tree.is_static_zero(b1), tree.is_static_zero(weight_decay)

    def init(params: Any) -> LambState:
        mu = None if no_mean else tree.zeros_like(params)
        return LambState(tree.zero_count(), mu, tree.real_zeros_like(params))

    def update(updates: Any, state: LambState, params: Any) -> Any:
        t = tree.increment(state.count)
        c1 = tree.debias(b1, t)
        c2 = tree.debias(b2, t)

        def step(g: Any, m: Any, v: Any, p: Any, decay_on: Any) -> tuple[Any, ...]:
            v = b2 * v + (1 - b2) * tree.squared(g)
            g = tree.saturate(g)
            m = g if m is None else b1 * m + (1 - b1) * g
            decays = decay_on is not None and not no_decay
            tiny = float(jnp.finfo(v.dtype).tiny)

            def r(m: Any, v: Any, p: Any, *scalars: Any) -> Any:
                c1, c2, eps, eps_root, weight_decay, tiny = scalars
                adam = c1 * m / (jnp.sqrt(jnp.maximum(c2 * v + eps_root, tiny)) + eps)
                return adam + weight_decay * p if decays else adam

            words = (m, v, p, c1, c2, eps, eps_root, weight_decay, tiny)
            norms = (reductions.norm([x], axis_name) for x in (p, recompute(r, *words)))
            return trust_ratio(*norms) * r(*words), m, v

        mu = tree.nones_like(updates) if no_mean else state.mu
        marks = jax.tree.map(lambda on: on or None, chosen(mask, params))
        updates, mu, nu = tree.map(step, updates, mu, state.nu, params, marks, outputs=3)
        return updates, LambState(t, None if no_mean else mu, nu)

    return init, update


@composition
def lamb(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
    *,
    axis_name: Any = None,
) -> GradientTransformation:
    """LAMB, Adam with a trust ratio for each leaf.

    Args:
      learning_rate: η ≥ 0; the fraction of a leaf's norm that one step is.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      eps: ε, outside the root.
      eps_root: added inside the root.
      weight_decay: λ ≥ 0, multiplied by the learning rate and the ratio.
      mask: which leaves decay: a tree of bools with the params' structure or a prefix of it, or a
        function of the params that returns one.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split.

    >>> import fnopt
    >>> fnopt.lamb(1e-3)
    lamb(learning_rate=0.001, b1=0.9, b2=0.999, eps=1e-06, eps_root=0.0, weight_decay=0.0)
    """
    return chain(
        scale_by_lamb(b1, b2, eps, eps_root, weight_decay, mask, axis_name=axis_name),
        scale_by_learning_rate(learning_rate),
    )
