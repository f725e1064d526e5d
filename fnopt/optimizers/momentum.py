"""Classical momentum, as the textbook writes it: the rate is inside the velocity.

    v(t) = γ v(t−1) + η ∇L(W)
    W    = W − v(t)

A ball with friction: along a ravine's floor the steps add up, to 1/(1−γ) times gradient descent's,
across it they cancel, and past a small local minimum the speed carries on.

Good for: smooth losses with ravines; networks of convolutions with a falling rate.
Caveat: differs from `sgd(momentum=γ)` (v ← γv + g; θ ← θ − ηv) when η changes over time: here the
velocity remembers the rates at which it was gathered. The state holds −v, ready to be added.
Memory: one value per parameter.
Source: Polyak 1964; Rumelhart, Hinton and Williams 1986.
"""

from __future__ import annotations

from fnopt.core import GradientTransformation, chain, composition
from fnopt.hyperparameters import Decay, LearningRate
from fnopt.transforms.accumulation import trace
from fnopt.transforms.scaling import scale_by_learning_rate


@composition
def momentum(learning_rate: LearningRate, decay: Decay = 0.9) -> GradientTransformation:
    """Gradient descent with classical momentum, v = γv + η∇L(W), W = W − v.

    Args:
      learning_rate: η ≥ 0.
      decay: γ in [0, 1), the friction: 0 is gradient descent.

    >>> import fnopt
    >>> fnopt.momentum(0.1)
    momentum(learning_rate=0.1, decay=0.9)
    """
    return chain(scale_by_learning_rate(learning_rate), trace(decay))
