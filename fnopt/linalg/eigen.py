"""Eigenvalues and eigenvectors of symmetric stacks, in full or by a few products.

    power iteration      v ← Av / ‖Av‖,  λ = vᵀAv
    subspace iteration   Q ← the orthogonal factor of A Q, its columns sorted by diag(QᵀAQ) first

Matrices are (..., n, n), symmetric or Hermitian. They are divided by their largest entry first, so
that tiny and huge ones come out as others do.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnopt import mesh_axes
from fnopt.linalg.householder import orthogonal_factor

HIGHEST = jax.lax.Precision.HIGHEST
"""Of the products here: on accelerators the fast ones have too few digits for small eigenvalues."""


def scaled(a: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A / s and s = max |a_ij| of each matrix, (..., 1, 1) and real; zero and s = 1 for zero.

    Matrices of subnormal numbers, which some processors take for zero, count as zero.
    """
    size = jnp.max(jnp.abs(a), axis=(-2, -1), keepdims=True, initial=0)
    nothing = size < float(jnp.finfo(size.dtype).tiny)
    size = jnp.where(nothing, jnp.ones_like(size), size)
    return jnp.where(nothing, jnp.zeros_like(a), a / size.astype(a.dtype)), size


def norms(x: jax.Array) -> jax.Array:
    """Of vectors along the last axis but one that are near one in size, (..., 1, k); 1 for zero."""
    norm = jnp.sqrt(jnp.sum(jnp.abs(x) ** 2, axis=-2, keepdims=True))
    return jnp.where(norm == 0, jnp.ones_like(norm), norm).astype(x.dtype)


def power_iteration(
    a: jax.Array, steps: int = 100, tolerance: float = 1e-6
) -> tuple[jax.Array, jax.Array]:
    """The eigenvalue of the largest magnitude of each matrix, and its vector.

    Starts from the same random vector always. Ends when no eigenvalue grew by more than the
    tolerance in a step. λ is never beyond the true one but for rounding; where the next eigenvalue
    is close it is found well before v is. Of +λ and −λ neither v is found.

    Args:
      a: (..., n, n), symmetric or Hermitian.
      steps: at most.
      tolerance: relative, of λ.

    Returns:
      λ: (...), real. v: (..., n), of length one.

    >>> import jax.numpy as jnp
    >>> power_iteration(jnp.diag(jnp.array([1e20, 3e20])))[0]
    Array(3.e+20, dtype=float32)
    """
    a, size = scaled(a)
    n = a.shape[-1]
    start = np.random.default_rng(0).normal(size=(n, 1))
    v = jnp.broadcast_to(jnp.asarray(start / np.linalg.norm(start), a.dtype), (*a.shape[:-1], 1))

    def value(v: jax.Array, av: jax.Array) -> jax.Array:
        return jnp.sum(jnp.real(jnp.conj(v) * av), axis=(-2, -1))

    def step(carry: Any) -> Any:
        i, v, av, now, _ = carry
        v = av / norms(av)
        av = jnp.matmul(a, v, precision=HIGHEST)
        return i + 1, v, av, value(v, av), now

    def moves(carry: Any) -> jax.Array:
        i, _, _, now, last = carry
        return (i < steps) & jnp.any(jnp.abs(now - last) > tolerance * jnp.abs(now))

    av = jnp.matmul(a, v, precision=HIGHEST)
    now = value(v, av)
    v = mesh_axes.vary(v, mesh_axes.varying(a))
    _, v, _, now, _ = jax.lax.while_loop(
        moves, step, (jnp.zeros((), jnp.int32), v, av, now, jnp.full_like(now, jnp.inf))
    )
    return now * size[..., 0, 0], v[..., 0]


def eigenbasis(a: jax.Array) -> jax.Array:
    """The eigenvectors of each matrix in columns, those of the largest eigenvalues first.

    Where eigenvalues are equal, as in the null space of a matrix of low rank, the vectors are those
    of a diagonal that falls by ε^0.4 of the largest entry (1.7e-3 in float32) from the first entry
    to the last: else rounding would choose them, another way in each program.
    """
    a, _ = scaled(a)
    n, real = a.shape[-1], jnp.finfo(a.dtype)
    falling = float(real.eps) ** 0.4 * np.linspace(1, 0, n) if n > 1 else np.zeros(n)
    diagonal = jnp.broadcast_to(jnp.diag(jnp.asarray(falling, a.dtype)), a.shape)
    return jnp.linalg.eigh(a + diagonal)[1][..., ::-1]


def subspace_iteration(a: jax.Array, q: jax.Array, steps: int = 1) -> tuple[jax.Array, jax.Array]:
    """Steps from the basis q towards the eigenvectors of A: Q ← the orthogonal factor of A Q.

    Columns are first put into the order of their diag(QᵀAQ), the largest first, and point the way
    that AQ does. A repeated step is the QR algorithm for A.

    Args:
      a: (..., n, n), symmetric or Hermitian, without negative eigenvalues.
      q: (..., n, n), orthonormal columns; kept as it is where A is zero.
      steps: how many.

    Returns:
      The new basis, and the order: (..., n) integers, column i came from the old order[i].
      Something kept by columns follows by `jnp.take_along_axis`.

    Cost: a product and a QR decomposition a step.
    """
    a, _ = scaled(a)
    order = jnp.broadcast_to(jnp.arange(a.shape[-1]), a.shape[:-1])
    for _ in range(steps):
        q, order = _turned(a, q, order)
    return q, order


def _turned(a: jax.Array, q: jax.Array, order: jax.Array) -> tuple[jax.Array, jax.Array]:
    aq = jnp.matmul(a, q, precision=HIGHEST)
    along = jnp.sum(jnp.real(jnp.conj(q) * aq), axis=-2)
    places = jnp.argsort(-along, axis=-1, stable=True)
    q, aq = (jnp.take_along_axis(x, places[..., None, :], axis=-1) for x in (q, aq))
    new, diagonal = orthogonal_factor(aq)
    diagonal = diagonal[..., None, :]
    turn = jnp.where(diagonal == 0, jnp.ones_like(diagonal), jnp.sign(diagonal))
    nothing = jnp.all(a == 0, axis=(-2, -1), keepdims=True)
    return jnp.where(nothing, q, new * turn), jnp.take_along_axis(order, places, axis=-1)
