"""State split over the data axis too, and matrix work shared out over it: `zero`, `share_matrices`.

With N devices along the axis each keeps 1/N of the state, makes 1/N of the update, and the
updates are gathered (ZeRO, stage 1; with `scattered_value_and_grad` stage 2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnopt import splits, tree
from fnopt.core import gradient_transformation
from fnopt.rule import routed
from fnopt.splits import ZeroPlan, ZeroState

Place = Callable[[Any, Any, Any, Any], Any]


def places(state: ZeroState, inner: Any, params: Any, place: Place) -> Any:
    """Where a function says that each leaf of an optimizer's state is; None on one device."""

    def of(x: Any, path: Any, param: Any) -> Any:
        keyed = hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.extended)
        if jnp.ndim(x) and not keyed:
            return place(x, path, param, params)
        return state.own((), None, params)

    found = [of(x, path, param) for _, x, path, param in tree.align(inner, params)]
    return jax.tree.unflatten(jax.tree.structure(inner), found)


def automatic(updates: Any, extras: Any) -> bool:
    """Whether the mesh is an automatic one, or can be made so for an update."""
    functions = any(callable(x) for x in jax.tree.leaves(extras))
    return not (functions and splits.is_explicit(updates))


def put_all(t: Any, there: Any) -> Any:
    """The leaves in their places."""
    found: Any = jax.tree.structure(t)
    return found.unflatten(map(splits.put, jax.tree.leaves(t), found.flatten_up_to(there)))


def shared(
    optimizer: Any, axis: str, places: Any, updates: Any, state: Any, params: Any, extras: Any
) -> Any:
    """The optimizer's update with stacks of matrices shared out over a mesh axis.

    What its rules close over cannot be shared out on an explicit mesh, so all of it runs with the
    mesh automatic inside, and comes out in `places`. A function among the extra arguments, which
    closes over arrays of the explicit mesh, prevents that: then nothing is shared out.
    """

    def update(updates: Any, state: Any, params: Any, extras: Any) -> Any:
        with splits.sharing(axis):
            return optimizer.update(updates, state, params, **extras)

    if not splits.is_explicit(updates):
        return update(updates, state, params, extras)
    if not automatic(updates, extras):
        return optimizer.update(updates, state, params, **extras)
    return splits.automatically(update, places)(updates, state, params, extras)


@gradient_transformation
def zero(optimizer: Any, axis: str | ZeroPlan = "data") -> Any:
    """An optimizer whose state is split over a mesh axis beyond its params' own shardings.

    Gradients and params are cut over the axis as the state is, the optimizer runs on the parts,
    and its updates are gathered to the params' shardings. A leaf is cut along its first dimension
    that is whole and that the axis divides, else along the first whose parts it divides once
    more; a leaf that has neither stays on every device. Reductions over the tree and inside a
    leaf are those of whole leaves. Stacks of matrices are shared out, see `share_matrices`.

    `init_sharded` makes the state in its place; `state_shardings` says where that is.

    Args:
      optimizer: any whole optimizer.
      axis: the mesh axis, over which the batch is split and the params are not; or a `zero_plan`
        of the params, which an automatic mesh of several axes needs: there a compiled update does
        not see the params' shardings.

    Raises:
      ValueError: the params' mesh has no such axis, a plan is needed, or has no such parameter.

    Memory: the optimizer's, divided by the axis' size.
    Source: Rajbhandari et al. 2019, arXiv 1910.02054.
    """
    plan = axis if isinstance(axis, ZeroPlan) else None
    name = axis.axis if isinstance(axis, ZeroPlan) else axis

    def init(params: Any) -> ZeroState:
        return ZeroState(optimizer.init(params), name, plan)

    def update(updates: Any, state: ZeroState, params: Any = None, **extra_args: Any) -> Any:
        like = updates if params is None else params
        pairs, found = jax.tree_util.tree_flatten_with_path(like)
        treedef: Any = found

        def moved(t: Any, to: Any) -> Any:
            """A tree like the params in the places that a function says; another as it is."""
            if jax.tree.structure(t) != treedef:
                return t
            leaves = zip(jax.tree.leaves(t), pairs)
            return treedef.unflatten(
                splits.put(x, to(x, path, p, like)) if jnp.shape(x) == p.shape else x
                for x, (path, p) in leaves
            )

        def own(_: Any, *where: Any) -> Any:
            return state.own(*where)

        cut, parts = moved(updates, state.place), moved(params, state.place)
        extras = {word: moved(x, state.place) for word, x in extra_args.items()}
        ends = [state.own(path, p, like) for path, p in pairs]
        there, before = places(state, state.inner, like, state.place), state.inner
        if not automatic(cut, extras):
            before = put_all(before, places(state, before, like, state.beside))
        new, inner = shared(
            optimizer, name, (treedef.unflatten(ends), there), cut, before, parts, extras
        )
        inner = put_all(inner, there)
        return moved(new, own), ZeroState(inner, name, plan)

    return init, update, lambda params: routed(optimizer, params)


@gradient_transformation
def share_matrices(optimizer: Any, axis: str = "data") -> Any:
    """An optimizer whose stacks of matrices are shared out over a mesh axis.

    Each device orthogonalizes or preconditions its part of the matrices of a shape, and the
    results are gathered. The state stays as it is; `zero` splits it too.

    Args:
      optimizer: a matrix optimizer, or one that has some inside.
      axis: the mesh axis, over which params and state are not split; on a mesh without it, and
        on one device, nothing is shared out.

    Memory: the optimizer's.
    """

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        like = updates if params is None else params
        there = jax.tree.map(splits.sharding_of, (like, state))
        return shared(optimizer, axis, there, updates, state, params, extra_args)

    return optimizer.init, update, lambda params: routed(optimizer, params)
