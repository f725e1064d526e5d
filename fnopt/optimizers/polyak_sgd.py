"""Gradient descent with Polyak's step: the rate follows from how far the loss is from its least.

    γ = (f − f*) / (‖g‖² + ε), at most γmax          the norm over all leaves
    θ ← θ − sγg

`update` needs the loss: `update(gradients, state, params, value=loss)`.

Good for: convex problems and models that fit their data, whose least loss is known.
Caveat: f* must be known or bounded from below, 0 for a model that can fit its data. With
`variant="sps+"` a loss below f* stops the step, with "sps" it turns it around.
Memory: none.
Source: Loizou et al. 2021, arXiv 2002.10542 (SPS_max); Garrigos et al. 2023, arXiv 2307.14528
(SPS+). s multiplies the step; optax takes the norm of sg, which for an unbounded γ divides by s.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from fnopt import reductions, tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import LearningRate, NonNegative, Real
from fnopt.transforms.normalization import reciprocal
from fnopt.transforms.scaling import scale


@gradient_transformation
def scale_by_polyak(
    f_min: Real = 0.0,
    max_learning_rate: LearningRate = 1.0,
    eps: NonNegative = 0.0,
    variant: str = "sps",
    *,
    scaling: NonNegative = 1.0,
    axis_name: Any = None,
) -> Any:
    """u ← s · min((value − f_min) / (‖u‖² + ε), γmax) · u.

    Args:
      f_min: f*, the least loss or a lower bound of it.
      max_learning_rate: γmax ≥ 0.
      eps: ε ≥ 0.
      variant: "sps", or "sps+" for max(value − f_min, 0).
      scaling: s ≥ 0.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split.

    Raises:
      ValueError: for an unknown variant.
      TypeError: where `update` is called without `value`.
    """
    if variant not in ("sps", "sps+"):
        raise ValueError(f"scale_by_polyak: variant must be 'sps' or 'sps+', got {variant!r}")

    def update(updates: Any, state: Any, *, value: Any) -> Any:
        gap = tree.weak(value) - f_min
        if variant == "sps+":
            gap = jnp.maximum(gap, 0.0)
        # γ‖g‖ and g/‖g‖, since ‖g‖² may overflow where their product does not
        norm = tree.weak(reductions.whole_norm(updates, axis_name))
        over = reciprocal(norm)
        length = jnp.minimum(gap * reciprocal(norm + eps * over), max_learning_rate * norm)
        return tree.map(lambda u: (scaling * length) * (over * u), updates), state

    return lambda params: (), update


@composition
def polyak_sgd(
    max_learning_rate: LearningRate = 1.0,
    scaling: NonNegative = 1.0,
    f_min: Real = 0.0,
    eps: NonNegative = 0.0,
    variant: str = "sps",
    *,
    axis_name: Any = None,
) -> GradientTransformation:
    """Gradient descent with Polyak's step size; `update` needs `value=`.

    Args:
      max_learning_rate: γmax ≥ 0.
      scaling: s ≥ 0, a factor of the step; also a schedule.
      f_min: f*, the least loss or a lower bound of it.
      eps: ε ≥ 0.
      variant: "sps", or "sps+" for max(value − f_min, 0).
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split.

    >>> import fnopt
    >>> fnopt.polyak_sgd()
    polyak_sgd(max_learning_rate=1.0, scaling=1.0, f_min=0.0, eps=0.0, variant='sps')
    """
    rule = scale_by_polyak(
        f_min, max_learning_rate, eps, variant, scaling=scaling, axis_name=axis_name
    )
    return chain(rule, scale(-1.0))
