"""Triangular systems from the right and from the left, over stacks: X Q⁻¹ and Q⁻¹ X.

What `jax.scipy.linalg.solve_triangular` lacks: the right side, leading axes that broadcast, and an
answer where Q is singular.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def solve_right(x: jax.Array, q: jax.Array, *, lower: bool = False) -> jax.Array:
    """X Q⁻¹ for an upper triangular Q.

    An entry of the diagonal below the dtype's resolution times the largest entry of Q counts as
    that much, so that the answer is finite.

    Args:
      x: (..., m, n).
      q: (..., n, n); the other triangle is not read. Leading axes broadcast with x's.
      lower: Q is lower triangular instead.

    >>> import jax.numpy as jnp
    >>> solve_right(jnp.array([[2.0, 4.0]]), jnp.array([[2.0, 2.0], [0.0, 1.0]]))
    Array([[1., 2.]], dtype=float32)
    """
    return _solved(x, q, lower, left=False)


def solve_left(q: jax.Array, x: jax.Array, *, lower: bool = False) -> jax.Array:
    """Q⁻¹ X for an upper triangular Q, (..., n, n), and X (..., n, m). See `solve_right`."""
    return _solved(x, q, lower, left=True)


def _solved(x: jax.Array, q: jax.Array, lower: bool, left: bool) -> jax.Array:
    shape = jnp.broadcast_shapes(x.shape[:-2], q.shape[:-2])
    x = jnp.broadcast_to(x, (*shape, *x.shape[-2:]))
    if not x.size:
        return x
    triangle = jnp.broadcast_to(jnp.tril(q) if lower else jnp.triu(q), (*shape, *q.shape[-2:]))
    real = jnp.finfo(q.dtype)
    size = jnp.max(jnp.abs(triangle), axis=(-2, -1), keepdims=True)
    size = jnp.where(size < float(real.tiny), jnp.ones_like(size), size).astype(q.dtype)
    triangle = triangle / size
    diagonal = jnp.diagonal(triangle, axis1=-2, axis2=-1)
    least = jnp.asarray(float(real.eps), q.dtype)
    sign = jnp.where(jnp.real(diagonal) < 0, -least, least)
    lift = jnp.where(jnp.abs(diagonal) < float(real.eps), sign - diagonal, 0 * diagonal)
    one = jnp.broadcast_to(jnp.eye(q.shape[-1], dtype=q.dtype), triangle.shape)
    triangle = triangle + lift[..., None] * one
    solved = jax.lax.linalg.triangular_solve(triangle, x, left_side=left, lower=lower)
    return solved / size
