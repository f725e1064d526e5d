"""Simplified AdEMAMix: one long sum of gradients, and the last gradient weighed in again.

    m ← β₁m + g                       a sum, not a mean
    v ← β₂v + (1−β₂)g²                v̂ = v / (1−β₂ᵗ)
    θ ← θ − η [(m + αg) / (√v̂ + ε) + λθ]

One buffer fewer than AdEMAMix and nothing to warm up.

Good for: language models at small batches, by its authors' tests.
Caveat: m is up to 1/(1−β₁) times a gradient, so rates are as many times smaller than Adam's;
with α = 0 it is Adam at η(1−β₁), but for the correction of m. The decay is scaled by the rate.
Memory: two values per parameter; one with b1=0.
Source: Morwani et al. 2025, arXiv 2502.02431.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from fnopt import tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Decay, LearningRate, NonNegative
from fnopt.transforms.decay import add_decayed_weights
from fnopt.transforms.scaling import scale_by_learning_rate


class SimplifiedAdemamixState(NamedTuple):
    """The count, int32 (); m, like the params, None for a static b1 of 0; v, real, like them."""

    count: Any
    mu: Any
    nu: Any


@gradient_transformation
def scale_by_simplified_ademamix(
    b1: Decay = 0.99,
    b2: Decay = 0.95,
    alpha: NonNegative = 0.0,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
) -> Any:
    """u ← (m + αg) / (√(v̂ + eps_root) + ε), with m ← β₁m + g.

    Args:
      b1: β₁ in [0, 1), the decay of the sum. A static 0 keeps none: it is g.
      b2: β₂ in [0, 1), the decay of the mean square.
      alpha: α ≥ 0, the further weight of the last gradient.
      eps: ε, outside the root.
      eps_root: added inside the root, for derivatives through the update.

    Memory: two values per parameter; one with b1=0.
    """
    no_sum = tree.is_static_zero(b1)

    def init(params: Any) -> SimplifiedAdemamixState:
        mu = None if no_sum else tree.zeros_like(params)
        return SimplifiedAdemamixState(tree.zero_count(), mu, tree.real_zeros_like(params))

    def update(updates: Any, state: SimplifiedAdemamixState) -> Any:
        t = tree.increment(state.count)
        c2 = tree.debias(b2, t)

        def step(g: jax.Array, m: jax.Array | None, v: jax.Array) -> tuple[Any, ...]:
            v = b2 * v + (1 - b2) * tree.squared(g)
            g = tree.saturate(g)
            m = g if m is None else b1 * m + g
            top = m if tree.is_static_zero(alpha) else m + alpha * g
            return top / (tree.sqrt(c2 * v + eps_root) + eps), m, v

        mu = tree.nones_like(updates) if no_sum else state.mu
        updates, mu, nu = tree.map(step, updates, mu, state.nu, outputs=3)
        return updates, SimplifiedAdemamixState(t, None if no_sum else mu, nu)

    return init, update


@composition
def simplified_ademamix(
    learning_rate: LearningRate,
    b1: Decay = 0.99,
    b2: Decay = 0.95,
    alpha: NonNegative = 0.0,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
) -> GradientTransformation:
    """Simplified AdEMAMix.

    Args:
      learning_rate: η ≥ 0.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      alpha: α ≥ 0, the further weight of the last gradient.
      eps: ε, outside the root.
      eps_root: added inside the root.
      weight_decay: λ ≥ 0, multiplied by the learning rate.
      mask: which leaves decay: a tree of bools with the params' structure or a prefix of it, or a
        function of the params that returns one.

    >>> import fnopt
    >>> fnopt.simplified_ademamix(1e-5, alpha=10.0).arguments.arguments["alpha"]
    10.0
    """
    return chain(
        scale_by_simplified_ademamix(b1, b2, alpha, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
