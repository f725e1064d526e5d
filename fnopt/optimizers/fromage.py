"""Fromage: every leaf turns by the same angle, whatever the size of its gradient.

    θ ← (θ − η (‖θ‖ / ‖g‖) g) / √(1 + η²)          the norms over each leaf

The root undoes the growth of the norm that a step at right angles brings.

Good for: networks with normalized layers, with one rate for many architectures, by its authors'
tests.
Caveat: both norms are raised to `min_norm`, so that a leaf at zero can move; where a norm is 0
even so, the step is ηg. The rate has to be lowered in the end, for the steps do not shrink.
Memory: none.
Source: Bernstein et al. 2020, arXiv 2002.03432.
"""

from __future__ import annotations

from typing import Any

import jax

from fnopt import reductions, tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import LearningRate, NonNegative
from fnopt.transforms.normalization import trust_ratio


@gradient_transformation
def scale_by_fromage(
    learning_rate: LearningRate,
    min_norm: NonNegative = 1e-6,
    *,
    axis_name: Any = None,
) -> Any:
    """u ← c (θ − η (‖θ‖ / ‖u‖) u) − θ with c = 1/√(1 + η²), ready to be added.

    Args:
      learning_rate: η ≥ 0, about the angle in radians.
      min_norm: what both norms are raised to.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split.
    """
    root = (1 + learning_rate**2) ** 0.5
    # c − 1 without the difference of two nearly equal numbers
    shrink = -(learning_rate**2) / (root * (1 + root))

    def step(g: jax.Array, p: jax.Array) -> jax.Array:
        norms = reductions.norm([p], axis_name), reductions.norm([g], axis_name)
        ratio = trust_ratio(*norms, min_norm)
        return shrink * p - (learning_rate / root * ratio) * g

    return lambda params: (), lambda updates, state, params: (
        tree.map(step, updates, params),
        state,
    )


@composition
def fromage(
    learning_rate: LearningRate,
    min_norm: NonNegative = 1e-6,
    *,
    axis_name: Any = None,
) -> GradientTransformation:
    """Fromage, "Frobenius matched gradient descent".

    Args:
      learning_rate: η ≥ 0, about the angle in radians.
      min_norm: what both norms are raised to.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split.

    >>> import fnopt
    >>> fnopt.fromage(0.01)
    fromage(learning_rate=0.01, min_norm=1e-06)
    """
    return chain(scale_by_fromage(learning_rate, min_norm, axis_name=axis_name))
