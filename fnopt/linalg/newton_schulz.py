"""Newton-Schulz: the nearest orthogonal matrix by matrix products alone.

    X = M / ‖M‖_F
    steps times:  A = XXᵀ;  X ← aX + (bA + cA²)X

Every singular value goes through the same odd polynomial, p(σ) = aσ + bσ³ + cσ⁵, whose repetition
takes (0, 1] near 1. Muon's triple trades exactness (the values end between 0.7 and 1.2) for speed:
its slope at zero lifts even small ones in five steps.

Source: Bernstein and Newhouse 2024, arXiv 2409.20325; the triple is Keller Jordan's (Muon).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from fnopt import reductions

MUON = (3.4445, -4.7750, 2.0315)
"""p of five equal steps: steep at zero, the values end between 0.7 and 1.2."""

EXACT = (1.875, -1.25, 0.375)
"""p with p(1) = 1, p′(1) = p″(1) = 0: converges to 1, from small values slowly."""


def orthogonalize(
    x: jax.Array,
    steps: int = 5,
    coefficients: Sequence[Any] = MUON,
    *,
    precision: Any = None,
) -> jax.Array:
    """UVᵀ, roughly, of each matrix x = UΣVᵀ; zero for a zero matrix.

    The steps are one `lax.scan`, so that the program does not grow with them.

    Args:
      x: (..., m, n); leading axes are a batch. In its own dtype: float32 unless given another.
      steps: how often p is applied; not read where each step has its own triple.
      coefficients: (a, b, c), or a sequence of such triples, one for each step.
      precision: of the products, as in `jax.numpy.matmul`.

    Cost: for m ≤ n (else transposed) 4m²n + 2m³ operations a step.

    >>> import jax.numpy as jnp
    >>> orthogonalize(jnp.diag(jnp.array([3.0, -2.0])), 20, EXACT)
    Array([[ 1.,  0.],
           [ 0., -1.]], dtype=float32)
    """
    if not x.size:
        return x
    several = isinstance(coefficients[0], Sequence)
    triples = coefficients if several else [coefficients] * steps
    real = jnp.finfo(x.dtype).dtype
    table = jnp.array(triples, real).reshape(-1, 3)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    norm = reductions.axis_norm(x, (-2, -1))
    x = x / jnp.where(norm == 0, jnp.ones_like(norm), norm).astype(x.dtype)

    rows, whole = _places(x)

    def step(x: jax.Array, triple: jax.Array) -> tuple[jax.Array, None]:
        a, b, c = triple[0], triple[1], triple[2]
        with jax.numpy_dtype_promotion("standard"):  # a complex x meets real coefficients
            gram = jnp.matmul(x, jnp.conj(x.mT), precision=precision, out_sharding=rows)
            square = jnp.matmul(gram, gram, precision=precision, out_sharding=rows)
            poly = b * gram + c * square
            product = jnp.matmul(poly, x, precision=precision, out_sharding=whole)
            return a * x + product, None

    x = jax.lax.scan(step, x, table)[0]
    return x.mT if tall else x


def _places(x: jax.Array) -> tuple[Any, Any]:
    """On an explicit mesh, where XXᵀ is split (by rows, as X is) and where X; None elsewhere."""
    whole = jax.typeof(x).sharding
    if all(axis is None for axis in whole.spec):
        return None, None
    return NamedSharding(whole.mesh, PartitionSpec(*whole.spec[:-1], None)), whole
