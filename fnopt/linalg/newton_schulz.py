"""Newton-Schulz: the nearest orthogonal matrix by matrix products alone.

    X = M / ‖M‖_F
    steps times:  A = XXᵀ;  X ← aX + (bA + cA²)X

Every singular value goes through the same odd polynomial, p(σ) = aσ + bσ³ + cσ⁵, whose repetition
takes (0, 1] near 1. A matrix much longer than wide is better served by its Gram matrix (the shorter
side squared), and meets the product of the polynomials once, at the end:

    G = XXᵀ,  Q = I
    steps times:  P = aI + bG + cG²;  Q ← PQ;  G ← PGP
    X ← QX

Source: Bernstein and Newhouse 2024, arXiv 2409.20325; the triples at `SEQUENCES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from fnopt import mesh_axes, reductions

MUON = (3.4445, -4.7750, 2.0315)
"""p of five equal steps: steep at zero, the values end between 0.7 and 1.2."""

EXACT = (1.875, -1.25, 0.375)
"""p with p(1) = 1, p′(1) = p″(1) = 0: converges to 1, from small values slowly."""

QUINTIC = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
"""Five different p: the values end within 2% of 1 from about 0.004 on."""

POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
"""Of five p the best for values from 0.001 on, with room for rounding: X is divided by 1.02 ‖M‖."""

Triple = tuple[float, float, float]

SEQUENCES: dict[str, tuple[Sequence[Triple], Triple, float]] = {
    "keller_jordan": ((), MUON, 1.0),
    "quintic": (QUINTIC, EXACT, 1.0),
    "polar_express": (POLAR_EXPRESS, EXACT, 1.02),
    "exact": ((), EXACT, 1.0),
}
"""Name -> the triples of the first steps, that of all further ones, and what ‖M‖ is times.

Muon's (github.com/KellerJordan/Muon); a varying one (the same author's and F. L. Cesista's); Polar
Express (Amsel et al. 2025, arXiv 2505.16932); the Taylor series' of (1 − x)^(−1/2).
"""

GRAM = 2
"""How many times longer than wide a matrix is for the Gram form, if no form is asked for."""

FORMS = ("plain", "gram")


def sequence(coefficients: Any, steps: int) -> tuple[list[tuple[Any, Any, Any]], float]:
    """(a, b, c) of each step, and what the norm is times.

    Args:
      coefficients: a name of `SEQUENCES`, a triple for all steps, or a triple for each step.
      steps: how many; not read where each step has its own triple.

    Raises:
      ValueError: no such name, no triple, or fewer than one step.
    """
    factor = 1.0
    if isinstance(coefficients, str):
        if coefficients not in SEQUENCES:
            known = ", ".join(SEQUENCES)
            raise ValueError(f"Newton-Schulz: no coefficients {coefficients!r}; known: {known}")
        first, further, factor = SEQUENCES[coefficients]
        table = [*first, *[further] * steps][:steps] if steps > 0 else []
    elif coefficients and isinstance(coefficients[0], Sequence):
        table = [(t[0], t[1], t[2]) for t in coefficients if len(t) == 3]
        if len(table) < len(coefficients):
            raise ValueError(f"Newton-Schulz: a step has three coefficients, got {coefficients}")
    elif len(coefficients) == 3:
        table = [(coefficients[0], coefficients[1], coefficients[2])] * steps
    else:
        raise ValueError(f"Newton-Schulz: a step has three coefficients, got {coefficients}")
    if not table:
        raise ValueError(f"Newton-Schulz: steps must be at least 1, got {steps}")
    return table, factor


def orthogonalize(
    x: jax.Array,
    steps: int = 5,
    coefficients: Any = "keller_jordan",
    *,
    form: str | None = None,
    dtype: Any = None,
    precision: Any = None,
) -> jax.Array:
    """UVᵀ, roughly, of each matrix x = UΣVᵀ; zero for a zero matrix.

    The steps are one `lax.scan`, so that the program does not grow with them.

    Args:
      x: (..., m, n); leading axes are a batch.
      steps: how often p is applied; not read where each step has its own triple.
      coefficients: a name of `SEQUENCES`, a triple (a, b, c), or one for each step.
      form: "plain" or "gram"; None for gram where one side is `GRAM` times the other and the
        arithmetic is at least float32: its squares need the digits.
      dtype: of the arithmetic, as bfloat16; None for x's own. The result has x's.
      precision: of the products, as in `jax.numpy.matmul`.

    Cost: for m ≤ n (else transposed) 4m²n + 2m³ operations a step; in the Gram form 4m²n and
    8m³ a step.

    Raises:
      ValueError: an unknown form or name, or coefficients that are no triples.

    >>> import jax.numpy as jnp
    >>> orthogonalize(jnp.diag(jnp.array([3.0, -2.0])), 20, "exact")
    Array([[ 1.,  0.],
           [ 0., -1.]], dtype=float32)
    """
    table, factor = sequence(coefficients, steps)
    if form is not None and form not in FORMS:
        raise ValueError(f"Newton-Schulz: form must be plain, gram or None, got {form!r}")
    if not x.size:
        return x
    original = x.dtype
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    norm = reductions.axis_norm(x, (-2, -1))
    x = x / jnp.where(norm == 0, jnp.ones_like(norm), factor * norm).astype(x.dtype)
    if dtype is not None and not jnp.iscomplexobj(x):
        x = x.astype(dtype)
    triples = jnp.array(table, jnp.finfo(x.dtype).dtype)
    rows, whole = _places(x)
    if form is None:
        short = jnp.finfo(x.dtype).bits < 32 or rows is not None
        form = "plain" if short or x.shape[-1] < GRAM * x.shape[-2] else "gram"
    with jax.numpy_dtype_promotion("standard"):  # a complex x meets real coefficients
        if form == "gram":
            x = _by_gram(x, triples, precision, rows, whole)
        else:
            x = _plainly(x, triples, precision, rows, whole)
    return (x.mT if tall else x).astype(original)


def _plainly(x: jax.Array, triples: jax.Array, precision: Any, rows: Any, whole: Any) -> jax.Array:
    def step(x: jax.Array, triple: jax.Array) -> tuple[jax.Array, None]:
        a, b, c = triple[0], triple[1], triple[2]
        gram = jnp.matmul(x, jnp.conj(x.mT), precision=precision, out_sharding=rows)
        square = jnp.matmul(gram, gram, precision=precision, out_sharding=rows)
        product = jnp.matmul(b * gram + c * square, x, precision=precision, out_sharding=whole)
        return a * x + product, None

    return jax.lax.scan(step, x, triples)[0]


def _by_gram(x: jax.Array, triples: jax.Array, precision: Any, rows: Any, whole: Any) -> jax.Array:
    def times(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.matmul(a, b, precision=precision, out_sharding=rows)

    gram = times(x, jnp.conj(x.mT))
    one = jnp.broadcast_to(jnp.eye(gram.shape[-1], dtype=gram.dtype), gram.shape)
    one = one if rows is None else jax.sharding.reshard(one, rows)
    one = mesh_axes.vary(one, mesh_axes.varying(gram))

    def polynomial(gram: jax.Array, triple: jax.Array) -> jax.Array:
        return triple[0] * one + triple[1] * gram + triple[2] * times(gram, gram)

    def step(carry: Any, triple: jax.Array) -> tuple[Any, None]:
        product, gram = carry
        p = polynomial(gram, triple)
        return (times(p, product), times(times(p, gram), p)), None

    (product, gram), _ = jax.lax.scan(step, (one, gram), triples[:-1])
    product = times(polynomial(gram, triples[-1]), product)
    return jnp.matmul(product, x, precision=precision, out_sharding=whole)


def _places(x: jax.Array) -> tuple[Any, Any]:
    """On an explicit mesh, where XXᵀ is split (by rows, as X is) and where X; None elsewhere."""
    whole = jax.typeof(x).sharding
    if all(axis is None for axis in whole.spec):
        return None, None
    return NamedSharding(whole.mesh, PartitionSpec(*whole.spec[:-1], None)), whole
