"""Gradients in a subspace: what GaLore and APOLLO keep their moments of.

    R = G Bᴴ,  back: R B        B (r, n), where G (m, n) has m ≥ n
    R = Bᴴ G,  back: B R        B (m, r), where m < n

The shorter side shrinks to r, so that a basis and a projected gradient both have the gradient's
dimensions, with r in the place of one. Leading axes are a batch of matrices.

Inside `shard_map` and `pmap` a matrix (m, n) may lie in parts of its rows, over mesh axes `over`.
Then R (m, r), or B (m, r), has the same rows in parts, and the other is whole on each device.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from fnopt import mesh_axes, tree
from fnopt.tree import PyTree

Shape = tuple[int, ...]
Axes = tuple[Any, ...]


def is_matrix(x: jax.Array) -> bool:
    """Whether a leaf has rows and columns."""
    return x.ndim > 1 and x.size > 0


def is_tall(shape: Shape) -> bool:
    """Whether a gradient is projected from the right: at least as many rows as columns."""
    return shape[-2] >= shape[-1]


def low_shape(shape: Shape, rank: int) -> Shape:
    """The shape of R, for a rank of at most the shorter side."""
    rank = min(rank, *shape[-2:])
    return (*shape[:-1], rank) if is_tall(shape) else (*shape[:-2], rank, shape[-1])


def basis_shape(shape: Shape, rank: int) -> Shape:
    """The shape of B, for a rank of at most the shorter side."""
    rank = min(rank, *shape[-2:])
    return (*shape[:-2], rank, shape[-1]) if is_tall(shape) else (*shape[:-1], rank)


def rows_over(x: jax.Array, axis_name: Any) -> Axes:
    """The mesh axes of `axis_name` over which a matrix's rows are in parts; a batch's are whole."""
    return mesh_axes.split_axes(x, axis_name) if x.ndim == 2 else ()


def whole_shape(x: jax.Array, over: Axes) -> Shape:
    """The shape of the leaf that x is a part of."""
    return mesh_axes.whole_shape(x, over) if over else x.shape


def low_zeros(x: jax.Array, rank: int, over: Axes = ()) -> jax.Array:
    """Zeros of R's shape for a matrix, of the leaf's own for another leaf."""
    if not is_matrix(x):
        return jnp.zeros_like(x)
    whole = whole_shape(x, over)
    shape = low_shape(whole, rank)
    return jnp.zeros((x.shape[0], *shape[1:]) if is_tall(whole) else shape, x.dtype)


def basis_zeros(x: jax.Array, rank: int, over: Axes = ()) -> jax.Array:
    """Zeros of B's shape for a matrix."""
    whole = whole_shape(x, over)
    shape = basis_shape(whole, rank)
    return jnp.zeros(shape if is_tall(whole) else (x.shape[0], *shape[1:]), x.dtype)


def project(g: jax.Array, basis: jax.Array, over: Axes = ()) -> jax.Array:
    """R, of shape `low_shape`. The basis has g's leading axes, or none and serves all of g."""
    adjoint = jnp.conj(gathered(basis).mT)
    if is_tall(whole_shape(g, over)):
        return jnp.matmul(g, adjoint)
    return mesh_axes.across(jax.lax.psum, jnp.matmul(adjoint, g), over)


def lift(low: jax.Array, basis: jax.Array, like: jax.Array, over: Axes = ()) -> jax.Array:
    """From the subspace back to the shape of `like`, and its place on an explicit mesh."""
    basis, tall = gathered(basis), is_tall(whole_shape(like, over))
    return beside(jnp.matmul(low, basis) if tall else jnp.matmul(basis, low), like)


def principal_basis(g: jax.Array, last: jax.Array, over: Axes = ()) -> jax.Array:
    """B of g's first right (or left) singular vectors, as many as the last basis has.

    Each vector points the way that the last one did, so that what was gathered along that one is
    not turned around by a sign, which a decomposition leaves open. A constant to derivatives.

    Args:
      g: (..., m, n).
      last: the basis from before, or zeros, of `basis_shape`; the new one is split as it is.

    Cost: one singular value decomposition of each matrix, whole on every device of a mesh.
    """
    g, old = jax.lax.stop_gradient((gathered(g), gathered(last)))
    tall = is_tall(whole_shape(g, over))
    g, old = mesh_axes.whole(g, over), old if tall else mesh_axes.whole(old, over)
    left, _, right = jnp.linalg.svd(tree.limit(g), full_matrices=False)
    basis = right[..., : last.shape[-2], :] if tall else left[..., : last.shape[-1]]
    along = jnp.sum(jnp.conj(basis) * old, axis=-1 if tall else -2, keepdims=True)
    if jnp.iscomplexobj(g):
        basis = basis * jnp.where(along == 0, jnp.ones_like(along), jnp.sign(along))
    else:
        basis = jnp.where(along < 0, -basis, basis)
    return beside(basis if tall else mesh_axes.part(basis, over), last)


def random_bases(key: jax.Array, leaves: PyTree, rank: int, axis_name: Any = None) -> PyTree:
    """For each matrix B of independent normal numbers of variance 1/r, real, without leading axes.

    Matrices of one shape share a draw, in any tree, stacked or apart; None for other leaves.
    """
    drawn: dict[Any, jax.Array] = {}

    def draw(x: jax.Array) -> Any:
        if not is_matrix(x):
            return None
        over = rows_over(x, axis_name)
        sides, real = whole_shape(x, over)[-2:], jnp.finfo(x.dtype).dtype
        shape = basis_shape(sides, rank)
        if (shape, x.dtype) not in drawn:
            normal = jax.random.normal(key, shape, real) / min(rank, *sides) ** 0.5
            drawn[shape, x.dtype] = normal.astype(x.dtype)
        basis = drawn[shape, x.dtype]
        return basis if is_tall(sides) else mesh_axes.part(basis, over)

    return jax.tree.map(draw, leaves)


def gathered(x: jax.Array) -> jax.Array:
    """x with whole matrices on each device of an explicit mesh; elsewhere as it is."""
    place = jax.typeof(x).sharding
    if all(axis is None for axis in place.spec[-2:]):
        return x
    spec = PartitionSpec(*place.spec[:-2], None, None)
    return jax.sharding.reshard(x, NamedSharding(place.mesh, spec))


def beside(x: jax.Array, like: jax.Array) -> jax.Array:
    """x split over an explicit mesh as `like` is; elsewhere as it is."""
    place = jax.typeof(like).sharding
    if place.mesh.empty or jax.typeof(x).sharding == place:
        return x
    return jax.sharding.reshard(x, place)
