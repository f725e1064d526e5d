"""Ranger: RAdam that returns every few steps to slow weights, which follow it half way.

    θ ← θ − η (u + λθ)                 u as in `radam`
    every k steps:  φ ← φ + α(θ − φ);  θ ← φ

Good for: image classifiers without a warm-up to tune, by use more than by tests.
Caveat: β₁ and ε are the authors' (0.95, 1e-5), not RAdam's. Later editions center the gradients
first: `chain(centralize(), ranger(1e-3))`. Evaluate at φ between the returns (`eval_params`).
Memory: three values per parameter; two with b1=0.
Source: Wright 2019, github.com/lessw2020/Ranger-Deep-Learning-Optimizer; Zhang et al. 2019,
arXiv 1907.08610, for the slow weights; Liu et al. 2019, arXiv 1908.03265, for RAdam.
"""

from __future__ import annotations

from typing import Any

from fnopt.core import GradientTransformation, chain, composition
from fnopt.hyperparameters import Decay, Fraction, LearningRate, NonNegative, Positive
from fnopt.optimizers.radam import scale_by_radam
from fnopt.transforms.decay import add_decayed_weights
from fnopt.transforms.scaling import scale_by_learning_rate
from fnopt.wrappers.lookahead import return_to_slow_weights


@composition
def ranger(
    learning_rate: LearningRate,
    *,
    b1: Decay = 0.95,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-5,
    threshold: Positive = 5.0,
    sync_period: int = 6,
    slow_step_size: Fraction = 0.5,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
) -> GradientTransformation:
    """Ranger: RAdam with lookahead.

    Args:
      learning_rate: η ≥ 0.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      eps: ε, outside the root.
      threshold: RAdam's least ρₜ to divide by the second moment.
      sync_period: k, how many steps there are between returns.
      slow_step_size: α, how far the slow weights follow.
      weight_decay: λ ≥ 0, multiplied by the learning rate.
      mask: which leaves decay: a tree of bools with the params' structure or a prefix of it, or a
        function of the params that returns one.

    >>> import fnopt
    >>> fnopt.ranger(1e-3).arguments.arguments["sync_period"]
    6
    """
    return chain(
        scale_by_radam(b1, b2, eps, threshold=threshold),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
        return_to_slow_weights(sync_period, slow_step_size),
    )
