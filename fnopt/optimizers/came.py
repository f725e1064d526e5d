"""CAME: Adafactor with momentum, held back where the momentum is not to be trusted.

    R, C ← β₂R + (1−β₂) mean_row(g² + ε₁), likewise for columns;   v = R Cᵀ / mean(R)
    u = g / √v;   u ← u / max(1, RMS(u)/d)
    m ← β₁m + (1−β₁)u
    S = (u − m)² + ε₂, averaged with β₃ by rows and columns as v is
    θ ← θ − η (m / √S + λθ)                    vectors and scalars: m in place of m / √S

Good for: large language models in little more memory than Adafactor's, by its authors' tests.
Caveat: every leaf of two dimensions or more is factored, over its last two axes. v has no bias
correction: the first steps rely on the clip by RMS.
Memory: one value per parameter; for an (m, n) leaf 2(m + n) more, for a vector one more each.
Source: Luo et al. 2023, arXiv 2307.02047, and the authors' code.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Bound, Decay, LearningRate, NonNegative
from fnopt.transforms.decay import add_decayed_weights
from fnopt.transforms.factored import Factored, factored_zeros
from fnopt.transforms.scaling import scale_by_learning_rate


class CameState(NamedTuple):
    """m, like the params; the means R, C and v of squares; the means of S.

    Rows have size 1 along the last axis, columns along the one before; None stands where a leaf
    has no part in a field: v of factored leaves, the others of vectors and scalars.
    """

    mu: Any
    v_row: Any
    v_col: Any
    v: Any
    s_row: Any
    s_col: Any


def is_factored(p: jax.Array) -> bool:
    """Whether a leaf has rows and columns."""
    return p.ndim > 1 and p.size > 0


@gradient_transformation
def scale_by_came(
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: Decay = 0.9999,
    eps: NonNegative = 1e-30,
    eps_instability: NonNegative = 1e-16,
    clipping_threshold: Bound = 1.0,
    axis_name: Any = None,
) -> Any:
    """u ← m / √S, with m the mean of u / √v.

    Args:
      b1: β₁ in [0, 1), the decay of the mean.
      b2: β₂ in [0, 1), the decay of the mean squares.
      b3: β₃ in [0, 1), the decay of the instability.
      eps: ε₁, added to g².
      eps_instability: ε₂, added to (u − m)².
      clipping_threshold: d, the largest RMS of a leaf's u.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension.

    Memory: one value per parameter; for an (m, n) leaf 2(m + n) more, for a vector one more each.
    """

    def init(params: Any) -> CameState:
        row, col, v = factored_zeros(params, is_factored, axes=(-2, -1))
        s_row, s_col, _ = factored_zeros(params, is_factored, axes=(-2, -1))
        return CameState(tree.zeros_like(params), row, col, v, s_row, s_col)

    def step(g: Any, m: Any, row: Any, col: Any, v: Any, s_row: Any, s_col: Any) -> Any:
        new = Factored(row, col, v, (-2, -1), axis_name).step(g, b2, 1 - b2, eps)
        size = new.rms_of_rescaled(g)
        factor = clipping_threshold / jnp.maximum(size, clipping_threshold)
        u = factor * new.rescale(g)
        m = b1 * m + (1 - b1) * u
        if s_row is None:
            return m, m, None, None, new.full, None, None
        trust = Factored(s_row, s_col, None, (-2, -1), axis_name)
        trust = trust.step(u - m, b3, 1 - b3, eps_instability)
        return trust.rescale(m), m, new.row, new.col, None, trust.row, trust.col

    def update(updates: Any, state: CameState) -> Any:
        updates, *new = tree.map(step, updates, *state, outputs=7)
        return updates, CameState(*new)

    return init, update


@composition
def came(
    learning_rate: LearningRate,
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: Decay = 0.9999,
    eps: NonNegative = 1e-30,
    eps_instability: NonNegative = 1e-16,
    clipping_threshold: Bound = 1.0,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
    axis_name: Any = None,
) -> GradientTransformation:
    """CAME, confidence-guided Adafactor.

    Args:
      learning_rate: η ≥ 0.
      b1: β₁ in [0, 1), the decay of the mean.
      b2: β₂ in [0, 1), the decay of the mean squares.
      b3: β₃ in [0, 1), the decay of the instability.
      eps: ε₁, added to g².
      eps_instability: ε₂, added to (u − m)².
      clipping_threshold: d, the largest RMS of a leaf's u.
      weight_decay: λ ≥ 0, multiplied by the learning rate.
      mask: which leaves decay: a tree of bools with the params' structure or a prefix of it, or a
        function of the params that returns one.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension.

    >>> import fnopt
    >>> fnopt.came(2e-4).name
    'came'
    """
    rule = scale_by_came(
        b1=b1,
        b2=b2,
        b3=b3,
        eps=eps,
        eps_instability=eps_instability,
        clipping_threshold=clipping_threshold,
        axis_name=axis_name,
    )
    decay = add_decayed_weights(weight_decay, mask)
    return chain(rule, decay, scale_by_learning_rate(learning_rate))
