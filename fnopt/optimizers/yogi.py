"""Yogi: Adam whose second moment moves by a controlled amount, however far off it is.

    m ← β₁m + (1−β₁)g                 m̂ = m / (1−β₁ᵗ)
    v ← v − (1−β₂) sign(v − g²) g²     v̂ = v / (1−β₂ᵗ)
    θ ← θ − η m̂ / (√v̂ + ε)

Where gradients are sparse v falls slowly, so the rate cannot shoot up as Adam's does.

Good for: sparse gradients; the server's side of federated learning (arXiv 2003.00295).
Caveat: ε is 1e-3, far larger than Adam's. The paper's algorithm has no bias correction
(`bias_correction=False`); optax corrects, and so does the default. m starts at zero; optax starts
it at `initial_accumulator_value` as well.
Memory: two values per parameter; one with b1=0.
Source: Zaheer et al. 2018, "Adaptive Methods for Nonconvex Optimization", NeurIPS (no arXiv id).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Decay, Initial, LearningRate, NonNegative
from fnopt.transforms.scaling import scale_by_learning_rate


class YogiState(NamedTuple):
    """The count, int32 (); m, like the params, None for a static b1 of 0; v, real, like them."""

    count: Any
    mu: Any
    nu: Any


@gradient_transformation
def scale_by_yogi(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-3,
    eps_root: NonNegative = 0.0,
    initial_accumulator_value: Initial = 1e-6,
    *,
    bias_correction: bool = True,
) -> Any:
    """u ← m̂ / (√(v̂ + eps_root) + ε), with v ← v − (1−β₂) sign(v − g²) g².

    Args:
      b1: β₁ in [0, 1), the decay of the mean. A static 0 keeps no mean.
      b2: β₂ in [0, 1); 1−β₂ is the largest change of v, as a share of g².
      eps: ε, outside the root.
      eps_root: added inside the root, for derivatives through the update.
      initial_accumulator_value: v at the start.
      bias_correction: divide m by 1−β₁ᵗ and v by 1−β₂ᵗ.

    Memory: two values per parameter; one with b1=0.
    """
    no_mean = tree.is_static_zero(b1)

    def init(params: Any) -> YogiState:
        mu = None if no_mean else tree.zeros_like(params)
        nu = tree.map(lambda x: x + initial_accumulator_value, tree.real_zeros_like(params))
        return YogiState(tree.zero_count(), mu, nu)

    def update(updates: Any, state: YogiState) -> Any:
        t = tree.increment(state.count)
        c1 = tree.debias(b1, t) if bias_correction else 1.0
        c2 = tree.debias(b2, t) if bias_correction else 1.0

        def step(g: jax.Array, m: jax.Array | None, v: jax.Array) -> tuple[Any, ...]:
            square = tree.squared(g)
            v = v - (1 - b2) * jnp.sign(v - square) * square
            g = tree.saturate(g)
            m = g if m is None else b1 * m + (1 - b1) * g
            return c1 * m / (tree.sqrt(c2 * v + eps_root) + eps), m, v

        mu = tree.nones_like(updates) if no_mean else state.mu
        updates, mu, nu = tree.map(step, updates, mu, state.nu, outputs=3)
        return updates, YogiState(t, None if no_mean else mu, nu)

    return init, update


@composition
def yogi(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-3,
    *,
    bias_correction: bool = True,
) -> GradientTransformation:
    """Yogi.

    Args:
      learning_rate: η ≥ 0.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      eps: ε, outside the root.
      bias_correction: divide m by 1−β₁ᵗ and v by 1−β₂ᵗ.

    >>> import fnopt
    >>> fnopt.yogi(1e-2, bias_correction=False)
    yogi(learning_rate=0.01, b1=0.9, b2=0.999, eps=0.001, bias_correction=False)
    """
    return chain(
        scale_by_yogi(b1, b2, eps, bias_correction=bias_correction),
        scale_by_learning_rate(learning_rate),
    )
