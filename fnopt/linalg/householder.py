"""The orthogonal factor of a matrix: QR, on a CPU in panels that its LAPACK takes on one thread.

    for each panel of columns:  H₁…H_w by LAPACK,  H₁…H_w = I − VTVᴴ
                                T⁻¹ = diag(1/τ) + the strict upper triangle of VᴴV
                                the columns on the right ← (I − VTᴴVᴴ) them
    Q = the panels' products, from the last one back, times the first columns of I

Why: from `LEAST` entries on LAPACK's parts run on threads of their own that wait by turning. For
matrices of this size this costs five to twenty times as much as the arithmetic, the more if other
work is on the machine. Panels stay below, and what is left are products.

Source: Schreiber and Van Loan 1989, the compact WY form, as in LAPACK.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnopt import mesh_axes

LEAST = 96 * 96
"""The entries from which OpenBLAS, which is JAX's LAPACK, takes a matrix by a vector in threads."""

PANEL = 32
"""The columns of a panel."""

MOST = 512
"""The most rows of a matrix that is taken in panels: they need about six times its memory."""

HIGHEST = jax.lax.Precision.HIGHEST
"""As in `fnopt.linalg.eigen`."""


def orthogonal_factor(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Q of x = QR and the diagonal of R.

    Args:
      x: (..., m, n) with m ≥ n.

    Returns:
      Q: (..., m, n), its columns orthonormal, whatever x's rank is; (..., n).

    Cost: as a QR decomposition; in panels about 4mn² operations for each of R and Q.

    >>> import jax.numpy as jnp
    >>> orthogonal_factor(jnp.diag(jnp.array([2.0, -3.0])))[1]
    Array([ 2., -3.], dtype=float32)
    """
    m, n = x.shape[-2:]
    if m * n < LEAST or m > MOST:
        return by_lapack(x)
    return jax.lax.platform_dependent(x, cpu=by_panels, default=by_lapack)


def by_lapack(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The same by one decomposition of the whole."""
    q, r = jnp.linalg.qr(x)
    return q, jnp.diagonal(r, axis1=-2, axis2=-1)


def by_panels(x: jax.Array, width: int = PANEL) -> tuple[jax.Array, jax.Array]:
    """The same in panels of columns: two loops, whose program does not grow with n.

    Before each panel what is left to do is moved to the corner, so that all turns are alike.
    """
    m, n = x.shape[-2:]
    panels = -(-n // width)
    more = panels * width - n
    batch = [(0, 0)] * (x.ndim - 2)
    x = jnp.pad(x, [*batch, (0, max(0, panels * width - m)), (0, more)])

    def forth(x: jax.Array, _: None) -> tuple[jax.Array, Any]:
        v, tau, diagonal = reflections(x[..., :width])
        t = compact(v, tau)
        x = reflected(x, v, t)[..., width:, width:]
        return jnp.pad(x, [*batch, (0, width), (0, width)]), (v, t, diagonal)

    def back(q: jax.Array, panel: Any) -> tuple[jax.Array, None]:
        v, t = panel
        q = jnp.pad(q[..., :-width, :-width], [*batch, (width, 0), (width, 0)]) + corner
        return q - times(v, times(t, times(jnp.conj(v.mT), q))), None

    _, (v, t, diagonal) = jax.lax.scan(forth, x, None, length=panels)
    corner = jnp.pad(jnp.eye(width, dtype=x.dtype), [(0, s - width) for s in x.shape[-2:]])
    corner = jnp.broadcast_to(corner, x.shape)
    start = mesh_axes.vary(jnp.zeros_like(x), mesh_axes.varying(x))
    q, _ = jax.lax.scan(back, start, (v, t), reverse=True)
    diagonal = jnp.moveaxis(diagonal, 0, -2).reshape(*x.shape[:-2], panels * width)
    return q[..., :m, :n], diagonal[..., :n]


def reflections(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """V, τ and the diagonal of R of a panel, by halves where it has too many entries."""
    w = x.shape[-1]
    if x.shape[-2] * w < LEAST or w == 1:
        flat, tau = jnp.linalg.qr(x, mode="raw")
        one = jnp.broadcast_to(jnp.eye(x.shape[-2], w, dtype=x.dtype), x.shape)
        return jnp.tril(flat.mT, -1) + one, tau, jnp.diagonal(flat, axis1=-2, axis2=-1)
    half = w // 2
    left, *first = reflections(x[..., :half])
    rest = reflected(x[..., half:], left, compact(left, first[0]))
    right, *second = reflections(rest[..., half:, :])
    right = jnp.pad(right, [*[(0, 0)] * (x.ndim - 2), (half, 0), (0, 0)])
    both = [jnp.concatenate(pair, -1) for pair in zip((left, *first), (right, *second))]
    return both[0], both[1], both[2]


def reflected(x: jax.Array, v: jax.Array, t: jax.Array) -> jax.Array:
    """(I − VTᴴVᴴ) x."""
    return x - times(v, times(jnp.conj(t.mT), times(jnp.conj(v.mT), x)))


def compact(v: jax.Array, tau: jax.Array) -> jax.Array:
    """T of H₁…H_w = I − VTVᴴ, by halves: (1 + N)⁻¹ diag(τ), N = diag(τ) triu(VᴴV, 1).

    Where τ is zero H is the identity, and so nothing is divided by it.
    """
    w = tau.shape[-1]
    above = tau[..., :, None] * times(jnp.conj(v.mT), v)
    inverse = jnp.broadcast_to(jnp.eye(w, dtype=v.dtype), above.shape)
    place = np.arange(w)
    for level in range(math.ceil(math.log2(w)) if w > 1 else 0):
        half = place >> level
        corner = (half[:, None] % 2 == 0) & (half[None, :] == half[:, None] + 1)
        corner = jnp.broadcast_to(jnp.asarray(corner), above.shape)
        part = jnp.where(corner, above, jnp.zeros_like(above))
        inverse = inverse - times(inverse, times(part, inverse))
    return inverse * tau[..., None, :]


def times(a: jax.Array, b: jax.Array) -> jax.Array:
    """ab with all digits."""
    return jnp.matmul(a, b, precision=HIGHEST)
