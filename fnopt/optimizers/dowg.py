"""DoWG: DoG with the gradients weighted by the distance at which they were met.

    r̄² ← max(r̄², ‖θ − θ₀‖²)           from `init_estim_sq_dist`
    V  ← V + r̄²‖g‖²
    θ  ← θ − η r̄² / (√V + ε) · g      η = 1

The norms go over the whole tree. Early, small gradients far from where they matter weigh less, so
the rate is larger than DoG's, and no averaging is needed.

Good for: smooth convex problems without a tuned rate; networks with less certainty.
Caveat: weight decay is added to the gradient, as with DoG, so that the rate sees it.
Memory: one value per parameter, θ₀.
Source: Khaled, Mishchenko and Jin 2023, arXiv 2305.16284; ε as in the authors' code.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from fnopt import reductions, tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Initial, LearningRate, NonNegative, Positive
from fnopt.transforms.decay import add_decayed_weights
from fnopt.transforms.scaling import scale_by_learning_rate


class DowgState(NamedTuple):
    """θ₀, like the params; r̄² and V, each a float scalar."""

    start: Any
    square_distance: Any
    weighted_squares: Any


@gradient_transformation
def scale_by_dowg(
    init_estim_sq_dist: Initial | None = None,
    eps: Positive = 1e-4,
    *,
    axis_name: Any = None,
) -> Any:
    """u ← r̄² / (√V + ε) · g.

    Args:
      init_estim_sq_dist: the first r̄²; None for ε.
      eps: ε, outside the root.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split.

    Memory: one value per parameter.
    """

    def init(params: Any) -> DowgState:
        zero = jnp.zeros((), jnp.result_type(float))
        return DowgState(params, zero + (init_estim_sq_dist or 0.0), zero)

    def update(updates: Any, state: DowgState, params: Any) -> Any:
        moved = tree.map(lambda p, p0: p - p0, params, state.start)
        least = state.square_distance
        if init_estim_sq_dist is None:
            least = jnp.maximum(tree.weak(least), eps)
        distance = jnp.maximum(tree.weak(least), tree.squared(_weak_norm(moved, axis_name)))
        weighted = tree.sqrt(distance) * _weak_norm(updates, axis_name)
        squares = tree.weak(state.weighted_squares) + tree.squared(weighted)
        rate = distance / (tree.sqrt(squares) + eps)
        updates = tree.map(lambda g: rate * tree.saturate(g), updates)
        return updates, DowgState(state.start, distance, squares)

    return init, update


def _weak_norm(updates: Any, axis_name: Any) -> Any:
    return tree.weak(reductions.whole_norm(updates, axis_name))


@composition
def dowg(
    learning_rate: LearningRate = 1.0,
    init_estim_sq_dist: Initial | None = None,
    eps: Positive = 1e-4,
    weight_decay: NonNegative | None = None,
    mask: Any = None,
    *,
    axis_name: Any = None,
) -> GradientTransformation:
    """Distance over weighted gradients.

    Args:
      learning_rate: η ≥ 0, a factor on the rate that is found.
      init_estim_sq_dist: the first r̄²; None for ε.
      eps: ε > 0, outside the root.
      weight_decay: λ ≥ 0 or None, added to the gradient as λθ.
      mask: which leaves decay: a tree of bools with the params' structure or a prefix of it, or a
        function of the params that returns one.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split.

    >>> import fnopt
    >>> fnopt.dowg()
    dowg(learning_rate=1.0, eps=0.0001)
    """
    members = [
        scale_by_dowg(init_estim_sq_dist, eps, axis_name=axis_name),
        scale_by_learning_rate(learning_rate),
    ]
    if weight_decay is not None:
        members.insert(0, add_decayed_weights(weight_decay, mask))
    return chain(*members)
