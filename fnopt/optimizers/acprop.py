"""ACProp: AdaBelief that divides a gradient by what was known before it.

    θ ← θ − η (g / (√ŝ + ε) + λθ)      ŝ = s / (1−β₂ᵗ⁻¹), of the steps before; 1 if there is none
    m ← β₁m + (1−β₁)g
    s ← β₂s + (1−β₂)(g−m)² + ε_root

The gradient and its denominator are then independent, which makes it converge in examples where
Adam and AdaBelief do not. There is no momentum: m only serves s.

Good for: noisy gradients, by its authors' tests on images, GANs and reinforcement learning; little
used since.
Caveat: the first step is plain gradient descent at the rate η, and so is the first after only
zeros, for each entry: ŝ holds nothing but ε_root there. optax squares the distance from
the mean before this gradient, not after it as the paper and its own page have it, so its steps
are about β₁ times as long.
Memory: two values per parameter; one with b1=0.
Source: Zhuang et al. 2021, arXiv 2110.05454.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Decay, LearningRate, NonNegative
from fnopt.transforms.decay import add_decayed_weights
from fnopt.transforms.scaling import scale_by_learning_rate


class AcpropState(NamedTuple):
    """The count, int32 (); m, like the params, None for a static b1 of 0; s, real, like them."""

    count: Any
    mu: Any
    nu: Any


@gradient_transformation
def scale_by_acprop(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-16,
    eps_root: NonNegative = 1e-16,
) -> Any:
    """u ← g / (√ŝ + ε), ŝ of the steps before.

    Args:
      b1: β₁ in [0, 1), the decay of the mean. A static 0 keeps none; g−m is then 0.
      b2: β₂ in [0, 1), the decay of the mean squared surprise.
      eps: ε, outside the root.
      eps_root: added to s at each step.

    Memory: two values per parameter; one with b1=0.
    """
    no_mean = tree.is_static_zero(b1)

    def init(params: Any) -> AcpropState:
        mu = None if no_mean else tree.zeros_like(params)
        return AcpropState(tree.zero_count(), mu, tree.real_zeros_like(params))

    def update(updates: Any, state: AcpropState) -> Any:
        c2 = tree.debias(b2, jnp.maximum(state.count, 1))
        unknown = 1.001 * eps_root / (1 - b2)  # ŝ of an entry that has had no gradient, rounded up

        def step(g: jax.Array, m: jax.Array | None, s: jax.Array) -> tuple[Any, ...]:
            root = tree.sqrt(c2 * s) + eps
            u = tree.saturate(g) / jnp.where(c2 * s > unknown, root, jnp.ones_like(root))
            m = tree.saturate(g) if m is None else b1 * m + (1 - b1) * tree.saturate(g)
            s = (b2 * s + eps_root) + (1 - b2) * tree.squared(g - m)
            return u, m, s

        mu = tree.nones_like(updates) if no_mean else state.mu
        updates, mu, nu = tree.map(step, updates, mu, state.nu, outputs=3)
        return updates, AcpropState(tree.increment(state.count), None if no_mean else mu, nu)

    return init, update


@composition
def acprop(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-16,
    eps_root: NonNegative = 1e-16,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
) -> GradientTransformation:
    """ACProp.

    Args:
      learning_rate: η ≥ 0.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      eps: ε, outside the root.
      eps_root: added to s at each step.
      weight_decay: λ ≥ 0, multiplied by the learning rate.
      mask: which leaves decay: a tree of bools with the params' structure or a prefix of it, or a
        function of the params that returns one.

    >>> import fnopt
    >>> fnopt.acprop(1e-3, weight_decay=0.01).arguments.arguments["weight_decay"]
    0.01
    """
    return chain(
        scale_by_acprop(b1, b2, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
