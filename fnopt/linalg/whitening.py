"""Two small matrices that whiten a large one, P G = Q₁ᴴQ₁ G (Q₂ᴴQ₂)ᵀ, and one step to better ones.

    Q₁, Q₂ of a (m, n) matrix    (m, m) and (n, n), or a diagonal, or None for the identity

With P vec(G) of covariance I they are at rest. Steps are multiplications of Q by I and a little, in
units of a norm, so that gradients of any size are whitened alike:

    triangular_step     A = Q₁ G Q₂ᵀ,  B = Q₁⁻ᴴ V conj(Q₂)⁻¹  of noise V
                        Q₁ ← Q₁ − μ triu(AAᴴ − BBᴴ) Q₁ / ‖AAᴴ + BBᴴ‖,  Q₂ likewise with Aᵀ, Bᵀ
    procrustes_step     T = PG(PG)ᴴ,  c = mn / m,  ℓ = ‖T‖ + c,  L ← max(0.9L + 0.1ℓ, ℓ)
                        Q₁ ← Q₁ − μ (T − cI) Q₁ / L, then turned towards a Hermitian positive
                        matrix; Q₂ likewise with Tᵀ of PGᵀ and c = mn / n

Matrices are stacks (k, m, n), diagonals (k, n). Everything stays finite for finite matrices. To
derivatives a step is a constant but for μ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import tree
from fnopt.linalg.eigen import HIGHEST
from fnopt.linalg.triangular import solve_right

fixed = jax.lax.stop_gradient

SMOOTHING = 0.9
"""Of L, the largest curvature of late."""
TURN = 0.125
"""The largest angle of a rotation, in radians: its series of two terms is then true to 1e-4."""


class Sides(NamedTuple):
    """Something for the rows and for the columns of each matrix of a stack; None for no factor."""

    rows: Any
    columns: Any


def precondition(g: jax.Array, q: Sides, precision: Any = None) -> jax.Array:
    """P G = Q₁ᴴQ₁ G (Q₂ᴴQ₂)ᵀ."""

    def twice(q: jax.Array, x: jax.Array) -> jax.Array:
        if q.ndim == 2:
            return _times(jnp.conj(q), _times(q, x))
        x = tree.limit(jnp.matmul(q, x, precision=precision))
        return tree.limit(jnp.matmul(jnp.conj(q.mT), x, precision=precision))

    return _from_both(twice, q, tree.limit(g))


def triangular_step(g: jax.Array, v: jax.Array, q: Sides, rate: Any) -> Sides:
    """One step of upper triangular Q₁, Q₂ from G and noise V of its shape, without triangles
    solved for a diagonal one."""
    a = _from_both(_times, q, tree.limit(g))
    b = _from_both(_solved, q, v)

    def step(q: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
        one, two = _gram(q, a), _gram(q, b)
        if q.ndim == 2:
            return q - rate * fixed((one - two) / _largest(one + two)) * q
        move = fixed(jnp.triu(one - two) / norm_below(one + two))
        return q - rate * jnp.matmul(move, q, precision=HIGHEST)

    return balanced(_each_side(step, q, Sides(a, a.mT), Sides(b, b.mT)))


def procrustes_step(g: jax.Array, q: Sides, bound: Sides, rate: Any) -> tuple[Sides, Sides]:
    """One step of Q₁, Q₂ without solves, and of L for each, (k,) and real."""
    pg = precondition(g, q, HIGHEST)
    entries = g.shape[-2] * g.shape[-1]

    def step(q: jax.Array, pg: jax.Array, bound: jax.Array) -> tuple[jax.Array, jax.Array]:
        t, c = _gram(q, pg), entries / q.shape[-1]
        size = _largest(t) if q.ndim == 2 else norm_below(t)
        size = fixed(jnp.real(size)).reshape(-1) + c
        bound = jnp.maximum(SMOOTHING * bound + (1 - SMOOTHING) * size, size)
        unit = bound.astype(q.dtype).reshape((-1,) + (1,) * (q.ndim - 1))
        if q.ndim == 2:
            return q - rate * fixed((t - c) / unit) * q, bound
        move = fixed((t - c * jnp.eye(q.shape[-1], dtype=q.dtype)[None]) / unit)
        return turned(q - rate * jnp.matmul(move, q, precision=HIGHEST)), bound

    stepped = _each_side(step, q, Sides(pg, pg.mT), bound)
    pairs = Sides(*((None, None) if side is None else side for side in stepped))
    return balanced(Sides(*(new for new, _ in pairs))), Sides(*(size for _, size in pairs))


def turned(q: jax.Array) -> jax.Array:
    """Q ← OQ, a rotation by at most `TURN` radians towards a Hermitian positive Q.

    O = exp(aR) of R = (Qᴴ − Q) / s, s = ‖Qᴴ − Q‖, and the a that makes tr OQ largest, both to the
    second order: tr RQ = s‖R‖²/2 and tr R²Q = −⟨R, RQ⟩. QᴴQ stays as it is.
    """
    r = jnp.conj(q.mT) - q
    s = norm_below(r)
    r = r / s
    rq = jnp.matmul(r, q, precision=HIGHEST)
    gain = jnp.real(s) / 2 * jnp.sum(tree.squared(r), axis=(-2, -1), keepdims=True)
    loss = jnp.sum(jnp.real(jnp.conj(r) * rq), axis=(-2, -1), keepdims=True)
    steep = loss * TURN > gain
    angle = jnp.where(steep, gain / jnp.where(steep, loss, 1), TURN).astype(q.dtype)
    return q + fixed(angle * (rq + angle / 2 * jnp.matmul(r, rq, precision=HIGHEST)))


def norm_below(a: jax.Array) -> jax.Array:
    """‖Aᴴx‖ / ‖x‖ of the longest column x: no more than the spectral norm, (k, 1, 1); 1 for zero.

    A is normal: Hermitian, or Hermitian but for i.
    """
    size = jnp.max(jnp.abs(a), axis=(-2, -1), keepdims=True)
    size = jnp.where(size < float(jnp.finfo(size.dtype).tiny), 1, size)
    a = a / size.astype(a.dtype)
    lengths = jnp.sum(tree.squared(a), axis=-2, keepdims=True)
    x = jnp.take_along_axis(a, jnp.argmax(lengths, axis=-1, keepdims=True), axis=-1)
    y = jnp.matmul(jnp.conj(a.mT), x, precision=HIGHEST)
    x, y = (jnp.sum(tree.squared(v), axis=-2, keepdims=True) for v in (x, y))
    ratio = jnp.where(y > 0, jnp.sqrt(y / jnp.where(y > 0, x, 1)), 1)
    return (ratio * size).astype(a.dtype)


def balanced(q: Sides) -> Sides:
    """Q₁ and Q₂ with their largest entries alike, which P does not see, and not so large that P
    could overflow."""
    given = [x for x in q if x is not None]
    if not given:
        return q
    sizes = [jnp.max(jnp.abs(x).reshape(x.shape[0], -1), axis=-1) for x in given]
    sizes = [jnp.maximum(size, float(jnp.finfo(size.dtype).tiny)) for size in sizes]
    most = float(jnp.finfo(given[0].dtype).max) ** (0.5 / len(given))
    mean = sizes[0] if len(given) == 1 else jnp.sqrt(sizes[0]) * jnp.sqrt(sizes[1])
    mean = jnp.minimum(mean, most)

    def scaled_by(x: Any) -> Any:
        if x is None:
            return None
        factor = fixed(mean / sizes[0 if x is given[0] else 1]).astype(x.dtype)
        return x * factor.reshape((-1,) + (1,) * (x.ndim - 1))

    return Sides(*(scaled_by(x) for x in q))


def _from_both(f: Callable[..., jax.Array], q: Sides, x: jax.Array) -> jax.Array:
    """f of Q₁ and X, then of Q₂ and its transpose."""
    x = x if q.rows is None else f(q.rows, x)
    return x if q.columns is None else f(q.columns, x.mT).mT


def _each_side(f: Callable[..., Any], q: Sides, *rest: Sides) -> Sides:
    return Sides(*(None if side[0] is None else f(*side) for side in zip(q, *rest)))


def _times(q: jax.Array, x: jax.Array) -> jax.Array:
    """Q X."""
    return tree.limit(q[..., None] * x if q.ndim == 2 else jnp.matmul(q, x, precision=HIGHEST))


def _solved(q: jax.Array, x: jax.Array) -> jax.Array:
    """Q⁻ᴴ X."""
    if q.ndim == 2:
        return tree.limit(x / jnp.conj(q)[..., None])
    return tree.limit(jnp.conj(solve_right(jnp.conj(x.mT), q).mT))


def _gram(q: jax.Array, x: jax.Array) -> jax.Array:
    """X Xᴴ, or its diagonal where Q is one."""
    if q.ndim == 2:
        return jnp.sum(tree.squared(x), axis=-1).astype(q.dtype)
    return jnp.matmul(x, jnp.conj(x.mT), precision=HIGHEST)


def _largest(t: jax.Array) -> jax.Array:
    """Of a diagonal without negative entries, (k, 1); 1 for zero."""
    size = jnp.max(jnp.real(t), axis=-1, keepdims=True)
    return jnp.where(size > 0, size, jnp.ones_like(size)).astype(t.dtype)
