"""AdamW: Adam with the weight decay taken out of the moments.

    θ ← θ − η (m̂ / (√v̂ + ε) + λθ)       m̂, v̂ as in Adam

Good for: transformers and nearly all else: what other methods are compared with.
Caveat: the decay is scaled by the learning rate, so a schedule scales it too, unless
`decay="independent"` is asked for. By default it is 1e-4, optax's value; PyTorch has 1e-2.
Memory: two values per parameter; one with b1=0.
Source: Loshchilov and Hutter 2017, arXiv 1711.05101.
"""

from __future__ import annotations

from typing import Any

from fnopt.core import GradientTransformation, chain, composition
from fnopt.hyperparameters import Decay, LearningRate, NonNegative
from fnopt.optimizers.adam import scale_by_adam
from fnopt.storage import StoredMean
from fnopt.transforms.decay import decay_and_rate


@composition
def adamw(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: StoredMean = None,
    weight_decay: NonNegative = 1e-4,
    mask: Any = None,
    *,
    nesterov: bool = False,
    decay: str = "decoupled",
) -> GradientTransformation:
    """Adam with decoupled weight decay.

    Args:
      learning_rate: η ≥ 0.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      eps: ε, outside the root.
      eps_root: added inside the root.
      mu_dtype: the dtype or codec that m is stored in, as in `store`; None for the compute dtype.
      weight_decay: λ ≥ 0, multiplied by the learning rate unless `decay` is "independent".
      mask: which leaves decay: a tree of bools with the params' structure or a prefix of it, or a
        function of the params that returns one.
      nesterov: let the mean look one step ahead.
      decay: "decoupled"; "cautious" for entries that the step takes toward zero too; or
        "independent": λ of the weights at each step, whatever the rate, with λ at most 1.

    >>> import fnopt
    >>> fnopt.adamw(1e-3, weight_decay=0.1)  # doctest: +ELLIPSIS
    adamw(learning_rate=0.001, b1=0.9, b2=0.999, eps=1e-08, eps_root=0.0, weight_decay=0.1, ...)
    """
    rule = scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov)
    return chain(rule, *decay_and_rate("adamw", decay, learning_rate, weight_decay, mask))
