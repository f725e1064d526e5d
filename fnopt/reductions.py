"""Sums and norms over leaves and whole trees: true for large, small and many entries.

What `fnopt.tree` says entry by entry, this says of all entries together.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnopt import meetings, mesh_axes
from fnopt import tree as trees
from fnopt.tree import PyTree


@functools.partial(jax.jit, static_argnums=1)
def _double_square_sum(x: jax.Array, axis: Any = None) -> jax.Array:
    """Σ|x|² in float64: one pass, and no float32 square overflows or vanishes there."""
    parts = [jnp.real(x), jnp.imag(x)] if jnp.iscomplexobj(x) else [x]
    wide = [jax.lax.convert_element_type(part, np.float64) for part in parts]
    sums = [jnp.sum(w * w, axis=axis, keepdims=axis is not None) for w in wide]
    return sums[0] + sums[1] if len(sums) > 1 else sums[0]


def _sum_of(terms: list[jax.Array]) -> jax.Array:
    """Σ of the leaves' scalars, once: without the barrier it becomes a chain of as many additions,
    which the CPU compiler puts into every loop that reads the sum."""
    return jnp.sum(jax.lax.optimization_barrier(jnp.stack(terms)))


def _plain_sum_of(terms: list[jax.Array]) -> jax.Array:
    return jnp.stack(terms).sum()


Axes = tuple[tuple[Any, ...], ...]
"""For each leaf the mesh axes that it is split over."""


def _by_axes(terms: Sequence[Any], axes: Axes) -> dict[tuple[Any, ...], list[Any]]:
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for term, names in zip(terms, axes):
        groups.setdefault(names, []).append(term)
    return groups


def _sum_over(terms: Sequence[jax.Array], axes: Axes, add: Any = _plain_sum_of) -> jax.Array:
    """Σ of the leaves' scalars, each over its leaf's mesh axes."""
    groups = _by_axes(terms, axes).items()
    return _sum([mesh_axes.across(jax.lax.psum, add(group), names) for names, group in groups])


def _double_norm(leaves: Sequence[jax.Array], axes: Axes) -> jax.Array:
    with jax.enable_x64(True):
        total = _sum_over([_double_square_sum(x) for x in leaves], axes, _sum_of)
        return jax.lax.convert_element_type(jnp.sqrt(total), np.float32)


def _scaled_norm(leaves: Sequence[jax.Array], axes: Axes) -> jax.Array:
    """Two passes, divided by the largest magnitude: where no wider type exists."""
    dtype = jnp.float64 if any(_is_double(x) for x in leaves) else jnp.float32
    sizes = [jnp.max(jnp.abs(x), initial=0).astype(dtype) for x in leaves]
    groups = _by_axes(sizes, axes).items()
    largest = functools.reduce(
        jnp.maximum,
        [mesh_axes.across(jax.lax.pmax, jnp.stack(group).max(), names) for names, group in groups],
    )
    finite = (largest > 0) & (largest < jnp.inf)
    divisor = jnp.where(finite, largest, jnp.ones_like(largest))
    terms = [jnp.sum(jnp.square(jnp.abs(x).astype(dtype) / divisor)) for x in leaves]
    return jnp.sqrt(_sum_over(terms, axes)) * divisor


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _norm(axes: Axes, leaves: Sequence[jax.Array]) -> jax.Array:
    if any(_is_double(x) for x in leaves):
        wide = [x if _is_double(x) else x.astype(_double_of(x)) for x in leaves]
        return _scaled_norm(wide, axes)
    return jax.lax.platform_dependent(
        leaves,
        tpu=lambda xs: _scaled_norm([_single(x) for x in xs], axes),
        default=lambda xs: _double_norm(xs, axes),
    )


@_norm.defjvp
def _norm_jvp(axes: Axes, primals: Any, tangents: Any) -> Any:
    (leaves,), (dots,) = primals, tangents
    norm = _norm(axes, leaves)
    divisor = trees.weak(_nonzero(norm))
    terms = [
        jnp.sum(jnp.real((jnp.conj(x) / divisor) * dx)).astype(norm.dtype)
        for x, dx in zip(leaves, dots)
    ]
    return norm, _sum_over(terms, axes)


def _nonzero(norm: jax.Array) -> jax.Array:
    """The norm, or 1 where it vanishes: (0/tiny)/ε is compiled as 0/(tiny · ε), which is NaN."""
    return jnp.where(norm > float(jnp.finfo(norm.dtype).tiny), norm, jnp.ones_like(norm))


def _is_double(x: jax.Array) -> bool:
    return bool(jnp.finfo(x.dtype).dtype == jnp.float64)


def _double_of(x: jax.Array) -> Any:
    return jnp.complex128 if jnp.iscomplexobj(x) else jnp.float64


def _single(x: jax.Array) -> jax.Array:
    return x if jnp.iscomplexobj(x) else x.astype(jnp.float32)


def norm(tree: PyTree, axis_name: Any = None) -> jax.Array:
    """√Σ|x|² over all entries of all leaves: float32 (), or float64 if a leaf is.

    One pass in float64 accumulators (on a TPU, which has none, two passes in float32), so that
    neither 1e20 nor 1e-30 is lost and ten million equal entries add up; 0 for an empty tree, inf
    and NaN where an entry is. Its derivative at zero is zero. Inside `shard_map` or `pmap`,
    `axis_name` names the mesh axes over which the tree is split, see `mesh_axes.split_axes`.
    """
    leaves = [x for x in jax.tree.leaves(tree) if x.size]
    if not leaves:
        return jnp.zeros((), jnp.float32)
    return _norm(tuple(mesh_axes.split_axes(x, axis_name) for x in leaves), leaves)


def _scaled_axis_norm(x: jax.Array, axis: Any, over: tuple[Any, ...]) -> jax.Array:
    largest = mesh_axes.across(
        jax.lax.pmax, jnp.max(jnp.abs(x), axis=axis, keepdims=True, initial=0), over
    )
    usual = (largest > float(jnp.finfo(largest.dtype).tiny)) & (largest < jnp.inf)
    divisor = jnp.where(usual, largest, jnp.ones_like(largest))
    scaled = trees.squared(x / divisor.astype(x.dtype))
    total = mesh_axes.across(jax.lax.psum, jnp.sum(scaled, axis=axis, keepdims=True), over)
    return divisor * jnp.sqrt(total)


def _double_axis_norm(x: jax.Array, axis: Any, over: tuple[Any, ...]) -> jax.Array:
    with jax.enable_x64(True):
        total = mesh_axes.across(jax.lax.psum, _double_square_sum(x, axis), over)
        return jax.lax.convert_element_type(jnp.sqrt(total), np.float32)


def _axes_of_parts(x: jax.Array, axis: Any, axis_name: Any) -> tuple[Any, ...]:
    """The mesh axes that a reduction over some axes of a leaf is over too: it lies along them
    where the first dimension is reduced."""
    reduced = [a % max(x.ndim, 1) for a in (axis if isinstance(axis, tuple) else (axis,))]
    return mesh_axes.split_axes(x, axis_name) if 0 in reduced or not x.ndim else ()


def axis_norm(x: jax.Array, axis: int | tuple[int, ...], axis_name: Any = None) -> jax.Array:
    """√Σ|x|² over some axes, kept with size 1, as true as `norm`; real, in x's precision.

    `axis_name` names the mesh axes over which x is split along its first dimension.
    """
    return _axis_norm(x, axis, _axes_of_parts(x, axis, axis_name))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _axis_norm(x: jax.Array, axis: Any, over: tuple[Any, ...]) -> jax.Array:
    if _is_double(x):
        return _scaled_axis_norm(x, axis, over)
    return jax.lax.platform_dependent(
        x,
        tpu=lambda x: _scaled_axis_norm(x, axis, over),
        default=lambda x: _double_axis_norm(x, axis, over),
    )


@_axis_norm.defjvp
def _axis_norm_jvp(axis: Any, over: tuple[Any, ...], primals: Any, tangents: Any) -> Any:
    (x,), (dx,) = primals, tangents
    norm = _axis_norm(x, axis, over)
    divisor = _nonzero(norm).astype(x.dtype)
    dot = jnp.sum(jnp.real(jnp.conj(x / divisor) * dx), axis=axis, keepdims=True)
    return norm, mesh_axes.across(jax.lax.psum, dot, over)


def axis_mean(x: jax.Array, axis: int | tuple[int, ...], axis_name: Any = None) -> jax.Array:
    """The mean over some axes, kept with size 1; `axis_name` as in `axis_norm`."""
    over = _axes_of_parts(x, axis, axis_name)
    return mesh_axes.across(jax.lax.pmean, jnp.mean(x, axis=axis, keepdims=True), over)


def axis_max(x: jax.Array, axis: int | tuple[int, ...], axis_name: Any = None) -> jax.Array:
    """The largest over some axes, at least 0, kept with size 1; `axis_name` as in `axis_norm`."""
    over = _axes_of_parts(x, axis, axis_name)
    return mesh_axes.across(jax.lax.pmax, jnp.max(x, axis=axis, keepdims=True, initial=0.0), over)


def reduced_zeros(x: jax.Array, axis: int | tuple[int, ...], axis_name: Any = None) -> jax.Array:
    """Zeros, real, for what a reduction over some axes gives: of size 1 there."""
    axes = [a % max(x.ndim, 1) for a in (axis if isinstance(axis, tuple) else (axis,))]
    shape = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    zeros = jnp.zeros(shape, jnp.finfo(x.dtype).dtype)
    return mesh_axes.vary(zeros, mesh_axes.varying(x) - {*_axes_of_parts(x, axis, axis_name)})


def _double_total(leaves: list[jax.Array]) -> jax.Array:
    with jax.enable_x64(True):
        wide = [jnp.sum(jax.lax.convert_element_type(x, np.float64)) for x in leaves]
        return jax.lax.convert_element_type(_sum_of(wide), np.float32)


def _plain_total(leaves: list[jax.Array]) -> jax.Array:
    dtype = jnp.result_type(*leaves)
    return jnp.stack([jnp.sum(x).astype(dtype) for x in leaves]).sum()


@jax.custom_jvp
def _total(leaves: list[jax.Array]) -> jax.Array:
    if any(x.dtype == jnp.float64 for x in leaves):
        return _plain_total([x.astype(jnp.float64) for x in leaves])
    return jax.lax.platform_dependent(leaves, tpu=_plain_total, default=_double_total)


@_total.defjvp
def _total_jvp(primals: Any, tangents: Any) -> Any:
    total = _total(*primals)
    return total, _plain_total(*tangents).astype(total.dtype)


def total(terms: Any, axis_name: Any) -> Any:
    """The sum of all entries of all leaves, which are real: a weakly typed scalar.

    Added up in float64, so that ten million equal terms do (and because the CPU compiler stores
    most terms before a sum in float32).
    """
    found = [x for x in jax.tree.leaves(terms) if x.size]
    groups = _by_axes(found, tuple(mesh_axes.split_axes(x, axis_name) for x in found)).items()
    sums = [mesh_axes.across(jax.lax.psum, _total(group), names) for names, group in groups]
    return trees.weak(meetings.share(_sum(sums) if sums else jnp.zeros(()), _sum))


def dot(a: PyTree, b: PyTree, axis_name: Any = None) -> Any:
    """Re⟨a, b⟩ over two trees, weakly typed."""
    return total(trees.map(lambda x, y: jnp.real(jnp.conj(x) * y), a, b), axis_name)


def rms(x: jax.Array, axis_name: Any = None) -> jax.Array:
    """√mean(|x|²) over a leaf, weakly typed; 0 for an empty one."""
    whole = x.size * mesh_axes.parts(x, axis_name)
    return trees.weak(norm([x], axis_name)) / max(whole, 1) ** 0.5


def _sum(parts: list[jax.Array]) -> jax.Array:
    return functools.reduce(jnp.add, parts)


def whole_norm(tree: PyTree, axis_name: Any = None) -> jax.Array:
    """`norm` of a whole tree: over all members of a partition that shares its reductions."""
    return meetings.share(norm(tree, axis_name), norm)
