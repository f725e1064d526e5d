"""Gradient descent with annealed Gaussian noise on the gradients.

    θ ← θ − η (g + n),   n ~ N(0, σ²),   σ² = η₀ / t^γ

The noise helps very deep networks out of bad starts, and fades as training goes on.

Good for: very deep plain networks from a bad start; seldom used since normalization layers.
Caveat: the noise of a leaf depends on its place in the tree. It is a function of the key and the
count, so equal optimizers make equal noise, and a resumed run draws what it would have drawn.
Memory: none.
Source: Neelakantan et al. 2015, arXiv 1511.06807, with (1 + t) counted from 0.
"""

from __future__ import annotations

from typing import Any

from fnopt.core import GradientTransformation, chain, composition
from fnopt.hyperparameters import LearningRate, NonNegative
from fnopt.transforms.constraints import add_noise
from fnopt.transforms.scaling import scale_by_learning_rate


@composition
def noisy_sgd(
    learning_rate: LearningRate,
    eta: NonNegative = 0.01,
    gamma: NonNegative = 0.55,
    key: Any = None,
    *,
    seed: int | None = None,
    axis_name: Any = None,
) -> GradientTransformation:
    """Gradient descent with noise; a key or a seed must be given.

    Args:
      learning_rate: η ≥ 0.
      eta: η₀ ≥ 0, the variance of the noise at the first step.
      gamma: γ ≥ 0, how fast it falls.
      key: a key of `jax.random`, or an int to make one of.
      seed: an int, in place of `key`.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension; without it all parts of a leaf get the same noise.

    >>> import fnopt
    >>> fnopt.noisy_sgd(0.1, key=0)
    noisy_sgd(learning_rate=0.1, eta=0.01, gamma=0.55, key=0)
    """
    noise = add_noise(eta, gamma, key, seed=seed, axis_name=axis_name)
    return chain(noise, scale_by_learning_rate(learning_rate))
