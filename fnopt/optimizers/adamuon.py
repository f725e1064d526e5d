"""AdaMuon: Muon of the momentum's signs, with Adam's rate for each entry of what comes out.

    m ← βm + (1−β)g;   u ← m, else u ← βm + (1−β)g      heavy ball, or Nesterov's look-ahead
    O ← UVᵀ of sign(u) = UΣVᵀ, by Newton-Schulz
    v ← β₂v + (1−β₂)O²
    Ô ← O / (√v + ε)
    θ ← θ − η (0.2 √(mn) Ô / ‖Ô‖ + λθ)                  for an (m, n) matrix

Every update has a root mean square of 0.2, about that of AdamW's: its rates carry over.

Good for: the hidden layers of transformers, in fewer steps than Muon by its authors' tests.
Caveat: the update has a full size however small the momentum is; use a rate that falls. v has no
bias correction, which ‖Ô‖ takes out. The authors' first code took no signs, and β₂ = 0.999; this is
their paper's method.
Memory: two values per parameter; the fallback's for its own.
Source: Si et al. 2025, arXiv 2507.11005.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import mesh_axes, reductions, tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Decay, LearningRate, NonNegative
from fnopt.linalg.blocks import as_placed
from fnopt.linalg.newton_schulz import orthogonalize, sequence
from fnopt.linalg.stacks import map_stacks
from fnopt.matrices import views
from fnopt.optimizers.adam import adam
from fnopt.optimizers.mars_muon import by_batch
from fnopt.storage import StoredMean
from fnopt.transforms.decay import add_decayed_weights
from fnopt.transforms.normalization import reciprocal
from fnopt.transforms.scaling import scale_by_learning_rate
from fnopt.wrappers.fallback import matrix_or_fallback, named


class AdaMuonState(NamedTuple):
    """m, like the params; v, real, like them."""

    mu: Any
    nu: Any


@gradient_transformation
def scale_by_adamuon(
    ns_coeffs: Any = "keller_jordan",
    ns_steps: int = 5,
    beta: Decay = 0.95,
    beta2: Decay = 0.95,
    eps: NonNegative = 1e-8,
    mu_dtype: StoredMean = None,
    *,
    nesterov: bool = False,
    layout: str = "in_out",
    ns_dtype: Any = None,
    dimension_numbers: Any = None,
    axis_name: Any = None,
) -> Any:
    """u ← 0.2 √(mn) Ô / ‖Ô‖. A vector is a matrix of one row. See `adamuon`.

    Memory: two values per parameter.
    """
    sequence(ns_coeffs, ns_steps)

    def init(params: Any) -> AdaMuonState:
        return AdaMuonState(tree.zeros_like(params), tree.real_zeros_like(params))

    def momentum(g: jax.Array, m: jax.Array) -> Any:
        m = beta * m + (1 - beta) * tree.saturate(g)
        return m, jnp.sign(beta * m + (1 - beta) * tree.saturate(g) if nesterov else m)

    def kernel(stacks: Any, kept: Any) -> Any:
        return (orthogonalize(stacks[0], ns_steps, ns_coeffs, dtype=ns_dtype),), ()

    def adapted(others: tuple[int, ...], o: jax.Array, v: jax.Array) -> Any:
        """u and v of leaves that have these axes of a batch."""
        axes = tuple(i for i in range(o.ndim) if i not in others)
        over = axis_name if axes else None
        v = beta2 * v + (1 - beta2) * tree.squared(o)
        o = o / (tree.sqrt(v) + eps)
        size = 0.2 * math.prod(mesh_axes.whole_shape(o, over)[i] for i in axes) ** 0.5
        return size * reciprocal(reductions.axis_norm(o, axes, over)) * o, v

    def update(updates: Any, state: AdaMuonState) -> Any:
        seen = views(updates, dimension_numbers, layout, vectors=True, axis_name=axis_name)
        mu, signs = tree.map(momentum, updates, state.mu, outputs=2)
        with jax.numpy_dtype_promotion("standard"):  # a complex O meets its real square
            (turned,), _ = map_stacks(kernel, seen, (signs,))
            turned, nu = by_batch(adapted, seen, turned, state.nu)
        return turned, AdaMuonState(mu, as_placed(nu, state.nu))

    return init, update


@composition
def adamuon(
    learning_rate: LearningRate,
    ns_coeffs: Any = "keller_jordan",
    ns_steps: int = 5,
    beta: Decay = 0.95,
    beta2: Decay = 0.95,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    weight_decay_mask: Any = None,
    mu_dtype: StoredMean = None,
    *,
    nesterov: bool = False,
    layout: str = "in_out",
    ns_dtype: Any = None,
    dimension_numbers: Any = None,
    fallback: GradientTransformation | None = None,
    axis_name: Any = None,
) -> GradientTransformation:
    """AdaMuon on hidden matrices, Adam or another optimizer on the other leaves.

    What is not said here is as in `muon`.

    Args:
      learning_rate: η ≥ 0 of the matrices: AdamW's.
      ns_coeffs: of Newton-Schulz.
      ns_steps: of it.
      beta: β in [0, 1).
      beta2: β₂ in [0, 1); the paper's is β.
      eps: ε ≥ 0, outside the root.
      weight_decay: λ ≥ 0 of the matrices, multiplied by the learning rate.
      weight_decay_mask: which of the matrices decay.
      mu_dtype: the dtype or codec that m is stored in.
      nesterov: let the momentum look one step ahead.
      layout: "in_out" or "out_in".
      ns_dtype: of Newton-Schulz's arithmetic; None for float32.
      dimension_numbers: which leaves are matrices, and their axes.
      fallback: the optimizer of the other leaves; None for `adam(3e-4, b2=0.95, eps=1e-10)`.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension.

    >>> import fnopt
    >>> fnopt.adamuon(1e-3, weight_decay=0.1).name
    'adamuon'
    """
    rule = chain(
        scale_by_adamuon(
            ns_coeffs,
            ns_steps,
            beta,
            beta2,
            eps,
            mu_dtype,
            nesterov=nesterov,
            layout=layout,
            ns_dtype=ns_dtype,
            dimension_numbers=dimension_numbers,
            axis_name=axis_name,
        ),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
    if fallback is None:
        fallback = adam(named(3e-4), b2=0.95, eps=1e-10)
    return matrix_or_fallback("adamuon", rule, fallback, dimension_numbers, layout, axis_name)
