"""Euclidean projections: the nearest point of a set, for a vector or a whole tree.

    p = argmin ‖x − p‖²  subject to  p in the set

A tree counts as one long vector: its leaves share one budget. Nothing is stored between calls; as
a transformation that keeps the parameters in a set there is `fnopt.project`. Leaves are real.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fnopt import reductions
from fnopt import tree as trees
from fnopt.tree import PyTree


def _wide(x: Any) -> jax.Array:
    """x in float32, or float64 if it is."""
    x = jnp.asarray(x)
    return x.astype(jnp.float64 if x.dtype == jnp.float64 else jnp.float32)


def _dtype(tree: PyTree) -> Any:
    double = any(jnp.asarray(x).dtype == jnp.float64 for x in jax.tree.leaves(tree))
    return jnp.float64 if double else jnp.float32


def _scaled(factor: Any, tree: PyTree) -> PyTree:
    factor = trees.weak(factor)
    return jax.tree.map(lambda x: factor * jnp.asarray(x), tree)


def _dot(a: PyTree, b: PyTree) -> Any:
    dtype = _dtype((a, b))
    products = jax.tree.map(lambda x, y: jnp.sum(_wide(x) * _wide(y)).astype(dtype), a, b)
    return trees.weak(sum(jax.tree.leaves(products), start=jnp.zeros((), dtype)))


def _norm(tree: PyTree) -> Any:
    return trees.weak(reductions.norm(jax.tree.map(_wide, tree)))


def _ratio(a: Any, b: Any) -> Any:
    """a / b, and 0 where b is."""
    return jnp.where(b == 0, 0.0, a / jnp.where(b == 0, 1.0, b))


def _bounds(bound: Any, tree: PyTree) -> PyTree:
    """A scalar, or a prefix of the tree, as a tree like it."""
    return jax.tree.map(lambda b, below: jax.tree.map(lambda _: b, below), bound, tree)


def projection_non_negative(tree: PyTree) -> PyTree:
    """Onto p ≥ 0."""
    return jax.tree.map(jax.nn.relu, tree)


def projection_box(tree: PyTree, lower: Any, upper: Any) -> PyTree:
    """Onto lower ≤ p ≤ upper, entry by entry.

    Args:
      tree: the point.
      lower: a scalar, or a tree with the structure of `tree` or a prefix of it.
      upper: the same.

    >>> projection_box({"a": 3.0, "b": -0.5}, 0.0, 1.0)
    {'a': Array(1., dtype=float32), 'b': Array(0., dtype=float32)}
    """

    def clip(x: Any, low: Any, high: Any) -> jax.Array:
        x = jnp.asarray(x)
        low, high = (b if jnp.ndim(b) else trees.weak(b) for b in (low, high))
        return jnp.clip(x, low, high).astype(x.dtype)

    return jax.tree.map(clip, tree, _bounds(lower, tree), _bounds(upper, tree))


def projection_hypercube(tree: PyTree, scale: Any = 1) -> PyTree:
    """Onto 0 ≤ p ≤ scale, a scalar or a tree."""
    return projection_box(tree, 0, scale)


def projection_linf_ball(tree: PyTree, scale: Any = 1) -> PyTree:
    """Onto |pᵢ| ≤ scale."""
    scale = trees.weak(scale)
    return projection_box(tree, -scale, scale)


def _excess(tree: PyTree, scale: Any) -> Any:
    """τ such that Σ max(xᵢ − τ, 0) = scale, over all leaves."""
    dtype = _dtype(tree)
    x = jnp.concatenate([jnp.ravel(x).astype(dtype) for x in jax.tree.leaves(tree)])
    most = jnp.max(x)
    # what lies further than the scale below the largest entry ends at zero anyway
    u = -jnp.sort(-jnp.maximum(x - most, -scale))
    count = jnp.arange(1, x.size + 1)
    sums = jnp.cumsum(u) - scale
    held = jnp.maximum(jnp.count_nonzero(u * count.astype(dtype) > sums), 1)
    return trees.weak(most + sums[held - 1] / held.astype(dtype))


def _is_empty(tree: PyTree) -> bool:
    return sum(jnp.size(x) for x in jax.tree.leaves(tree)) == 0


def projection_simplex(tree: PyTree, scale: Any = 1) -> PyTree:
    """Onto p ≥ 0, Σp = scale.

    Args:
      tree: the point.
      scale: what the entries of all leaves add up to.

    Source: Held, Wolfe and Crowder 1974; Duchi et al. 2008.

    >>> import jax.numpy as jnp
    >>> projection_simplex(jnp.array([2.0, 1.5, -1.0]))
    Array([0.75, 0.25, 0.  ], dtype=float32)
    """
    if _is_empty(tree):
        return tree
    excess = _excess(tree, trees.weak(scale))
    return jax.tree.map(lambda x: jax.nn.relu(jnp.asarray(x) - excess), tree)


def _shrunk(tree: PyTree, excess: Any) -> PyTree:
    def shrink(x: Any) -> jax.Array:
        x = jnp.asarray(x)
        size = jax.nn.relu(jnp.abs(x) - excess)
        return jnp.where(x < 0, -size, size)

    return jax.tree.map(shrink, tree)


def projection_l1_sphere(tree: PyTree, scale: Any = 1) -> PyTree:
    """Onto Σ|p| = scale. Zeros move to the positive side."""
    if _is_empty(tree):
        return tree
    return _shrunk(tree, _excess(jax.tree.map(jnp.abs, tree), trees.weak(scale)))


def projection_l1_ball(tree: PyTree, scale: Any = 1) -> PyTree:
    """Onto Σ|p| ≤ scale: entries move toward zero by one amount and stop there.

    >>> import jax.numpy as jnp
    >>> projection_l1_ball(jnp.array([2.0, -1.5, 0.5]))
    Array([ 0.75, -0.25,  0.  ], dtype=float32)
    """
    if _is_empty(tree):
        return tree
    excess = _excess(jax.tree.map(jnp.abs, tree), trees.weak(scale))
    return _shrunk(tree, jnp.maximum(excess, 0.0))


def projection_linf_sphere(tree: PyTree, scale: Any = 1) -> PyTree:
    """Onto max |pᵢ| = scale: from inside the largest entry moves alone, the first of equal ones.

    A zero moves to the positive side.

    >>> import jax.numpy as jnp
    >>> projection_linf_sphere(jnp.array([0.25, -0.5, 0.0]))
    Array([ 0.25, -1.  ,  0.  ], dtype=float32)
    """
    if _is_empty(tree):
        return tree
    leaves, treedef = trees.flatten(jax.tree.map(jnp.asarray, tree))
    scale = trees.weak(scale)
    size = jnp.concatenate([jnp.ravel(jnp.abs(_wide(x))).astype(_dtype(tree)) for x in leaves])
    first, start, moved = jnp.argmax(size), 0, []
    for x in leaves:
        place = jnp.arange(start, start + x.size).reshape(x.shape)
        alone = (place == first) & (jnp.abs(x) < scale)
        pushed = jnp.where(x < 0, -scale, scale)
        moved.append(jnp.where(alone, pushed, jnp.clip(x, -scale, scale)).astype(x.dtype))
        start += x.size
    return treedef.unflatten(moved)


def projection_l2_sphere(tree: PyTree, scale: Any = 1) -> PyTree:
    """Onto ‖p‖ = scale. From zero, to the point of equal entries."""
    if _is_empty(tree):
        return tree
    norm, scale = _norm(tree), trees.weak(scale)
    size = sum(jnp.size(x) for x in jax.tree.leaves(tree))
    start = jnp.where(norm == 0, scale / size**0.5, 0.0)
    factor = _ratio(scale, norm)
    return jax.tree.map(lambda x: factor * jnp.asarray(x) + start, tree)


def projection_l2_ball(tree: PyTree, scale: Any = 1) -> PyTree:
    """Onto ‖p‖ ≤ scale.

    >>> import jax.numpy as jnp
    >>> projection_l2_ball(jnp.array([6.0, 8.0]), 5.0)
    Array([3., 4.], dtype=float32)
    """
    norm, scale = _norm(tree), trees.weak(scale)
    return _scaled(jnp.where(norm > scale, _ratio(scale, norm), 1.0), tree)


def _moved(x: PyTree, factor: Any, a: PyTree) -> PyTree:
    factor = trees.weak(factor)
    return jax.tree.map(lambda u, v: u + factor * _wide(v).astype(jnp.asarray(u).dtype), x, a)


def projection_vector(x: PyTree, a: PyTree) -> PyTree:
    """Onto the line through zero and a: a⟨x, a⟩/⟨a, a⟩; zero for a = 0."""
    return _scaled(_ratio(_dot(x, a), _dot(a, a)), a)


def projection_hyperplane(x: PyTree, a: PyTree, b: Any) -> PyTree:
    """Onto ⟨a, p⟩ = b.

    Args:
      x: the point.
      a: a tree like x, not all zero.
      b: a scalar.
    """
    return _moved(x, _ratio(trees.weak(b) - _dot(x, a), _dot(a, a)), a)


def projection_halfspace(x: PyTree, a: PyTree, b: Any) -> PyTree:
    """Onto ⟨a, p⟩ ≤ b.

    Args:
      x: the point.
      a: a tree like x, not all zero.
      b: a scalar.
    """
    excess = _ratio(trees.weak(b) - _dot(x, a), _dot(a, a))
    return _moved(x, jnp.minimum(excess, 0.0), a)


def projection_affine_set(x: PyTree, a: Any, b: Any) -> PyTree:
    """Onto A p = b, of which the nearest point in the least squares sense where there is none.

    Args:
      x: the point, n entries over all its leaves in order.
      a: A, (k, n), of any rank.
      b: (k,).
    """
    leaves, treedef = trees.flatten(x)
    a, b = _wide(a), _wide(b)
    dtype = _dtype((x, a, b))
    flat = jnp.concatenate([jnp.ravel(leaf).astype(dtype) for leaf in leaves])
    residual = b.astype(dtype) - a.astype(dtype) @ flat
    flat = flat + jnp.linalg.lstsq(a.astype(dtype), residual)[0]
    parts, start = [], 0
    for leaf in leaves:
        size = jnp.size(leaf)
        part = jnp.reshape(flat[start : start + size], jnp.shape(leaf))
        parts.append(part.astype(jnp.asarray(leaf).dtype))
        start += size
    return treedef.unflatten(parts)
