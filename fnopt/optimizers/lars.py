"""LARS: momentum with a rate for each layer, in proportion to its weights: for large batches.

    τ = κ‖θ‖ / (‖g‖ + λ‖θ‖ + ε)              the norms over each leaf; 1 where a norm is zero
    v ← γv + ητ(g + λθ)
    θ ← θ − v

The rate is inside the velocity, as in the paper. The paper's denominator adds the two norms;
`separate_norms=False` takes ‖g + λθ‖ + ε, as optax and some PyTorch versions have it. Without
decay the two agree.

Good for: convnets with batches of thousands of images.
Caveat: λ stands in both the step and the ratio, so it is not the decay of `adamw`. Biases and
norms are usually left without ratio and decay by the two masks.
Memory: one value per parameter; none with momentum=0.
Source: You, Gitman and Ginsburg 2017, arXiv 1708.03888.
"""

from __future__ import annotations

from typing import Any

import jax

from fnopt import reductions, tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.fusion import recompute
from fnopt.hyperparameters import Decay, LearningRate, NonNegative, Positive
from fnopt.masks import chosen
from fnopt.transforms.accumulation import trace
from fnopt.transforms.normalization import trust_ratio
from fnopt.transforms.scaling import scale_by_learning_rate


@gradient_transformation
def scale_by_lars(
    weight_decay: NonNegative = 0.0,
    weight_decay_mask: Any = True,
    trust_coefficient: Positive = 1e-3,
    eps: NonNegative = 0.0,
    trust_ratio_mask: Any = True,
    *,
    separate_norms: bool = True,
    axis_name: Any = None,
) -> Any:
    """u ← τ(u + λθ), with τ = κ‖θ‖ / (‖u‖ + λ‖θ‖ + ε) for each leaf. No state.

    Args:
      weight_decay: λ ≥ 0.
      weight_decay_mask: which leaves decay: a tree of bools with the params' structure or a
        prefix of it, or a function of the params that returns one.
      trust_coefficient: κ > 0.
      eps: ε ≥ 0.
      trust_ratio_mask: which leaves are scaled, in the same forms; the others keep their size.
      separate_norms: ‖u‖ + λ‖θ‖ in the denominator, or ‖u + λθ‖.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split.
    """
    no_decay = tree.is_static_zero(weight_decay)

    def step(u: jax.Array, p: jax.Array, decay_on: Any, ratio_on: Any) -> jax.Array:
        decays = decay_on is not None and not no_decay
        total = u + weight_decay * p if decays else u
        if ratio_on is None:
            return total
        param_norm, size = (tree.weak(reductions.norm([x], axis_name)) for x in (p, u))
        if decays and separate_norms:
            size = size + weight_decay * param_norm
        elif decays:
            again = recompute(lambda u, p, decay: u + decay * p, u, p, weight_decay)
            size = tree.weak(reductions.norm([again], axis_name))
        return trust_ratio(param_norm, size, 0.0, trust_coefficient, eps) * total

    def update(updates: Any, state: Any, params: Any) -> Any:
        masks = [
            jax.tree.map(lambda on: on or None, chosen(mask, params))
            for mask in (weight_decay_mask, trust_ratio_mask)
        ]
        return tree.map(step, updates, params, *masks), state

    return lambda params: (), update


@composition
def lars(
    learning_rate: LearningRate,
    weight_decay: NonNegative = 0.0,
    weight_decay_mask: Any = True,
    trust_coefficient: Positive = 1e-3,
    eps: NonNegative = 0.0,
    trust_ratio_mask: Any = True,
    momentum: Decay = 0.9,
    nesterov: bool = False,
    *,
    separate_norms: bool = True,
    axis_name: Any = None,
) -> GradientTransformation:
    """LARS, layer-wise adaptive rate scaling.

    Args:
      learning_rate: η ≥ 0.
      weight_decay: λ ≥ 0, multiplied by the learning rate and the ratio.
      weight_decay_mask: which leaves decay: a tree of bools with the params' structure or a
        prefix of it, or a function of the params that returns one.
      trust_coefficient: κ > 0.
      eps: ε ≥ 0.
      trust_ratio_mask: which leaves are scaled, in the same forms; the others keep their size.
      momentum: γ in [0, 1).
      nesterov: look ahead along the velocity.
      separate_norms: ‖g‖ + λ‖θ‖ in the denominator, or ‖g + λθ‖.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split.

    >>> import fnopt
    >>> fnopt.lars(0.1, weight_decay=1e-4).name
    'lars'
    """
    return chain(
        scale_by_lars(
            weight_decay,
            weight_decay_mask,
            trust_coefficient,
            eps,
            trust_ratio_mask,
            separate_norms=separate_norms,
            axis_name=axis_name,
        ),
        scale_by_learning_rate(learning_rate),
        trace(momentum, nesterov=nesterov),
    )
