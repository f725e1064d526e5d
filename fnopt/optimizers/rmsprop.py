"""RMSprop: Adagrad with a memory that fades, so that the rate does not vanish.

    s ← ρs + (1−ρ)g²
    θ ← θ − ηg / √(s + ε)             ε inside the root, or
    θ ← θ − ηg / (√s + ε)             outside (`eps_in_sqrt=False`)
    centered: a ← ρa + (1−ρ)g, and s − a² in place of s
    momentum: v ← γv + g/√…;  θ ← θ − ηv

Good for: recurrent networks and reinforcement learning.
Caveat: s starts at zero without bias correction, so the first steps are up to 1/√(1−ρ) times
too long; `bias_correction=True` or `initial_scale` mend that. The momentum is gathered before the
rate is multiplied in, as PyTorch has it; TensorFlow and optax multiply first. Centered and
bias-corrected together, the first step's variance is zero and the step is g/√ε: choose a large ε.
Memory: one value per parameter; one more for each of centered and momentum.
Source: Hinton, Coursera lecture 6e, 2012; Graves 2013, arXiv 1308.0850, for the centered form.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Decay, Initial, LearningRate, NonNegative
from fnopt.transforms.accumulation import trace
from fnopt.transforms.scaling import scale_by_learning_rate


class RmsState(NamedTuple):
    """The count, int32 (); s, real, like the params; the mean of the gradients or None."""

    count: Any
    nu: Any
    mean: Any


@gradient_transformation
def scale_by_rms(
    decay: Decay = 0.9,
    eps: NonNegative = 1e-8,
    initial_scale: Initial = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
    centered: bool = False,
) -> Any:
    """u ← g / √(s + ε), with s ← ρs + (1−ρ)g².

    Args:
      decay: ρ in [0, 1).
      eps: ε.
      initial_scale: s at the start.
      eps_in_sqrt: ε inside the root, or outside.
      bias_correction: divide s (and the mean) by 1−ρᵗ.
      centered: subtract the square of the mean gradient from s.

    Memory: one value per parameter, two if centered.
    """

    def init(params: Any) -> RmsState:
        nu = tree.map(lambda x: x + initial_scale, tree.real_zeros_like(params))
        return RmsState(tree.zero_count(), nu, tree.zeros_like(params) if centered else None)

    def update(updates: Any, state: RmsState) -> Any:
        t = tree.increment(state.count)
        correction = tree.debias(decay, t) if bias_correction else 1.0

        def step(g: jax.Array, s: jax.Array, a: jax.Array | None) -> tuple[Any, ...]:
            s = decay * s + (1 - decay) * tree.squared(g)
            variance = s * correction
            if a is not None:
                a = decay * a + (1 - decay) * tree.limit(g)
                variance = jnp.maximum(variance - tree.squared(a * correction), 0.0)
            root = tree.sqrt(variance + eps) if eps_in_sqrt else tree.sqrt(variance) + eps
            return tree.saturate(g) / root, s, a

        means = state.mean if centered else tree.nones_like(updates)
        updates, nu, mean = tree.map(step, updates, state.nu, means, outputs=3)
        return updates, RmsState(t, nu, mean if centered else None)

    return init, update


@composition
def scale_by_stddev(
    decay: Decay = 0.9,
    eps: NonNegative = 1e-8,
    initial_scale: Initial = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
) -> GradientTransformation:
    """u ← g / √(s − a² + ε), a being the mean of the gradients: `scale_by_rms`, centered.

    Args:
      decay: ρ in [0, 1).
      eps: ε.
      initial_scale: s at the start.
      eps_in_sqrt: ε inside the root, or outside.
      bias_correction: divide s and a by 1−ρᵗ.

    Memory: two values per parameter.
    """
    return scale_by_rms(decay, eps, initial_scale, eps_in_sqrt, bias_correction, centered=True)


@composition
def rmsprop(
    learning_rate: LearningRate,
    decay: Decay = 0.9,
    eps: NonNegative = 1e-8,
    initial_scale: Initial = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: Decay | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
) -> GradientTransformation:
    """RMSprop.

    Args:
      learning_rate: η ≥ 0.
      decay: ρ in [0, 1).
      eps: ε.
      initial_scale: s at the start.
      eps_in_sqrt: ε inside the root, or outside.
      centered: subtract the square of the mean gradient from s.
      momentum: γ in [0, 1), or None for none.
      nesterov: look ahead along the velocity.
      bias_correction: divide s by 1−ρᵗ.

    >>> import fnopt
    >>> fnopt.rmsprop(1e-3, decay=0.99)
    rmsprop(learning_rate=0.001, decay=0.99, eps=1e-08, initial_scale=0.0, eps_in_sqrt=True)
    """
    members = [
        scale_by_rms(decay, eps, initial_scale, eps_in_sqrt, bias_correction, centered),
        scale_by_learning_rate(learning_rate),
    ]
    if momentum is not None:
        members.insert(1, trace(momentum, nesterov=nesterov))
    return chain(*members)
