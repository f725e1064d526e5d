"""Gradients in a subspace: what GaLore and APOLLO keep their moments of.

    R = G Bᴴ,  back: R B        B (r, n), where G (m, n) has m ≥ n
    R = Bᴴ G,  back: B R        B (m, r), where m < n

The shorter side shrinks to r, so that a basis and a projected gradient both have the gradient's
dimensions, with r in the place of one. Leading axes are a batch of matrices.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

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


def principal_basis(g: jax.Array, rank: int) -> jax.Array:
    """B of the first r right (or left) singular vectors of g; a constant to derivatives.

    Each vector's largest entry is positive, so that its sign is that of the matrix and not of the
    program that factors it.

    Cost: one singular value decomposition of each matrix, whole on every device of a mesh.
    """
    g = jax.lax.stop_gradient(gathered(g))
    size = jnp.max(jnp.abs(g), axis=(-2, -1), keepdims=True)
    g = g / jnp.where(size > 0, size, jnp.ones_like(size)).astype(g.dtype)
    left, _, right = jnp.linalg.svd(g, full_matrices=False)
    rank, axis = min(rank, *g.shape[-2:]), -1 if is_tall(g.shape) else -2
    basis = right[..., :rank, :] if is_tall(g.shape) else left[..., :rank]
    place = jnp.argmax(jnp.abs(basis), axis=axis, keepdims=True)
    largest = jnp.take_along_axis(basis, place, axis=axis)
    return basis * jnp.conj(jnp.sign(largest))


def random_basis(key: jax.Array, like: jax.Array, rank: int) -> jax.Array:
    """B of independent normal numbers of variance 1/r, real and without leading axes."""
    shape = basis_shape(like.shape[-2:], rank)
    rank = min(rank, *like.shape[-2:])
    normal = jax.random.normal(key, shape, jnp.finfo(like.dtype).dtype)
    return (normal / rank**0.5).astype(like.dtype)


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
