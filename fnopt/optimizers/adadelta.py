"""Adadelta: Adagrad with a fading memory, and steps in the parameters' own unit.

    s ← ρs + (1−ρ)g²
    Δ = √(d + ε) / √(s + ε) · g
    d ← ρd + (1−ρ)Δ²
    θ ← θ − η (Δ + λθ)

The ratio of the two roots has the unit of θ/g, so the paper needs no rate: η = 1.

Good for: a run without a rate to choose, slowly; mostly a baseline from 2012.
Caveat: the first steps are about √ε long, and they grow slowly. The decay is decoupled, as
everywhere here; optax and PyTorch add λθ to g (`chain(add_decayed_weights(λ), adadelta(...))`).
Memory: two values per parameter.
Source: Zeiler 2012, arXiv 1212.5701.
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


class AdadeltaState(NamedTuple):
    """s and d, the mean squares of gradients and of steps, real, like the params."""

    nu: Any
    step_nu: Any


@gradient_transformation
def scale_by_adadelta(rho: Decay = 0.9, eps: NonNegative = 1e-6) -> Any:
    """u ← √(d + ε) / √(s + ε) · u.

    Args:
      rho: ρ in [0, 1), the decay of both mean squares.
      eps: ε, inside both roots.

    Memory: two values per parameter.
    """

    def init(params: Any) -> AdadeltaState:
        return AdadeltaState(tree.real_zeros_like(params), tree.real_zeros_like(params))

    def step(g: jax.Array, s: jax.Array, d: jax.Array) -> tuple[jax.Array, ...]:
        s = rho * s + (1 - rho) * tree.squared(g)
        g = tree.saturate(g)
        delta = tree.sqrt(d + eps) / tree.sqrt(s + eps) * g
        # Δ² without the roots, so that Δ need not be stored for it
        tiny = float(jnp.finfo(d.dtype).tiny)
        square = (d + eps) * (tree.squared(g) / jnp.maximum(s + eps, tiny))
        return delta, s, rho * d + (1 - rho) * square

    def update(updates: Any, state: AdadeltaState) -> Any:
        updates, s, d = tree.map(step, updates, state.nu, state.step_nu, outputs=3)
        return updates, AdadeltaState(s, d)

    return init, update


@composition
def adadelta(
    learning_rate: LearningRate = 1.0,
    rho: Decay = 0.9,
    eps: NonNegative = 1e-6,
    weight_decay: NonNegative = 0.0,
    weight_decay_mask: Any = None,
) -> GradientTransformation:
    """Adadelta.

    Args:
      learning_rate: η ≥ 0; 1 in the paper.
      rho: ρ in [0, 1), the decay of both mean squares.
      eps: ε, inside both roots.
      weight_decay: λ ≥ 0, multiplied by the learning rate.
      weight_decay_mask: which leaves decay: a tree of bools with the params' structure or a
        prefix of it, or a function of the params that returns one.

    >>> import fnopt
    >>> fnopt.adadelta()
    adadelta(learning_rate=1.0, rho=0.9, eps=1e-06, weight_decay=0.0)
    """
    return chain(
        scale_by_adadelta(rho, eps),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
