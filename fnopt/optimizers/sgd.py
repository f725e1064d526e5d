"""Gradient descent, with momentum or Nesterov's look-ahead.

    θ ← θ − ηg                                 gradient descent
    v ← γv + g;  θ ← θ − ηv                    with momentum
    v ← γv + g;  θ ← θ − η(γv + g)             with Nesterov's look-ahead

Good for: convnets, with momentum and a falling rate; and the least memory.
Caveat: the rate stands outside the velocity, so when η changes over time this is not the
classical `momentum` (v ← γv + ηg), where a change of rate reaches the velocity slowly.
Memory: none; one value per parameter with momentum.
Source: Robbins and Monro 1951; Polyak 1964; Sutskever et al. 2013.
"""

from __future__ import annotations

from fnopt.core import GradientTransformation, chain, composition
from fnopt.hyperparameters import Decay, LearningRate
from fnopt.storage import StoredTrace
from fnopt.transforms.accumulation import trace
from fnopt.transforms.scaling import scale_by_learning_rate


@composition
def sgd(
    learning_rate: LearningRate,
    momentum: Decay | None = None,
    nesterov: bool = False,
    accumulator_dtype: StoredTrace = None,
) -> GradientTransformation:
    """Stochastic gradient descent.

    Args:
      learning_rate: η ≥ 0.
      momentum: γ in [0, 1), or None for none.
      nesterov: look ahead along the velocity.
      accumulator_dtype: the dtype or codec that v is stored in, as in `store`; None for the compute
        dtype.

    >>> import fnopt
    >>> fnopt.sgd(0.1, momentum=0.9)
    sgd(learning_rate=0.1, momentum=0.9)
    """
    rate = scale_by_learning_rate(learning_rate)
    if momentum is None:
        return chain(rate)
    return chain(trace(momentum, nesterov, accumulator_dtype), rate)
