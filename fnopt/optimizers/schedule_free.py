"""Schedule-free SGD and AdamW: an average that is evaluated in place of a rate that falls.

    γ = η·min(1, t/T)                 T warm-up steps
    z ← z − γ(g + λy)                 schedule_free_sgd
    v ← β₂v + (1−β₂)g²                v̂ = v / (1−β₂ᵗ)
    z ← z − γ(g / (√v̂ + ε) + λy)      schedule_free_adamw
    x ← (1−c)x + cz                   c = w/Σw, w = (max γ)ᵖ
    y ← β₁x + (1−β₁)z

The params of the training loop are y, where gradients are taken. Evaluate and deploy at x:
`eval_params(state, params)`.

Good for: training without knowing when it will end; it won AlgoPerf's self-tuning track.
Caveat: batch-norm statistics must be computed anew at x. Give no schedule but a warm-up: w grows
with the largest rate so far. Rates are larger than with a schedule, by 1 to 10 times.
Memory: schedule_free_sgd two values per parameter, schedule_free_adamw three, all float32.
Source: Defazio et al. 2024, arXiv 2405.15682, and facebookresearch/schedule_free.
"""

from __future__ import annotations

from typing import Any

from fnopt.core import chain, gradient_transformation
from fnopt.hyperparameters import Decay, LearningRate, NonNegative
from fnopt.optimizers.adam import scale_by_adam
from fnopt.storage import StoredIterate
from fnopt.transforms.decay import add_decayed_weights
from fnopt.wrappers.schedule_free import interpolated


def _check_warmup(owner: str, warmup_steps: int | None) -> None:
    if warmup_steps is not None and warmup_steps < 1:
        raise ValueError(f"{owner}: warmup_steps must be at least 1 or None, got {warmup_steps}")


def _alone(triple: Any) -> Any:
    """The pair of a method that is one rule: no extra argument goes on to a base."""
    init, update, _ = triple
    return init, lambda updates, state, params: update(updates, state, params)


@gradient_transformation
def schedule_free_sgd(
    learning_rate: LearningRate = 1.0,
    warmup_steps: int | None = None,
    b1: Decay = 0.9,
    weight_decay: NonNegative | None = None,
    weight_lr_power: NonNegative = 2.0,
    state_dtype: StoredIterate = None,
) -> Any:
    """Schedule-free gradient descent.

    Args:
      learning_rate: η ≥ 0.
      warmup_steps: T, the steps over which the rate rises, or None.
      b1: β₁ in [0, 1), how far y is drawn to the average.
      weight_decay: λ ≥ 0 or None, multiplied by the rate, at y.
      weight_lr_power: p ≥ 0.
      state_dtype: the dtype or codec that z is stored in, as in `store`; None for the compute
        dtype.

    >>> import fnopt
    >>> fnopt.schedule_free_sgd(1.0, warmup_steps=100)
    schedule_free_sgd(learning_rate=1.0, warmup_steps=100, b1=0.9, weight_lr_power=2.0)
    """
    _check_warmup("schedule_free_sgd", warmup_steps)
    base = add_decayed_weights(0.0 if weight_decay is None else weight_decay).rule
    return _alone(
        interpolated(
            base, learning_rate, b1, weight_lr_power, warmup_steps=warmup_steps, scaled=False
        )
    )


@gradient_transformation
def schedule_free_adamw(
    learning_rate: LearningRate = 0.0025,
    warmup_steps: int | None = None,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    weight_lr_power: NonNegative = 2.0,
    state_dtype: StoredIterate = None,
) -> Any:
    """Schedule-free AdamW.

    Args:
      learning_rate: η ≥ 0.
      warmup_steps: T, the steps over which the rate rises, or None.
      b1: β₁ in [0, 1), how far y is drawn to the average.
      b2: β₂ in [0, 1), the decay of the mean square.
      eps: ε, outside the root.
      weight_decay: λ ≥ 0, multiplied by the rate, at y.
      weight_lr_power: p ≥ 0.
      state_dtype: the dtype or codec that z is stored in, as in `store`; None for the compute
        dtype.

    >>> import fnopt
    >>> fnopt.schedule_free_adamw().name
    'schedule_free_adamw'
    """
    _check_warmup("schedule_free_adamw", warmup_steps)
    base = chain(scale_by_adam(0.0, b2, eps), add_decayed_weights(weight_decay)).rule
    return _alone(
        interpolated(
            base, learning_rate, b1, weight_lr_power, warmup_steps=warmup_steps, scaled=False
        )
    )
