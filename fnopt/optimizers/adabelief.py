"""AdaBelief: Adam that divides by how far the gradient is from what the mean foretold.

    m ← β₁m + (1−β₁)g                 m̂ = m / (1−β₁ᵗ)
    s ← β₂s + (1−β₂)(g−m)² + ε_root   ŝ = s / (1−β₂ᵗ)
    θ ← θ − η m̂ / (√ŝ + ε)

Large steps where the gradient is steady, whatever its size; small ones where it surprises.

Good for: image classifiers and GANs, by its authors' tests; elsewhere much like Adam.
Caveat: ε_root is added to s at each step and gathers to ε_root/(1−β₂), as in the paper's
algorithm 2. The authors' later code rectifies as RAdam does by default; this does not.
Memory: two values per parameter; one with b1=0.
Source: Zhuang et al. 2020, arXiv 2010.07468.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from fnopt import tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Decay, LearningRate, NonNegative
from fnopt.transforms.scaling import scale_by_learning_rate


class BeliefState(NamedTuple):
    """The count, int32 (); m, like the params, None for a static b1 of 0; s, real, like them."""

    count: Any
    mu: Any
    nu: Any


@gradient_transformation
def scale_by_belief(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-16,
    eps_root: NonNegative = 1e-16,
    *,
    nesterov: bool = False,
) -> Any:
    """u ← m̂ / (√ŝ + ε), with s ← β₂s + (1−β₂)(g−m)² + eps_root.

    Args:
      b1: β₁ in [0, 1), the decay of the mean. A static 0 keeps none; g−m is then 0.
      b2: β₂ in [0, 1), the decay of the mean squared surprise.
      eps: ε, outside the root.
      eps_root: added to s at each step.
      nesterov: let the mean look one step ahead.

    Memory: two values per parameter; one with b1=0.
    """
    no_mean = tree.is_static_zero(b1)

    def init(params: Any) -> BeliefState:
        mu = None if no_mean else tree.zeros_like(params)
        return BeliefState(tree.zero_count(), mu, tree.real_zeros_like(params))

    def update(updates: Any, state: BeliefState) -> Any:
        t = tree.increment(state.count)
        c1 = tree.debias(b1, t)
        c2 = tree.debias(b2, t)
        c1_next = tree.debias(b1, tree.increment(t))

        def step(g: jax.Array, m: jax.Array | None, s: jax.Array) -> tuple[Any, ...]:
            # g and s are written so that no word of them is worth storing to the compiler
            near = tree.saturate(g)
            m = near if m is None else b1 * m + (1 - b1) * near
            s = (b2 * s + eps_root) + (1 - b2) * tree.squared(g - m)
            m_hat = b1 * c1_next * m + (1 - b1) * c1 * near if nesterov else c1 * m
            return m_hat / (tree.sqrt(c2 * s) + eps), m, s

        mu = tree.nones_like(updates) if no_mean else state.mu
        updates, mu, nu = tree.map(step, updates, mu, state.nu, outputs=3)
        return updates, BeliefState(t, None if no_mean else mu, nu)

    return init, update


@composition
def adabelief(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-16,
    eps_root: NonNegative = 1e-16,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    """AdaBelief.

    Args:
      learning_rate: η ≥ 0.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      eps: ε, outside the root.
      eps_root: added to s at each step.
      nesterov: let the mean look one step ahead.

    >>> import fnopt
    >>> fnopt.adabelief(1e-3)
    adabelief(learning_rate=0.001, b1=0.9, b2=0.999, eps=1e-16, eps_root=1e-16)
    """
    return chain(
        scale_by_belief(b1, b2, eps, eps_root, nesterov=nesterov),
        scale_by_learning_rate(learning_rate),
    )
