"""NovoGrad: gradients normalized by their leaf's norm before the momentum gathers them.

    v ← β₂v + (1−β₂)‖g‖²               one number for each leaf; v = ‖g‖² at the first step
    m ← β₁m + g / (√v + ε) + λθ        a sum, not a mean
    θ ← θ − ηm

Good for: speech and image networks with large batches, by its authors' tests.
Caveat: m grows to 1/(1−β₁) normalized gradients. The decay enters the momentum, as the paper has
it, and so is scaled by the learning rate and 1/(1−β₁). β₂ = 0.25 is the first edition's value;
later ones have 0.98 with β₁ = 0.95.
Memory: one value per parameter and one per leaf; one per leaf with b1=0.
Source: Ginsburg et al. 2019, arXiv 1905.11286.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from fnopt import reductions, tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Decay, LearningRate, NonNegative
from fnopt.storage import StoredMean
from fnopt.transforms.scaling import scale_by_learning_rate


class NovogradState(NamedTuple):
    """The count, int32 (); m, like the params, or None; v, real, of the params' ranks, size 1."""

    count: Any
    mu: Any
    nu: Any


@gradient_transformation
def scale_by_novograd(
    b1: Decay = 0.9,
    b2: Decay = 0.25,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
    mu_dtype: StoredMean = None,
    *,
    axis_name: Any = None,
) -> Any:
    """u ← m, the momentum of g / (√(v + eps_root) + ε) + λθ.

    Args:
      b1: β₁ in [0, 1), the decay of the momentum. A static 0 keeps none.
      b2: β₂ in [0, 1), the decay of the squared norms.
      eps: ε, outside the root.
      eps_root: added inside the root, for derivatives through the update.
      weight_decay: λ ≥ 0, gathered in the momentum.
      mu_dtype: the dtype or codec that m is stored in, as in `store`; None for the compute dtype.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split.

    Memory: one value per parameter and one per leaf; one per leaf with b1=0.

    Raises:
      ValueError: in `update`, without params although there is a weight decay.
    """
    no_sum, no_decay = tree.is_static_zero(b1), tree.is_static_zero(weight_decay)

    def init(params: Any) -> NovogradState:
        mu = None if no_sum else tree.zeros_like(params)

        def one(p: jax.Array) -> jax.Array:
            return reductions.reduced_zeros(p, tuple(range(p.ndim)), axis_name)

        return NovogradState(tree.zero_count(), mu, jax.tree.map(one, params))

    def update(updates: Any, state: NovogradState, params: Any = None) -> Any:
        if params is None and not no_decay:
            raise ValueError("scale_by_novograd needs params: call update(updates, state, params)")
        share = tree.weak(state.count > 0) * b2

        def step(g: jax.Array, m: Any, v: jax.Array, p: Any) -> tuple[Any, ...]:
            square = tree.squared(reductions.norm([g], axis_name)).astype(v.dtype)
            v = share * v + (1 - share) * square.reshape(v.shape)
            u = tree.saturate(g) / (tree.sqrt(v + eps_root) + eps)
            u = u if p is None else u + weight_decay * p
            m = u if m is None else b1 * m + u
            return m, m, v

        decaying = tree.nones_like(updates) if no_decay else params
        mu = tree.nones_like(updates) if no_sum else state.mu
        updates, mu, nu = tree.map(step, updates, mu, state.nu, decaying, outputs=3)
        return updates, NovogradState(tree.increment(state.count), None if no_sum else mu, nu)

    return init, update


@composition
def novograd(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.25,
    eps: NonNegative = 1e-6,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
    *,
    axis_name: Any = None,
) -> GradientTransformation:
    """NovoGrad.

    Args:
      learning_rate: η ≥ 0.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      eps: ε, outside the root.
      eps_root: added inside the root.
      weight_decay: λ ≥ 0, gathered in the momentum.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split.

    Raises:
      ValueError: in `update`, without params although there is a weight decay.

    >>> import fnopt
    >>> fnopt.novograd(1e-2, b1=0.95, b2=0.98).arguments.arguments["b2"]
    0.98
    """
    return chain(
        scale_by_novograd(b1, b2, eps, eps_root, weight_decay, axis_name=axis_name),
        scale_by_learning_rate(learning_rate),
    )
