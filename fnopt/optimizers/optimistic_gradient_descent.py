"""Optimistic gradient descent: it bets that the next gradient changes as the last one did.

    θ ← θ − η ((α + β) gₜ − β gₜ₋₁)                  g₀ = g₁

In games, where plain descent circles around an equilibrium, it converges.

Good for: games and saddle-point problems.
Caveat: β = 0 is gradient descent.
Memory: one value per parameter; none with beta=0.
Source: Mokhtari, Ozdaglar and Pattathil 2019, arXiv 1901.08511.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import LearningRate, Real
from fnopt.transforms.scaling import scale_by_learning_rate


class OptimisticGradientState(NamedTuple):
    """The count, int32 (); the last gradient, like the params, None for a static beta of 0."""

    count: Any
    last: Any


@gradient_transformation
def scale_by_optimistic_gradient(alpha: Real = 1.0, beta: Real = 1.0) -> Any:
    """u ← (α + β) uₜ − β uₜ₋₁.

    Args:
      alpha: α, the weight of the gradient.
      beta: β, the weight of its change. A static 0 keeps no gradient.

    Memory: one value per parameter; none with beta=0.
    """
    plain = tree.is_static_zero(beta)

    def init(params: Any) -> OptimisticGradientState:
        return OptimisticGradientState(
            tree.zero_count(), None if plain else tree.zeros_like(params)
        )

    def update(updates: Any, state: OptimisticGradientState) -> Any:
        count = tree.increment(state.count)
        if plain:
            return tree.scale(alpha, updates), OptimisticGradientState(count, None)
        change = tree.weak(jnp.where(count == 1, 0.0, 1.0)) * beta

        def step(g: jax.Array, last: jax.Array) -> jax.Array:
            return (alpha + change) * g - change * last

        new = tree.map(step, updates, state.last)
        return new, OptimisticGradientState(count, updates)

    return init, update


@composition
def optimistic_gradient_descent(
    learning_rate: LearningRate, alpha: Real = 1.0, beta: Real = 1.0
) -> GradientTransformation:
    """Optimistic gradient descent, for games and saddle points.

    Args:
      learning_rate: η ≥ 0.
      alpha: α, the weight of the gradient.
      beta: β, the weight of its change.

    >>> import fnopt
    >>> fnopt.optimistic_gradient_descent(0.1)
    optimistic_gradient_descent(learning_rate=0.1, alpha=1.0, beta=1.0)
    """
    return chain(scale_by_optimistic_gradient(alpha, beta), scale_by_learning_rate(learning_rate))
