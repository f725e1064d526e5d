"""FTRL-Proximal: Adagrad's rates with an L1 penalty that gives exact zeros.

    n ← n + g²;   σ = √n − √(n − g²)
    z ← z + ηg − σθ
    θ ← −sign(z) max(|z| − ηλ₁, 0) / (β + √n + ηλ₂)

Here z is η times the paper's, which is the same for a constant rate and defined for η = 0. It
starts so that the given θ solves the last line: at 0 for θ = 0, as in the paper, and without the
pull to zero of the first steps otherwise.

Good for: linear models on sparse features that should end sparse, as for predicting clicks.
Caveat: for linear models on sparse features. A change of η scales the gradients after it.
Memory: two values per parameter.
Source: McMahan et al. 2013, "Ad click prediction: a view from the trenches", KDD. β = 1 as there;
TensorFlow has β = 0 and n starting at 0.1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from fnopt import tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.fusion import overwrite_after, recompute
from fnopt.hyperparameters import LearningRate, NonNegative, Positive
from fnopt.transforms.factored import largest_root


class FtrlState(NamedTuple):
    """The count, int32 (); z, like the params; n, real, like them."""

    count: Any
    linear: Any
    sum_of_squares: Any


def _growth_of_root(n: Any, g: Any, most: Any, tiny: Any) -> Any:
    """√(n + |g|²) − √n, without the difference of two nearly equal numbers."""
    g = jnp.minimum(jnp.maximum(jnp.abs(g), -most), most)
    square = g * g
    return square / (jnp.sqrt(jnp.maximum(n + square, tiny)) + jnp.sqrt(jnp.maximum(n, tiny)))


@gradient_transformation
def scale_by_ftrl(
    learning_rate: LearningRate,
    *,
    beta: Positive = 1.0,
    l1: NonNegative = 0.0,
    l2: NonNegative = 0.0,
) -> Any:
    """u ← the solution for z and n, minus θ: ready to be added.

    Args:
      learning_rate: η ≥ 0.
      beta: β > 0, so that the first rates are finite.
      l1: λ₁ ≥ 0; parameters whose gradients stay within it become exactly 0.
      l2: λ₂ ≥ 0.

    Memory: two values per parameter.
    """

    def init(params: Any) -> FtrlState:
        return FtrlState(tree.zero_count(), tree.zeros_like(params), tree.real_zeros_like(params))

    def update(updates: Any, state: FtrlState, params: Any) -> Any:
        first = state.count == 0

        def step(g: Any, z: Any, n: Any, p: Any) -> tuple[Any, ...]:
            start = -p * (beta + learning_rate * l2) - learning_rate * l1 * jnp.sign(p)
            tiny = float(jnp.finfo(n.dtype).tiny)
            sigma = recompute(_growth_of_root, n, g, largest_root(g), tiny)
            z = jnp.where(first, start, z) + learning_rate * tree.saturate(g) - sigma * p
            new = overwrite_after(n + tree.squared(g), z)
            size = jnp.maximum(jnp.abs(z) - learning_rate * l1, 0.0)
            solution = -jnp.sign(z) * (size / (beta + tree.sqrt(new) + learning_rate * l2))
            return solution - p, z, new

        updates, z, n = tree.map(step, updates, state[1], state[2], params, outputs=3)
        return updates, FtrlState(tree.increment(state.count), z, n)

    return init, update


@composition
def ftrl(
    learning_rate: LearningRate,
    *,
    beta: Positive = 1.0,
    l1: NonNegative = 0.0,
    l2: NonNegative = 0.0,
) -> GradientTransformation:
    """FTRL-Proximal, "follow the regularized leader".

    Args:
      learning_rate: η ≥ 0, the paper's α.
      beta: β > 0.
      l1: λ₁ ≥ 0; parameters whose gradients stay within it become exactly 0.
      l2: λ₂ ≥ 0.

    >>> import fnopt
    >>> fnopt.ftrl(0.1, l1=1.0)
    ftrl(learning_rate=0.1, beta=1.0, l1=1.0, l2=0.0)
    """
    return chain(scale_by_ftrl(learning_rate, beta=beta, l1=l1, l2=l2))
