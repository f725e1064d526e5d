"""DoG: gradient descent whose rate is the distance travelled over the gradients met.

    r̄ ← max(r̄, ‖θ − θ₀‖)              from r_ε = 1e-6 (1 + ‖θ₀‖)
    G ← G + ‖g‖²
    θ ← θ − η r̄ / √(G + ε) · g        η = 1

The norms go over the whole tree; in `scale_by_distance_over_gradients` (L-DoG) over each leaf.
Nothing is tuned but the first, tiny step.

Good for: fine-tuning without a tuned rate, with averaged weights.
Caveat: the authors evaluate an average of the iterates (`ema_params` and the like), without which
DoG is worse than tuned SGD. Weight decay is added to the gradient as in their code, so that
the rate sees it. `init` needs the true parameters, not shapes.
Memory: one value per parameter, θ₀.
Source: Ivgi, Hinder and Carmon 2023, arXiv 2302.12022.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import reductions, tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Initial, LearningRate, NonNegative, Real
from fnopt.transforms.decay import add_decayed_weights
from fnopt.transforms.scaling import scale_by_learning_rate

FIRST_STEPS = ("heuristic", "distance", "learning_rate")


class DogState(NamedTuple):
    """The count, int32 (); θ₀, like the params; r̄ and G, each a float scalar."""

    count: Any
    start: Any
    distance: Any
    squares: Any


@gradient_transformation
def scale_by_dog(
    init_step: tuple[str, Any] = ("heuristic", 1e-6),
    eps: NonNegative = 1e-8,
    *,
    axis_name: Any = None,
) -> Any:
    """u ← r̄ / √(G + ε) · g.

    Args:
      init_step: what decides the first step: ("heuristic", c) for r_ε = c (1 + ‖θ₀‖),
        ("distance", r_ε), or ("learning_rate", η₀) for a first step of η₀g.
      eps: ε, inside the root.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split.

    Memory: one value per parameter.
    """
    kind, value = init_step
    if kind not in FIRST_STEPS:
        raise ValueError(f"scale_by_dog: init_step must begin with {FIRST_STEPS}, got {kind!r}")

    def init(params: Any) -> DogState:
        zero = jnp.zeros((), jnp.result_type(float))
        distance = zero if kind == "learning_rate" else zero + value
        if kind == "heuristic":
            distance = distance * (1 + _weak_norm(params, axis_name))
        return DogState(tree.zero_count(), params, distance, zero)

    def update(updates: Any, state: DogState, params: Any) -> Any:
        moved = tree.map(lambda p, p0: p - p0, params, state.start)
        distance = jnp.maximum(tree.weak(state.distance), _weak_norm(moved, axis_name))
        squares = tree.weak(state.squares) + tree.squared(_weak_norm(updates, axis_name))
        rate = distance / tree.sqrt(squares + eps)
        if kind == "learning_rate":
            rate = jnp.where(state.count == 0, value, rate)
        updates = tree.map(lambda g: rate * tree.saturate(g), updates)
        count = tree.increment(state.count)
        return updates, DogState(count, state.start, distance, squares)

    return init, update


def _weak_norm(updates: Any, axis_name: Any) -> Any:
    return tree.weak(reductions.whole_norm(updates, axis_name))


class DistanceOverGradientsState(NamedTuple):
    """r̄ and G of each leaf, real, of size 1 in each dimension; θ₀, like the params."""

    distance: Any
    squares: Any
    start: Any


@gradient_transformation
def scale_by_distance_over_gradients(
    reps_rel: Initial = 1e-6,
    eps: NonNegative = 1e-8,
    *,
    global_scale: Real = 1.0,
    axis_name: Any = None,
) -> Any:
    """Each leaf u ← r̄ / √(G + ε) · g, its rate found by itself: L-DoG of the paper.

    Args:
      reps_rel: c in r_ε = c (1 + ‖θ₀‖): 1e-4 for networks with batch normalization.
      eps: ε, inside the root.
      global_scale: a factor of the updates; -1 makes them ready to be added.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split.

    Memory: one value per parameter and two per leaf.
    """

    def norm(x: jax.Array) -> jax.Array:
        return reductions.axis_norm(x, tuple(range(x.ndim)), axis_name)

    def init(params: Any) -> DistanceOverGradientsState:
        distance = jax.tree.map(lambda p: reps_rel * (1 + norm(p)), params)
        return DistanceOverGradientsState(distance, tree.zeros_like(distance), params)

    def step(g: jax.Array, r: jax.Array, s: jax.Array, p0: jax.Array, p: jax.Array) -> Any:
        r = jnp.maximum(r, norm(p - p0))
        s = s + tree.squared(norm(g))
        return global_scale * (r / tree.sqrt(s + eps)) * tree.saturate(g), r, s

    def update(updates: Any, state: DistanceOverGradientsState, params: Any) -> Any:
        updates, distance, squares = tree.map(step, updates, *state, params, outputs=3)
        return updates, DistanceOverGradientsState(distance, squares, state.start)

    return init, update


@composition
def dog(
    learning_rate: LearningRate = 1.0,
    init_step: tuple[str, Any] = ("heuristic", 1e-6),
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative | None = None,
    mask: Any = None,
    *,
    axis_name: Any = None,
) -> GradientTransformation:
    """Distance over gradients.

    Args:
      learning_rate: η ≥ 0, a factor on the rate that is found.
      init_step: what decides the first step: ("heuristic", c) for r_ε = c (1 + ‖θ₀‖),
        ("distance", r_ε), or ("learning_rate", η₀) for a first step of η₀g.
      eps: ε, inside the root.
      weight_decay: λ ≥ 0 or None, added to the gradient as λθ.
      mask: which leaves decay: a tree of bools with the params' structure or a prefix of it, or a
        function of the params that returns one.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split.

    >>> import fnopt
    >>> fnopt.dog()
    dog(learning_rate=1.0, init_step=('heuristic', 1e-06), eps=1e-08)
    """
    members = [
        scale_by_dog(init_step, eps, axis_name=axis_name),
        scale_by_learning_rate(learning_rate),
    ]
    if weight_decay is not None:
        members.insert(0, add_decayed_weights(weight_decay, mask))
    return chain(*members)
