"""Dion: Muon's step for a few directions of the momentum at a time; what is left over waits.

    M ← M + G                                     of out outputs and in inputs
    P ← the orthonormal factor of MQ              QR; Q (in, r), at first of normal numbers
    R ← MᵀP
    M ← M − (1−μ)PRᵀ                              what the rank r missed stays in the momentum
    Q ← R / (‖R‖ + ε)                             for each column
    θ ← θ − η(√(out/in) PQᵀ + λθ)

Good for: large layers, whose momentum need not be gathered whole on a mesh, by its authors' tests.
Caveat: at a low rank it needs more steps than Muon. A column of R that is lost in rounding (of a
zero M all are) makes no step and leaves Q's as it is; by the paper it would be noise of full
length. P is a constant to derivatives.
Memory: one value per parameter and in · r for Q; the fallback's for its own.
Source: Ahn et al. 2025, arXiv 2504.05295, and github.com/microsoft/dion.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import reductions, tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Decay, LearningRate, NonNegative
from fnopt.linalg.blocks import as_placed
from fnopt.linalg.householder import orthogonal_factor
from fnopt.linalg.low_rank import beside
from fnopt.linalg.stacks import map_stacks
from fnopt.matrices import View, views
from fnopt.optimizers.adam import adam
from fnopt.optimizers.muon import check, scaled
from fnopt.transforms.constraints import as_key
from fnopt.transforms.decay import add_decayed_weights
from fnopt.transforms.scaling import scale_by_learning_rate
from fnopt.tree import is_none
from fnopt.wrappers.fallback import matrix_or_fallback, named

ROUNDINGS = 32
"""How many roundings of ‖M‖ a column of R has at least that counts."""


class DionState(NamedTuple):
    """M, like the params; Q of each leaf's matrices, (batch, in, r), in a field of its own: it may
    be split along the batch."""

    mu: Any
    q: Any


def _whole(q: jax.Array) -> jax.Array:
    """q whole on every device of an explicit mesh, as stacks are."""
    place = jax.typeof(q).sharding
    if all(axis is None for axis in place.spec):
        return q
    return jax.sharding.reshard(q, jax.sharding.NamedSharding(place.mesh, jax.P()))


@gradient_transformation
def scale_by_dion(
    rank_fraction: float = 1.0,
    beta: Decay = 0.95,
    eps: NonNegative = 1e-8,
    *,
    rank: int | None = None,
    key: Any = 0,
    scale: str = "spectral",
    layout: str = "in_out",
    dimension_numbers: Any = None,
    axis_name: Any = None,
) -> Any:
    """u ← sPQᵀ. A vector is a matrix of one row. See `dion`.

    Memory: one value per parameter and in · r for Q.
    """
    check("dion", scale)
    key = as_key("dion", key)
    if not 0 < rank_fraction <= 1 or (rank is not None and rank < 1):
        raise ValueError(
            "dion: rank_fraction must be in (0, 1] and rank at least 1, "
            f"got {rank_fraction} and {rank}"
        )

    def seen_as(params: Any) -> Any:
        return views(params, dimension_numbers, layout, vectors=True, axis_name=axis_name)

    def init(params: Any) -> DionState:
        def draw(p: jax.Array, view: View | None) -> Any:
            if view is None:
                return None
            r = math.ceil(rank_fraction * view.rows) if rank is None else min(rank, view.rows)
            normal = jax.random.normal(key, (view.fan_in, r), jnp.finfo(p.dtype).dtype)
            return view.vary(jnp.tile(normal.astype(p.dtype), (view.batch, 1, 1)), p)

        return DionState(tree.zeros_like(params), jax.tree.map(draw, params, seen_as(params)))

    def kernel(outputs_first: bool, stacks: Any, kept: Any) -> Any:
        (m,), (q,) = stacks, kept
        m = m if outputs_first else m.mT
        p = orthogonal_factor(jax.lax.stop_gradient(jnp.matmul(m, q)))[0]
        r = jnp.matmul(jnp.conj(m.mT), p)
        size = reductions.axis_norm(r, -2)
        least = ROUNDINGS * float(jnp.finfo(m.dtype).eps) * reductions.axis_norm(m, (-2, -1))
        counts = size > least
        unit = r / jnp.where(counts, size + eps, jnp.ones_like(size)).astype(r.dtype)
        step = jnp.matmul(p, jnp.conj(jnp.where(counts, unit, jnp.zeros_like(unit)).mT))
        m = m - (1 - beta) * jnp.matmul(p, jnp.conj(r.mT))
        both = (m, step) if outputs_first else (m.mT, step.mT)
        return both, (jnp.where(counts, unit, q),)

    def update(updates: Any, state: DionState) -> Any:
        seen, u = seen_as(updates), updates
        q = jax.tree.map(_whole, state.q)
        mu = tree.map(lambda g, m: m + tree.saturate(g), updates, state.mu)
        for first in (True, False):  # whether a matrix's shorter side, its rows, are its outputs
            some = jax.tree.map(lambda v: v if v.inputs_first is not first else None, seen)
            if jax.tree.leaves(some):
                (mu, step), (q,) = map_stacks(partial(kernel, first), some, (mu,), (q,))
                u = jax.tree.map(lambda x, old: old if x is None else x, step, u, is_leaf=is_none)
        q = jax.tree.map(beside, q, state.q)
        return scaled(u, seen, scale), as_placed(DionState(mu, q), state)

    return init, update


@composition
def dion(
    learning_rate: LearningRate,
    rank_fraction: float = 1.0,
    beta: Decay = 0.95,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.01,
    weight_decay_mask: Any = None,
    *,
    rank: int | None = None,
    key: Any = 0,
    scale: str = "spectral",
    layout: str = "in_out",
    dimension_numbers: Any = None,
    fallback: GradientTransformation | None = None,
    axis_name: Any = None,
) -> GradientTransformation:
    """Dion on hidden matrices, Adam or another optimizer on the other leaves.

    What is not said here is as in `muon`.

    Args:
      learning_rate: η ≥ 0 of the matrices; the authors' is 0.01.
      rank_fraction: r over a matrix's shorter side, in (0, 1].
      beta: μ in [0, 1).
      eps: ε ≥ 0.
      weight_decay: λ ≥ 0 of the matrices, multiplied by the learning rate.
      weight_decay_mask: which of the matrices decay.
      rank: r itself, at most the shorter side, in the place of a fraction.
      key: a PRNG key, or an int to make one from, for Q; matrices of one shape share a draw.
      scale: "spectral", "keller_jordan" or "moonlight".
      layout: "in_out" or "out_in".
      dimension_numbers: which leaves are matrices, and their axes.
      fallback: the optimizer of the other leaves; None for `adam(3e-4, b2=0.95, eps=1e-10)`.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension.

    >>> import fnopt
    >>> fnopt.dion(0.01, rank_fraction=0.25).name
    'dion'
    """
    rule = chain(
        scale_by_dion(
            rank_fraction,
            beta,
            eps,
            rank=rank,
            key=key,
            scale=scale,
            layout=layout,
            dimension_numbers=dimension_numbers,
            axis_name=axis_name,
        ),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
    if fallback is None:
        fallback = adam(named(3e-4), b2=0.95, eps=1e-10)
    return matrix_or_fallback("dion", rule, fallback, dimension_numbers, layout, axis_name)
