"""Members that see the params in another form: `flatten` and `split_real_and_imaginary`."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from fnopt import leaves, tree
from fnopt.core import gradient_transformation


class FlattenState(NamedTuple):
    """The member's state for one vector of each dtype, not like the params, and replicated."""

    inner: Any


def _replicated(x: jax.Array) -> jax.Array:
    """The array, whole on each device of an explicit mesh: what a reshape needs there."""
    sharding = jax.typeof(x).sharding
    if all(axis is None for axis in sharding.spec):
        return x
    return jax.sharding.reshard(x, NamedSharding(sharding.mesh, PartitionSpec()))


def vectors(t: Any) -> dict[str, jax.Array]:
    """All entries of a clean tree in order, as one vector of each dtype."""
    every = jax.tree.leaves(t)
    return {
        name: jnp.concatenate([_replicated(x).reshape(-1) for x in every if x.dtype.name == name])
        for name in sorted({x.dtype.name for x in every})
    }


def unflatten(flat: dict[str, jax.Array], like: Any) -> Any:
    """The entries in the places, shapes and shardings of a tree."""
    every, treedef = tree.flatten(like)
    starts = dict.fromkeys(flat, 0)
    result = []
    for x in every:
        name, size = x.dtype.name, math.prod(x.shape)
        # a gather, for through a slice the compiler would shard the vector as the leaf is, and the
        # state with it: a second compile on an automatic mesh
        places = jnp.arange(starts[name], starts[name] + size)
        part = flat[name].at[places].get(mode="promise_in_bounds").reshape(x.shape)
        place = jax.typeof(x).sharding
        explicit = any(axis is not None for axis in place.spec)
        result.append(jax.sharding.reshard(part, place) if explicit else part)
        starts[name] += size
    return treedef.unflatten(result)


def _stored(t: Any) -> list[Any]:
    """For each vector the one dtype that its leaves are kept in, or an error for who asks."""
    found: dict[str, set[Any]] = {}
    for x, dtype in zip(leaves.flatten(t)[0], leaves.stored_dtypes(t)):
        if x is not None:
            found.setdefault(x.dtype.name, set()).add(dtype)
    return [
        next(iter(dtypes))
        if len(dtypes) == 1
        else ValueError(
            f"flatten: its {name} vector has leaves of {', '.join(sorted(map(str, dtypes)))}, and "
            "does not tell them apart: put it inside, as in master_weights(flatten(...))"
        )
        for name, dtypes in sorted(found.items())
    ]


@gradient_transformation
def flatten(inner: Any) -> Any:
    """A member that sees all leaves as one vector of each dtype: {"float32": (n,)}.

    For very many small leaves. What looks at one leaf at a time (a norm for each layer, a factored
    moment) then looks at the whole. On a mesh the vector is on every device.

    Args:
      inner: any transformation.

    Memory: the member's, and the vectors while a step is made.
    """

    def init(params: Any) -> FlattenState:
        flat = vectors(params)
        with leaves.storing(flat, _stored(params)):
            return FlattenState(inner.init(flat))

    def update(updates: Any, state: FlattenState, params: Any = None, **extra_args: Any) -> Any:
        seen = None if params is None else vectors(params)
        new, kept = inner.update(vectors(updates), state.inner, seen, **extra_args)
        return unflatten(new, updates), FlattenState(kept)

    return init, update


class SplitState(NamedTuple):
    """The member's state, with {"real": ..., "imaginary": ...} in the place of a complex leaf."""

    inner: Any


def _split(t: Any) -> Any:
    def parts(x: jax.Array) -> Any:
        if not jnp.iscomplexobj(x):
            return x
        return {"real": jnp.real(x), "imaginary": jnp.imag(x)}

    return jax.tree.map(parts, t)


@gradient_transformation
def split_real_and_imaginary(inner: Any) -> Any:
    """A member that sees a complex leaf as two real ones.

    fnopt's rules take a complex entry for one number, with one second moment |g|²; behind this each
    part has its own, as in PyTorch. Real leaves stay as they are.

    Args:
      inner: any transformation.

    Memory: the member's.
    """

    def init(params: Any) -> SplitState:
        return SplitState(inner.init(_split(params)))

    def update(updates: Any, state: SplitState, params: Any = None, **extra_args: Any) -> Any:
        seen = None if params is None else _split(params)
        new, kept = inner.update(_split(updates), state.inner, seen, **extra_args)

        def join(u: jax.Array, parts: Any) -> jax.Array:
            if not jnp.iscomplexobj(u):
                return parts
            return jax.lax.complex(parts["real"], parts["imaginary"])

        return jax.tree.map(join, updates, new), SplitState(kept)

    return init, update
