"""Differential privacy: gradients of single examples clipped, added up and noised."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import leaves, mesh_axes, reductions, tree
from fnopt.core import gradient_transformation
from fnopt.hyperparameters import NonNegative
from fnopt.transforms.constraints import as_key, noise_like


def batch_size(owner: str, grads: Any) -> int:
    """The size of the leading axis that all gradients have in common; 1 where there are none.

    Raises:
      ValueError: where they have none, with the shapes.
    """
    shapes = [jnp.shape(g) for g in jax.tree.leaves(grads)]
    if not shapes:
        return 1
    sizes = {shape[0] if shape else None for shape in shapes}
    if len(sizes) != 1 or None in sizes:
        raise ValueError(
            f"{owner}: gradients of single examples are needed, with one batch axis in front "
            f"(jax.vmap(jax.grad(loss), (None, 0))); got shapes {shapes}"
        )
    return int(next(iter(sizes)))  # type: ignore[arg-type]


def example_norms(grads: Any, axis_name: Any = None) -> jax.Array:
    """‖gᵢ‖ of each example's whole tree, over all its parts: (batch,)."""

    def leaf_norm(g: jax.Array) -> jax.Array:
        g = g.astype(leaves.compute_dtype(g.dtype))
        return reductions.axis_norm(g, tuple(range(1, g.ndim))).reshape(-1)

    norms = [leaf_norm(g) for g in jax.tree.leaves(grads)]
    whole = jax.vmap(lambda t: reductions.norm(t, axis_name))
    return whole(norms) if norms else jnp.zeros(1)


def _sum_of_clipped(grads: Any, limit: Any, axis_name: Any) -> tuple[Any, jax.Array]:
    """Σᵢ gᵢ · min(1, limit / ‖gᵢ‖), and how many were longer; one pass after the norms."""
    norms = example_norms(grads, axis_name)
    over = norms > limit
    factors = jnp.where(over, limit / jnp.where(over, norms, 1.0), 1.0)

    def add_up(g: jax.Array) -> jax.Array:
        wide = g.astype(leaves.compute_dtype(g.dtype))
        scaled = factors.astype(wide.dtype).reshape((-1,) + (1,) * (g.ndim - 1)) * wide
        return jnp.sum(scaled, axis=0)

    return jax.tree.map(add_up, grads), jnp.sum(over)


def per_example_global_norm_clip(
    grads: Any, l2_norm_clip: Any, *, axis_name: Any = None
) -> tuple[Any, jax.Array]:
    """Σᵢ gᵢ · min(1, C / ‖gᵢ‖), with the norm of each example's whole tree.

    Args:
      grads: gradients of single examples: each leaf has one batch axis in front.
      l2_norm_clip: C ≥ 0.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which params are split, each along
        its first dimension.

    Returns:
      The sum over the batch, and how many examples were clipped, int32 ().

    Source: Abadi et al. 2016, arXiv 1607.00133.
    """
    batch_size("per_example_global_norm_clip", grads)
    return _sum_of_clipped(grads, tree.weak(l2_norm_clip), axis_name)


def per_example_layer_norm_clip(
    grads: Any, global_l2_norm_clip: Any, uniform: bool = True, *, axis_name: Any = None
) -> tuple[Any, Any]:
    """The sum of the examples' gradients with each leaf clipped by itself.

    Leaf k of K, with Dₖ of D parameters, has the bound C / √K, or C √(Dₖ / D) if not `uniform`:
    the whole is then no longer than C.

    Args:
      grads: gradients of single examples: each leaf has one batch axis in front.
      global_l2_norm_clip: C ≥ 0.
      uniform: the same bound for all leaves.
      axis_name: as in `per_example_global_norm_clip`.

    Returns:
      The sum over the batch, and for each leaf how many examples were clipped, int32 ().

    Source: McMahan et al. 2018, arXiv 1710.06963.
    """
    size = max(batch_size("per_example_layer_norm_clip", grads), 1)
    found, treedef = tree.flatten(grads)
    entries = [g.size // size * mesh_axes.parts(g, axis_name) for g in found]
    parts = [1 / len(found) if uniform else n / max(sum(entries), 1) for n in entries]
    bound = tree.weak(global_l2_norm_clip)
    pairs = [_sum_of_clipped(g, bound * part**0.5, axis_name) for g, part in zip(found, parts)]
    return treedef.unflatten(p[0] for p in pairs), treedef.unflatten(p[1] for p in pairs)


class DifferentiallyPrivateAggregateState(NamedTuple):
    """The count, int32 ()."""

    count: Any


@functools.partial(gradient_transformation, per_example=True)
def differentially_private_aggregate(
    l2_norm_clip: NonNegative,
    noise_multiplier: NonNegative,
    key: Any = None,
    *,
    seed: Any = None,
    axis_name: Any = None,
) -> Any:
    """u ← (Σᵢ gᵢ · min(1, C / ‖gᵢ‖) + σC · N(0, 1)) / B, from gradients of B single examples.

    The updates have one batch axis in front of the params' shapes, and lose it here: first in a
    chain. The draw is a function of the key and the count.

    Args:
      l2_norm_clip: C ≥ 0, the longest gradient of an example.
      noise_multiplier: σ ≥ 0, the noise in units of C.
      key: a PRNG key, or an int to make one from.
      seed: another word for an int key.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which params are split, each along
        its first dimension: each device draws for the whole leaf and keeps its part. Without it
        each part is clipped by its own norm, and all parts of a leaf get the same noise.

    Source: Abadi et al. 2016, arXiv 1607.00133.
    """
    name = "differentially_private_aggregate"
    key = as_key(name, key, seed)

    def update(updates: Any, state: DifferentiallyPrivateAggregateState) -> Any:
        size = batch_size(name, updates)
        summed, _ = per_example_global_norm_clip(updates, l2_norm_clip, axis_name=axis_name)
        deviation = noise_multiplier * l2_norm_clip
        if not tree.is_static_zero(deviation):
            noise = noise_like(key, state.count, summed, axis_name)
            summed = tree.map(lambda u, n: u + deviation * n, summed, noise)
        updates = tree.scale(1 / max(size, 1), summed)
        return updates, DifferentiallyPrivateAggregateState(tree.increment(state.count))

    return lambda params: DifferentiallyPrivateAggregateState(tree.zero_count()), update
