"""What the parameters or the updates may be: nonnegative, in a set, without NaN, noisy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import mesh_axes, tree
from fnopt.core import gradient_transformation
from fnopt.hyperparameters import NonNegative


@gradient_transformation
def keep_params_nonnegative() -> Any:
    """u ← max(u, −θ): parameters end at zero or above. The last of a chain. No state.

    Complex leaves pass.
    """

    def keep(u: jax.Array, p: jax.Array) -> jax.Array:
        return u if jnp.iscomplexobj(u) else jnp.maximum(u, -p)

    def update(updates: Any, state: Any, params: Any) -> Any:
        return tree.map(keep, updates, params), state

    return lambda params: (), update


@gradient_transformation
def project(projection: Callable[[Any], Any], per_leaf: bool = False) -> Any:
    """u ← P(θ + u) − θ: parameters end in a set. The last of a chain. No state.

    `project(projection_non_negative)`, or with its arguments given by `functools.partial`:
    `project(partial(projection_l2_ball, scale=3.0))`.

    Args:
      projection: P, a function of a tree, of `fnopt.projections` or your own.
      per_leaf: project each leaf by itself, not the tree as one vector.
    """

    def update(updates: Any, state: Any, params: Any) -> Any:
        moved = tree.add(params, updates)
        held = tree.map(projection, moved) if per_leaf else projection(moved)
        # an entry that P leaves keeps its update, also one too small to see in θ + u
        step = lambda q, x, u, p: jnp.where(q == x, u, q - p)
        return tree.map(step, held, moved, updates, params), state

    return lambda params: (), update


class ZeroNansState(NamedTuple):
    """For each leaf whether the last updates had a NaN in it: bool, of size 1 in each dimension."""

    found_nan: Any


@gradient_transformation
def zero_nans() -> Any:
    """u ← 0 where it is NaN. `tree_get(state, "found_nan")` says in which leaves one was.

    An infinite entry stays. State: one bool per leaf.
    """

    def init(params: Any) -> ZeroNansState:
        return ZeroNansState(tree.map(lambda p: jnp.zeros((1,) * p.ndim, bool), params))

    def step(u: jax.Array) -> tuple[jax.Array, jax.Array]:
        nan = jnp.isnan(u)
        return jnp.where(nan, 0.0, u), jnp.any(nan, keepdims=True)

    def update(updates: Any, state: Any) -> Any:
        updates, found = tree.map(step, updates, outputs=2)
        return updates, ZeroNansState(found)

    return init, update


def as_key(owner: str, key: Any, seed: Any = None) -> jax.Array:
    """A PRNG key from a key or an int; an error where none is given: keys are the user's."""
    if (key is None) == (seed is None):
        raise ValueError(f"{owner}: give one of key (a PRNG key or an int) and seed")
    chosen = seed if key is None else key
    if isinstance(chosen, int):
        return jax.random.key(chosen)
    if not jnp.issubdtype(chosen.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(chosen)
    return chosen


def noise_like(key: jax.Array, count: jax.Array, updates: Any, axis_name: Any = None) -> Any:
    """Standard normal numbers of the updates' shapes: another draw at each count and leaf.

    `axis_name` names the mesh axes over which leaves are split, each along its first dimension:
    each device then draws for the whole leaf, and keeps its part.
    """
    leaves, treedef = tree.flatten(updates)
    keys = jax.random.split(jax.random.fold_in(key, count), max(len(leaves), 1))

    def draw(key: jax.Array, u: jax.Array) -> jax.Array:
        normal = jax.random.normal(key, mesh_axes.whole_shape(u, axis_name), u.dtype)
        return mesh_axes.part(normal, mesh_axes.split_axes(u, axis_name) if u.ndim else ())

    return treedef.unflatten(map(draw, keys, leaves))


class AddNoiseState(NamedTuple):
    """The count, int32 ()."""

    count: Any


@gradient_transformation
def add_noise(
    eta: NonNegative,
    gamma: NonNegative,
    key: Any = None,
    *,
    seed: Any = None,
    axis_name: Any = None,
) -> Any:
    """u ← u + N(0, η / tᵞ), with t from 1.

    The draw is a function of the key and the count, so a run that is resumed draws the same.

    Args:
      eta: η ≥ 0, the first variance.
      gamma: γ ≥ 0, how fast it falls.
      key: a PRNG key, or an int to make one from.
      seed: another word for an int key.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension: each device draws for the whole leaf and keeps its part. Without it
        all parts of a leaf get the same noise.

    Source: Neelakantan et al. 2015, arXiv 1511.06807.
    """
    key = as_key("add_noise", key, seed)

    def update(updates: Any, state: AddNoiseState) -> Any:
        t = tree.increment(state.count)
        time = tree.weak(t.astype(jnp.result_type(float)))
        deviation = tree.weak(jnp.sqrt(eta * time**-gamma))
        noise = noise_like(key, t, updates, axis_name)
        return tree.map(lambda u, n: u + deviation * n, updates, noise), AddNoiseState(t)

    return lambda params: AddNoiseState(tree.zero_count()), update
