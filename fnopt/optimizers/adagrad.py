"""Adagrad: a rate for each parameter that falls with the gradients it has seen.

    s ← s + g²
    θ ← θ − ηg / (√s + ε)

A parameter that rarely gets a gradient keeps a large rate: made for sparse features.

Good for: sparse features: recommendation, linear models on text.
Caveat: s only grows, so every rate falls toward zero, on a long run to a standstill.
Memory: one value per parameter.
Source: Duchi, Hazan and Singer 2011, JMLR 12. ε stands outside the root; s starts at 0.1 as in
TensorFlow, where PyTorch starts at 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from fnopt import tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Initial, LearningRate, NonNegative
from fnopt.transforms.scaling import scale_by_learning_rate


class AdagradState(NamedTuple):
    """s, the sum of squared gradients, real, like the params."""

    sum_of_squares: Any


@gradient_transformation
def scale_by_rss(initial_accumulator_value: Initial = 0.1, eps: NonNegative = 1e-7) -> Any:
    """s ← s + g²; u ← g / (√s + ε): the gradient over the root of the sum of squares.

    Args:
      initial_accumulator_value: s at the start.
      eps: ε, added outside the root.

    Memory: one value per parameter.
    """

    def init(params: Any) -> AdagradState:
        s = tree.real_zeros_like(params)
        return AdagradState(tree.map(lambda x: x + initial_accumulator_value, s))

    def step(g: jax.Array, s: jax.Array) -> tuple[jax.Array, jax.Array]:
        s = s + tree.squared(g)
        return tree.saturate(g) / (tree.sqrt(s) + eps), s

    def update(updates: Any, state: AdagradState) -> Any:
        updates, s = tree.map(step, updates, state.sum_of_squares, outputs=2)
        return updates, AdagradState(s)

    return init, update


@composition
def adagrad(
    learning_rate: LearningRate,
    initial_accumulator_value: Initial = 0.1,
    eps: NonNegative = 1e-7,
) -> GradientTransformation:
    """Adagrad.

    Args:
      learning_rate: η ≥ 0.
      initial_accumulator_value: s at the start.
      eps: ε, added outside the root.

    >>> import fnopt
    >>> fnopt.adagrad(0.1)
    adagrad(learning_rate=0.1, initial_accumulator_value=0.1, eps=1e-07)
    """
    return chain(
        scale_by_rss(initial_accumulator_value, eps), scale_by_learning_rate(learning_rate)
    )
