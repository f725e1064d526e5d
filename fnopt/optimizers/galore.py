"""GaLore: Adam, or another rule, in the subspace that a matrix's gradients mostly live in.

    every k steps, the first at t = 1:  P = the first r right singular vectors of G (m, n) with
                                        m ≥ n, else the first r left ones
    R = G P, else Pᵀ G
    N = the base optimizer's update of R
    θ ← θ − η (α N Pᵀ + λθ), else η (α P N + λθ)

Vectors and scalars go to the base optimizer whole; leading axes of a leaf are a stack of matrices.

Good for: pretraining and fine-tuning where AdamW's state does not fit, by its authors' tests.
Caveat: moments are kept when P changes, as in the authors' code, though they belong to the old one;
its vectors only keep their signs. A gradient of zero, when P is renewed, leaves an arbitrary P for
k steps. The shorter side is projected, as by the authors; optax projects the longer one, with a
larger P and smaller moments. α is 0.25 in the paper; the default is optax's, 1.
Memory: for an (m, n) leaf r · min(m, n) values for P and the base optimizer's for r · max(m, n)
parameters, two each for Adam; for a vector the base optimizer's.
Source: Zhao et al. 2024, arXiv 2403.03507, and the authors' code.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from fnopt import mesh_axes, tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import LearningRate, NonNegative
from fnopt.linalg.low_rank import (
    basis_zeros,
    is_matrix,
    lift,
    low_zeros,
    principal_basis,
    project,
    rows_over,
)
from fnopt.optimizers.adam import scale_by_adam
from fnopt.transforms.decay import add_decayed_weights
from fnopt.transforms.scaling import scale_by_learning_rate

ADAM = scale_by_adam()
"""The base optimizer that GaLore has by default."""


class GaloreState(NamedTuple):
    """The count, int32 (); P of each matrix, in the axes' order of the leaf, r in the place of the
    longer side; None for other leaves; the base optimizer's state, of R's shapes."""

    count: Any
    basis: Any
    base_optimizer: Any


@gradient_transformation
def scale_by_galore(
    rank: int = 128,
    update_proj_gap: int = 200,
    scale: NonNegative = 1.0,
    base_optimizer: Any = ADAM,
    *,
    axis_name: Any = None,
) -> Any:
    """u ← α N Pᵀ or α P N; the base optimizer's update for vectors and scalars. See `galore`.

    Memory: for an (m, n) leaf r · min(m, n) values for P and the base optimizer's for
    r · max(m, n) parameters.
    """
    if rank < 1 or update_proj_gap < 1:
        raise ValueError("scale_by_galore: rank and update_proj_gap must be at least 1")

    def init(params: Any) -> GaloreState:
        def start(p: jax.Array) -> Any:
            return basis_zeros(p, rank, rows_over(p, axis_name)) if is_matrix(p) else None

        low = jax.tree.map(lambda p: low_zeros(p, rank, rows_over(p, axis_name)), params)
        state = base_optimizer.init(low)
        return GaloreState(tree.zero_count(), jax.tree.map(start, params), state)

    def update(updates: Any, state: GaloreState, params: Any = None, **extra_args: Any) -> Any:
        due = state.count % update_proj_gap == 0

        def renewed(g: jax.Array, last: Any) -> Any:
            if last is None:
                return None
            over = rows_over(g, axis_name)
            return mesh_axes.cond(due, lambda: principal_basis(g, last, over), lambda: last)

        basis = tree.map(renewed, updates, state.basis)

        def forth(g: jax.Array, b: Any) -> jax.Array:
            return g if b is None else project(g, b, rows_over(g, axis_name))

        low = tree.map(forth, updates, basis)
        low, inner = base_optimizer.update(low, state.base_optimizer, None, **extra_args)

        def back(g: jax.Array, n: jax.Array, b: Any) -> jax.Array:
            return n if b is None else scale * lift(n, b, g, rows_over(g, axis_name))

        updates = tree.map(back, updates, low, basis)
        return updates, GaloreState(tree.increment(state.count), basis, inner)

    return init, update


@composition
def galore(
    learning_rate: LearningRate,
    rank: int = 128,
    update_proj_gap: int = 200,
    scale: NonNegative = 1.0,
    base_optimizer: Any = ADAM,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
    *,
    axis_name: Any = None,
) -> GradientTransformation:
    """GaLore, gradient low-rank projection.

    Args:
      learning_rate: η ≥ 0.
      rank: r ≥ 1, the dimensions of the subspace; at most a matrix's shorter side.
      update_proj_gap: k ≥ 1, the steps from one singular value decomposition to the next.
      scale: α ≥ 0, a factor of the matrices' updates.
      base_optimizer: a transformation that reads no params, as `scale_by_adam(b2=0.99)`: its
        sign is not turned.
      weight_decay: λ ≥ 0, multiplied by the learning rate.
      mask: which leaves decay: a tree of bools with the params' structure or a prefix of it, or a
        function of the params that returns one.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension. What is of rank r and has no rows in parts is whole on each device.

    >>> import fnopt
    >>> fnopt.galore(0.01, rank=64, scale=0.25).name
    'galore'
    """
    return chain(
        scale_by_galore(rank, update_proj_gap, scale, base_optimizer, axis_name=axis_name),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
