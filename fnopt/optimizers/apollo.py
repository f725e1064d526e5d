"""APOLLO: AdamW's rate for each channel, learnt from moments in a small random subspace.

    R = G Pᵀ for G (m, n) with m ≥ n, else Pᵀ G     P of normal numbers / √r, every k steps anew
    M ← β₁M + (1−β₁)R                 V ← β₂V + (1−β₂)R²
    s = ‖M / (√V + ε)‖ / ‖R‖          for each row of R (column where m < n), or for all of R
    U = G s;  U ← U min(1, γ ‖U₋₁‖ / ‖U‖)           the norm-growth limiter
    θ ← θ − η (√α c U + λθ)           c = √(1−β₂ᵗ) / (1−β₁ᵗ)

Vectors and scalars get Adam's step; leading axes of a leaf are a stack of matrices. P is drawn from
the key, the count and the matrix's shape alone: a run that is resumed draws the same, and equal
layers share the draw, stacked or apart.

Good for: pretraining language models with little more than SGD's memory, by its authors' tests.
Caveat: the limiter sees the step before c, as in the authors' code, so that the first steps are
held back. There 10⁻⁸ is added to the norms that divide, so that small gradients vanish, and a
gradient of zero holds a leaf for a thousand steps; here it leaves ‖U₋₁‖ as it was.
Memory: for an (m, n) leaf 2r · max(m, n) + 1 values, half of that with b1=0; for a vector two per
parameter, or one. P is not kept.
Source: Zhu et al. 2024, arXiv 2412.05270, and the authors' code; the limiter: arXiv 2410.01623.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import reductions, tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Bound, Decay, LearningRate, NonNegative, Positive
from fnopt.linalg.low_rank import (
    is_matrix,
    is_tall,
    low_zeros,
    project,
    random_bases,
    rows_over,
    whole_shape,
)
from fnopt.transforms.constraints import as_key
from fnopt.transforms.decay import add_decayed_weights
from fnopt.transforms.normalization import reciprocal
from fnopt.transforms.scaling import scale_by_learning_rate

SCALE_TYPES = ("channel", "tensor")


class ApolloState(NamedTuple):
    """The count, int32 (); M, of R's shapes, None for a static b1 of 0; V, real, of the same; ‖U₋₁‖
    of each matrix, None for other leaves."""

    count: Any
    mu: Any
    nu: Any
    norm: Any


@gradient_transformation
def scale_by_apollo(
    *,
    key: Any = None,
    seed: Any = None,
    rank: int = 256,
    update_proj_gap: int = 200,
    scale: Positive = 1.0,
    scale_type: str = "channel",
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    max_growth: Bound = 1.01,
    axis_name: Any = None,
) -> Any:
    """u ← √α c U; Adam's step for vectors and scalars. See `apollo`.

    Memory: for an (m, n) leaf 2r · max(m, n) + 1 values; for a vector two per parameter.
    """
    key = as_key("scale_by_apollo", key, seed)
    if scale_type not in SCALE_TYPES:
        words = " or ".join(SCALE_TYPES)
        raise ValueError(f"scale_by_apollo: scale_type must be {words}, got {scale_type!r}")
    if rank < 1 or update_proj_gap < 1:
        raise ValueError("scale_by_apollo: rank and update_proj_gap must be at least 1")
    no_mean = tree.is_static_zero(b1)

    def init(params: Any) -> ApolloState:
        def norm(p: jax.Array) -> Any:
            real = jnp.finfo(p.dtype).dtype
            return jnp.zeros((*p.shape[:-2], 1, 1), real) if is_matrix(p) else None

        mu = jax.tree.map(lambda p: low_zeros(p, rank, rows_over(p, axis_name)), params)
        nu, norms = tree.real_zeros_like(mu), jax.tree.map(norm, params)
        return ApolloState(tree.zero_count(), None if no_mean else mu, nu, norms)

    def update(updates: Any, state: ApolloState) -> Any:
        t = tree.increment(state.count)
        c1, c2 = tree.debias(b1, t), tree.debias(b2, t)
        now = jax.random.fold_in(key, state.count // update_proj_gap)
        bases = random_bases(now, updates, rank, axis_name)

        def adam(r: jax.Array, m: jax.Array | None, v: jax.Array) -> tuple[jax.Array, jax.Array]:
            v = b2 * v + (1 - b2) * tree.squared(r)
            r = tree.saturate(r)
            return r if m is None else b1 * m + (1 - b1) * r, v

        def step(g: jax.Array, m: Any, v: jax.Array, last: Any, basis: Any) -> tuple[Any, ...]:
            if last is None:
                m, v = adam(g, m, v)
                return c1 * m / (tree.sqrt(c2 * v) + eps), m, v, None
            over = rows_over(g, axis_name)
            tall = is_tall(whole_shape(g, over))
            axes = (-2, -1) if scale_type == "tensor" else (-1,) if tall else (-2,)
            r_over = over if tall else ()  # which has g's rows
            r = project(g, basis, over)
            m, v = adam(r, m, v)
            size = reductions.axis_norm(m / (tree.sqrt(v) + eps), axes, r_over)
            s = size * reciprocal(reductions.axis_norm(r, axes, r_over))
            scaled = s * reductions.axis_norm(g, axes, over)
            norm = reductions.axis_norm(scaled, (-2, -1), r_over if scale_type == "channel" else ())
            most = jnp.where(last > 0, max_growth * last, norm)
            held = jnp.minimum(most * reciprocal(norm), 1.0)
            u = g * (scale**0.5 * (c1 / c2**0.5) * held * s)
            return u, m, v, jnp.where(norm > 0, held * norm, last)

        means = tree.nones_like(updates) if no_mean else state.mu
        fields = means, state.nu, state.norm, bases
        updates, mu, nu, norms = tree.map(step, updates, *fields, outputs=4)
        return updates, ApolloState(t, None if no_mean else mu, nu, norms)

    return init, update


@composition
def apollo(
    learning_rate: LearningRate,
    *,
    key: Any = None,
    seed: Any = None,
    rank: int = 256,
    update_proj_gap: int = 200,
    scale: Positive = 1.0,
    scale_type: str = "channel",
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    max_growth: Bound = 1.01,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
    axis_name: Any = None,
) -> GradientTransformation:
    """APOLLO, approximated gradient scaling.

    Args:
      learning_rate: η ≥ 0.
      key: a PRNG key, or an int to make one from, for the projections.
      seed: another word for an int key.
      rank: r ≥ 1, the dimensions of the subspace; at most a matrix's shorter side.
      update_proj_gap: k ≥ 1, the steps from one draw of the projections to the next.
      scale: α > 0: for a smaller rank a larger one.
      scale_type: "channel" for a scale of each row or column, "tensor" for one of each matrix.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      eps: ε, outside the root.
      max_growth: γ > 0, by how much ‖U‖ may grow in a step; infinite for no limit.
      weight_decay: λ ≥ 0, multiplied by the learning rate.
      mask: which leaves decay: a tree of bools with the params' structure or a prefix of it, or a
        function of the params that returns one.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension. What is of rank r and has no rows in parts is whole on each device.

    >>> import fnopt
    >>> fnopt.apollo(0.01, key=0, rank=64).name
    'apollo'
    """
    rule = scale_by_apollo(
        key=key,
        seed=seed,
        rank=rank,
        update_proj_gap=update_proj_gap,
        scale=scale,
        scale_type=scale_type,
        b1=b1,
        b2=b2,
        eps=eps,
        max_growth=max_growth,
        axis_name=axis_name,
    )
    decay = add_decayed_weights(weight_decay, mask)
    return chain(rule, decay, scale_by_learning_rate(learning_rate))


@composition
def apollo_mini(
    learning_rate: LearningRate,
    *,
    key: Any = None,
    seed: Any = None,
    update_proj_gap: int = 200,
    scale: Positive = 128.0,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    max_growth: Bound = 1.01,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
    axis_name: Any = None,
) -> GradientTransformation:
    """APOLLO-Mini: `apollo` of rank 1, with one scale for each matrix. See `apollo`.

    >>> import fnopt
    >>> fnopt.apollo_mini(0.01, key=0).arguments.arguments["scale"]
    128.0
    """
    return apollo(
        learning_rate,
        key=key,
        seed=seed,
        rank=1,
        update_proj_gap=update_proj_gap,
        scale=scale,
        scale_type="tensor",
        b1=b1,
        b2=b2,
        eps=eps,
        max_growth=max_growth,
        weight_decay=weight_decay,
        mask=mask,
        axis_name=axis_name,
    )
