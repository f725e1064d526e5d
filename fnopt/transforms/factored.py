"""A second moment kept as row and column means: `scale_by_factored_rms` and its parts.

Source: Shazeer and Stern 2018 (Adafactor), arXiv 1804.04235.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnopt import mesh_axes, reductions, tree
from fnopt.core import gradient_transformation
from fnopt.fusion import recompute
from fnopt.hyperparameters import NonNegative


class Factored(NamedTuple):
    """One leaf's second moment: (row, col, None), or (None, None, full) where not factored.

    The axes are those of the columns' mean and of the rows' mean; None for the two largest. With
    `axis_name` the leaf is a part, split along its first dimension over these mesh axes.
    """

    row: Any
    col: Any
    full: Any
    axes: tuple[int, int] | None = None
    axis_name: Any = None

    def step(self, x: jax.Array, decay: Any, gain: Any, eps: Any) -> Factored:
        """decay · v + gain · (|x|² + ε), of which only row and column means are kept."""
        if self.full is not None:
            return self._replace(full=decay * self.full + gain * (tree.squared(x) + eps))
        d1, d0 = self.axes or largest_axes(mesh_axes.whole_shape(x, self.axis_name))
        rows = reductions.axis_mean(squares_for(x, self.row), d0, self.axis_name) + eps
        cols = reductions.axis_mean(squares_for(x, self.col), d1, self.axis_name) + eps
        row, col = decay * self.row + gain * rows, decay * self.col + gain * cols
        return self._replace(row=row, col=col)

    def rescale(self, x: jax.Array) -> jax.Array:
        """x / √v."""
        return _rescale(tree.saturate(x), *self._factors(x))

    def rms_of_rescaled(self, x: jax.Array) -> jax.Array:
        """RMS(x / √v), computed again instead of storing x / √v for it."""
        if jnp.iscomplexobj(x):
            return reductions.rms(self.rescale(x), self.axis_name)
        again = lambda x, most, *v: _rescale(_limit(x, most), *v)
        words = recompute(again, x, largest_root(x), *self._factors(x))
        return reductions.rms(words, self.axis_name)

    def _factors(self, x: jax.Array) -> tuple[Any, Any, Any]:
        if self.full is not None:
            return self.full, None, float(jnp.finfo(self.full.dtype).tiny)
        d1, _ = self.axes or largest_axes(mesh_axes.whole_shape(x, self.axis_name))
        mean = reductions.axis_mean(self.row, d1, self.axis_name)
        return tree.sqrt(mean) / tree.sqrt(self.row), 1 / tree.sqrt(self.col), None


def _rescale(x: jax.Array, v: jax.Array, col: Any, tiny: Any) -> jax.Array:
    return x * inverse_root(jnp.maximum(v, tiny)) if col is None else x * v * col


@jax.custom_jvp
def inverse_root(v: jax.Array) -> jax.Array:
    """1/√v, whose derivative is not computed by v to the power of 3/2, which may vanish."""
    return 1 / jnp.sqrt(v)


@inverse_root.defjvp
def _inverse_root_jvp(primals: Any, tangents: Any) -> Any:
    (v,), (dv,) = primals, tangents
    r = inverse_root(v)
    return r, -0.5 * (((dv * r) * r) * r)


def largest_root(x: jax.Array) -> float:
    """The largest magnitude that `tree.squared` does not saturate."""
    return float(float(jnp.finfo(x.dtype).max) ** 0.5 * 2.0**-10)


def _limit(x: jax.Array, most: Any) -> jax.Array:
    return jnp.minimum(jnp.maximum(x, -most), most)


def squares_for(x: jax.Array, reader: jax.Array) -> jax.Array:
    """|x|², saturating, computed for one reader instead of stored for several."""
    if jnp.iscomplexobj(x):
        return tree.squared(x)
    square = lambda x, most, _: jnp.square(_limit(x, most))
    return recompute(square, x, largest_root(x), reader)


def largest_axes(shape: tuple[int, ...]) -> tuple[int, int]:
    """The axes of the second largest and the largest size, later axes first among equals."""
    d1, d0 = np.argsort(shape, kind="stable")[-2:]
    return int(d1), int(d0)


def factored_zeros(
    params: Any,
    is_factored: Callable[[jax.Array], bool],
    axes: tuple[int, int] | None = None,
    axis_name: Any = None,
) -> tuple[Any, Any, Any]:
    """Zeros for R, C and v of every leaf, or None where `is_factored(leaf)` says so."""

    def zeros(p: jax.Array, field: str) -> Any:
        if not is_factored(p):
            real = jnp.finfo(p.dtype).dtype
            return jnp.zeros_like(p, dtype=real) if field == "full" else None
        if field == "full":
            return None
        d1, d0 = axes or largest_axes(mesh_axes.whole_shape(p, axis_name))
        return reductions.reduced_zeros(p, d0 if field == "row" else d1, axis_name)

    row, col, full = (
        jax.tree.map(lambda p: zeros(p, field), params) for field in ("row", "col", "full")
    )
    return row, col, full


def large_leaves(factored: bool, least: int, axis_name: Any = None) -> Callable[[jax.Array], bool]:
    """Which leaves are factored: those whose two largest axes are `least` long or longer."""

    def is_large(p: jax.Array) -> bool:
        shape = mesh_axes.whole_shape(p, axis_name)
        return factored and p.ndim > 1 and p.size > 0 and sorted(shape)[-2] >= least

    return is_large


def weight_of_new(count: jax.Array, decay_rate: Any, offset: Any) -> jax.Array:
    """1 − β = t^{−decay_rate} with t = count − offset, at least 1."""
    t = tree.weak(jnp.maximum(count.astype(jnp.result_type(float)) - offset, 1.0))
    return t**-decay_rate


class FactoredState(NamedTuple):
    """The count, int32 (); R and C, of factored leaves, with 1 for the mean's axis; v, of others.

    Where a leaf has no part in a field, None stands in its place.
    """

    count: Any
    v_row: Any
    v_col: Any
    v: Any


@gradient_transformation
def scale_by_factored_rms(
    factored: bool = True,
    decay_rate: NonNegative = 0.8,
    step_offset: NonNegative = 0,
    min_dim_size_to_factor: int = 128,
    epsilon: NonNegative = 1e-30,
    *,
    axis_name: Any = None,
) -> Any:
    """u ← u / √v̂, with v̂ = R Cᵀ / mean(R) for factored leaves.

    Args:
      factored: False keeps v whole for every leaf.
      decay_rate: the exponent in β = 1 − t^{−decay_rate}.
      step_offset: t = count + 1 − step_offset, at least 1: where a restored count starts anew.
      min_dim_size_to_factor: the least size of the two largest axes of a factored leaf.
      epsilon: ε, added to g².
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension.

    Memory: for a factored (m, n) leaf m + n values; otherwise one per parameter.
    """
    large = large_leaves(factored, min_dim_size_to_factor, axis_name)

    def init(params: Any) -> FactoredState:
        return FactoredState(tree.zero_count(), *factored_zeros(params, large, axis_name=axis_name))

    def update(updates: Any, state: FactoredState) -> Any:
        count = tree.increment(state.count)
        gain = weight_of_new(count, decay_rate, step_offset)

        def step(g: jax.Array, row: Any, col: Any, v: Any) -> tuple[Any, ...]:
            new = Factored(row, col, v, None, axis_name).step(g, 1 - gain, gain, epsilon)
            return new.rescale(g), new.row, new.col, new.full

        updates, *new = tree.map(step, updates, *state[1:], outputs=4)
        return updates, FactoredState(count, *new)

    return init, update
