"""DP-SGD: gradient descent that hides each single example: clipped, and under noise.

    ḡ = (Σᵢ gᵢ · min(1, C / ‖gᵢ‖) + σC · N(0, 1)) / B
    θ ← θ − ηḡ                        or with momentum: v ← γv + ḡ;  θ ← θ − ηv

`update` takes the gradients of B single examples, jax.vmap(jax.grad(loss), (None, 0)): one batch
axis in front of each leaf.

Good for: training on data about people.
Caveat: how private a run is depends on σ, B, the data's size and the number of steps, which an
accountant has to add up; and on examples drawn at random. Accumulation over micro-batches must
add up clipped sums, not updates.
Memory: none, but B gradients; one value per parameter with momentum.
Source: Abadi et al. 2016, arXiv 1607.00133.
"""

from __future__ import annotations

from typing import Any

from fnopt.core import GradientTransformation, chain, composition
from fnopt.hyperparameters import Decay, LearningRate, NonNegative
from fnopt.transforms.accumulation import trace
from fnopt.transforms.privacy import differentially_private_aggregate
from fnopt.transforms.scaling import scale_by_learning_rate


@composition
def dpsgd(
    learning_rate: LearningRate,
    l2_norm_clip: NonNegative,
    noise_multiplier: NonNegative,
    seed: Any,
    momentum: Decay | None = None,
    nesterov: bool = False,
    *,
    axis_name: Any = None,
) -> GradientTransformation:
    """Differentially private gradient descent.

    Args:
      learning_rate: η ≥ 0.
      l2_norm_clip: C ≥ 0, the longest gradient of an example.
      noise_multiplier: σ ≥ 0, the noise in units of C.
      seed: an int or a PRNG key: a secret, and another one for each run.
      momentum: γ in [0, 1), or None for none.
      nesterov: look ahead along the velocity.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which params are split, each along
        its first dimension.

    >>> import fnopt
    >>> fnopt.dpsgd(0.1, 1.0, 1.1, seed=0)
    dpsgd(learning_rate=0.1, l2_norm_clip=1.0, noise_multiplier=1.1, seed=0)
    """
    members = [
        differentially_private_aggregate(l2_norm_clip, noise_multiplier, seed, axis_name=axis_name),
        scale_by_learning_rate(learning_rate),
    ]
    if momentum is not None:
        members.insert(1, trace(momentum, nesterov=nesterov))
    return chain(*members)
