"""Gradients in a subspace: what GaLore and APOLLO keep their moments of.

    R = G Bᴴ,  back: R B        B (r, n), where G (m, n) has m ≥ n
    R = Bᴴ G,  back: B R        B (m, r), where m < n

The shorter side shrinks to r, so that a basis and a projected gradient both have the gradient's
dimensions, with r in the place of one. Leading axes are a batch of matrices.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from fnopt import tree
from fnopt.tree import PyTree

Shape = tuple[int, ...]


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


def low_zeros(x: jax.Array, rank: int) -> jax.Array:
    """Zeros of R's shape for a matrix, of the leaf's own for another leaf."""
    return jnp.zeros(low_shape(x.shape, rank), x.dtype) if is_matrix(x) else jnp.zeros_like(x)


def project(g: jax.Array, basis: jax.Array) -> jax.Array:
    """R, of shape `low_shape`. The basis has g's leading axes, or none and serves all of g."""
    adjoint = jnp.conj(gathered(basis).mT)
    return jnp.matmul(g, adjoint) if is_tall(g.shape) else jnp.matmul(adjoint, g)


def lift(low: jax.Array, basis: jax.Array, like: jax.Array) -> jax.Array:
    """From the subspace back to the shape of `like`, and its place on an explicit mesh."""
    basis = gathered(basis)
    back = jnp.matmul(low, basis) if is_tall(like.shape) else jnp.matmul(basis, low)
    return beside(back, like)


def principal_basis(g: jax.Array, last: jax.Array) -> jax.Array:
    """B of g's first right (or left) singular vectors, as many as the last basis has.

    Each vector points the way that the last one did, so that what was gathered along that one is
    not turned around by a sign, which a decomposition leaves open. A constant to derivatives.

    Args:
      g: (..., m, n).
      last: the basis from before, or zeros, of `basis_shape`; the new one is split as it is.

    Cost: one singular value decomposition of each matrix, whole on every device of a mesh.
    """
    g, old = jax.lax.stop_gradient((gathered(g), gathered(last)))
    left, _, right = jnp.linalg.svd(tree.limit(g), full_matrices=False)
    tall = is_tall(g.shape)
    basis = right[..., : last.shape[-2], :] if tall else left[..., : last.shape[-1]]
    along = jnp.sum(jnp.conj(basis) * old, axis=-1 if tall else -2, keepdims=True)
    if jnp.iscomplexobj(g):
        basis = basis * jnp.where(along == 0, jnp.ones_like(along), jnp.sign(along))
    else:
        basis = jnp.where(along < 0, -basis, basis)
    return beside(basis, last)


def random_bases(key: jax.Array, leaves: PyTree, rank: int) -> PyTree:
    """For each matrix B of independent normal numbers of variance 1/r, real, without leading axes.

    Matrices of one shape share a draw, in any tree, stacked or apart; None for other leaves.
    """
    drawn: dict[Any, jax.Array] = {}

    def draw(x: jax.Array) -> Any:
        if not is_matrix(x):
            return None
        shape, real = basis_shape(x.shape[-2:], rank), jnp.finfo(x.dtype).dtype
        if (shape, x.dtype) not in drawn:
            normal = jax.random.normal(key, shape, real) / min(rank, *x.shape[-2:]) ** 0.5
            drawn[shape, x.dtype] = normal.astype(x.dtype)
        return drawn[shape, x.dtype]

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
