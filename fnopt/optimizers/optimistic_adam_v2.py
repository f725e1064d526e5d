"""Optimistic Adam: Adam that bets that its direction changes as it last did, for games.

    r ← m̂ / (√v̂ + ε)                  Adam's direction
    θ ← θ − η ((α + β) r − β r₋₁)      r₋₁ = r at the first step

Where two players circle around an equilibrium, as in adversarial networks, it spirals inward.

Good for: games, as between the two networks of a GAN.
Caveat: the name, the arguments and the Nesterov form of r are optax's; the paper has α = β = 1
and no look-ahead inside Adam (`nesterov=False`).
Memory: three values per parameter; one fewer for each of b1=0 and beta=0.
Source: Daskalakis et al. 2017, arXiv 1711.00141, algorithm 1.
"""

from __future__ import annotations

from fnopt.core import GradientTransformation, chain, composition
from fnopt.hyperparameters import Decay, LearningRate, NonNegative, Real
from fnopt.optimizers.adam import scale_by_adam
from fnopt.optimizers.optimistic_gradient_descent import scale_by_optimistic_gradient
from fnopt.storage import StoredMean
from fnopt.transforms.scaling import scale_by_learning_rate


@composition
def optimistic_adam_v2(
    learning_rate: LearningRate,
    *,
    alpha: Real = 1.0,
    beta: Real = 1.0,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: StoredMean = None,
    nesterov: bool = True,
) -> GradientTransformation:
    """Optimistic Adam.

    Args:
      learning_rate: η ≥ 0.
      alpha: α, the weight of the direction.
      beta: β, the weight of its change.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      eps: ε, outside the root.
      eps_root: added inside the root.
      mu_dtype: the dtype or codec that m is stored in, as in `store`; None for the compute dtype.
      nesterov: let Adam's mean look one step ahead.

    >>> import fnopt
    >>> fnopt.optimistic_adam_v2(1e-3, nesterov=False).arguments.arguments["nesterov"]
    False
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
        scale_by_optimistic_gradient(alpha, beta),
        scale_by_learning_rate(learning_rate),
    )
