"""Inverse p-th roots of symmetric positive semidefinite stacks: X = (A + ε λmax I)^(−1/p).

    eigh     A = QΛQᵀ;  X = Q (max(Λ, 0) + ε λmax)^(−1/p) Qᵀ
    newton   B = A + ε λmax I,  z = (1 + p) / 2λmax;  M = zB,  X = z^(1/p) I
             repeatedly:  T = ((p + 1) I − M) / p;  M ← TᵖM,  X ← XT       M → I, X → B^(−1/p)

The ridge ε is relative, so that the root of cA is c^(−1/p) times that of A. Newton's way is matrix
products alone, which accelerators are fast at; a decomposition is surer, and faster on a CPU.

Source: Guo and Higham 2006 (the coupled iteration); Anil et al. 2020, arXiv 2002.09018 (its use
for Shampoo, with ε relative and roots of a large error rejected).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fnopt.linalg.eigen import HIGHEST, power_iteration, scaled

METHODS = ("eigh", "newton")
STEPS = 100
"""At most, of Newton's iteration: a small eigenvalue grows about e-fold in one."""


def inverse_root(
    a: jax.Array, p: int, ridge: Any = 1e-6, method: str = "eigh"
) -> tuple[jax.Array, jax.Array]:
    """(A + ε λmax I)^(−1/p) of each matrix, and how far off it is; the identity for a zero matrix.

    Args:
      a: (..., n, n), symmetric or Hermitian, positive semidefinite up to rounding.
      p: ≥ 1.
      ridge: ε ≥ 0, times the largest eigenvalue. Below the dtype's resolution the smallest
        eigenvalues are rounding's, and Newton may not converge.
      method: "eigh" or "newton".

    Returns:
      X: like a. The error: (...), real: max |AQ − QΛ| / λmax for eigh, max |M − I| for newton;
      not a number where A is not finite. A caller keeps an old root where not error <= 0.1.

    >>> import jax.numpy as jnp
    >>> root, error = inverse_root(jnp.diag(jnp.array([1e20, 16e20])), 4, 1e-12)
    >>> jnp.diag(root)
    Array([1.e-05, 5.e-06], dtype=float32)
    """
    if p < 1 or int(p) != p:
        raise ValueError(f"inverse_root: p must be a positive integer, got {p}")
    if method not in METHODS:
        raise ValueError(f"inverse_root: method must be eigh or newton, got {method!r}")
    if not a.size:
        return a, jnp.zeros(a.shape[:-2], jnp.finfo(a.dtype).dtype)
    a, size = scaled((a + jnp.conj(a.mT)) / 2)
    nothing = jnp.all(a == 0, axis=(-2, -1), keepdims=True)
    one = jnp.broadcast_to(jnp.eye(a.shape[-1], dtype=a.dtype), a.shape)
    a = jnp.where(nothing, one, a)
    x, error = _by_eigh(a, p, ridge) if method == "eigh" else _by_newton(a, one, p, ridge)
    x = x * (size ** (-1 / p)).astype(x.dtype)
    return jnp.where(nothing, one, x), error


def _by_eigh(a: jax.Array, p: int, ridge: Any) -> tuple[jax.Array, jax.Array]:
    values, q = jnp.linalg.eigh(a, symmetrize_input=False)
    largest = jnp.max(values, axis=-1, keepdims=True)
    floor = jnp.maximum(ridge, float(jnp.finfo(values.dtype).tiny) ** 0.5).astype(values.dtype)
    powers = (jnp.maximum(values, 0) + floor * largest) ** (-1 / p)
    x = jnp.matmul(q * powers[..., None, :].astype(q.dtype), jnp.conj(q.mT), precision=HIGHEST)
    off = jnp.matmul(a, q, precision=HIGHEST) - q * values[..., None, :].astype(q.dtype)
    return x, jnp.max(jnp.abs(off), axis=(-2, -1)) / largest[..., 0]


def _by_newton(a: jax.Array, one: jax.Array, p: int, ridge: Any) -> tuple[jax.Array, jax.Array]:
    largest = power_iteration(a)[0][..., None, None]
    z = (1 + p) / (2 * largest)
    small = 4 * float(jnp.finfo(z.dtype).eps)

    def times(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.matmul(x, y, precision=HIGHEST)

    def power(x: jax.Array, k: int) -> jax.Array:
        if k == 1:
            return x
        half = power(x, k // 2)
        square = times(half, half)
        return times(square, x) if k % 2 else square

    def distance(m: jax.Array) -> jax.Array:
        return jnp.max(jnp.abs(m - one), axis=(-2, -1), keepdims=True)

    def step(carry: Any) -> Any:
        i, m, x, error, going = carry
        t = ((p + 1) * one - m) / p
        next_m = times(power(t, p), m)
        next_error = distance(next_m)
        # Far from I entries may grow, never beyond 1; near it only rounding makes them grow.
        better = going & (next_error < jnp.where(error > 0.1, jnp.maximum(error, 1.01), error))
        m, x = (jnp.where(better, new, old) for new, old in ((next_m, m), (times(x, t), x)))
        error = jnp.where(better, next_error, error)
        return i + 1, m, x, error, better & (error > small)

    def unfinished(carry: Any) -> jax.Array:
        return (carry[0] < STEPS) & jnp.any(carry[-1])

    m = (z.astype(a.dtype)) * (a + (ridge * largest).astype(a.dtype) * one)
    error = distance(m)
    x = (z ** (1 / p)).astype(a.dtype) * one
    start = (jnp.zeros((), jnp.int32), m, x, error, error > small)
    _, _, x, error, _ = jax.lax.while_loop(unfinished, step, start)
    return (x + jnp.conj(x.mT)) / 2, error[..., 0, 0]
