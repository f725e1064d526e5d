"""Rprop: a step size for each entry that grows while the gradient's sign stays and shrinks when
it turns.

    same sign as before:      Δ ← min(η⁺Δ, Δmax);   θ ← θ − sign(g)Δ
    the sign has turned:      Δ ← max(η⁻Δ, Δmin);   θ stays, and the sign counts as 0 next time
    one of them is zero:      θ ← θ − sign(g)Δ

Δ starts at the learning rate. Where the sign has turned, the 1993 paper takes the last step back
(`backtracking=True`); PyTorch and optax do not.

Good for: small networks on full batches.
Caveat: for full batches; the noise of small ones turns signs at random. The rate is a factor of
every Δ: constant it is the first Δ, a schedule scales them all. Optax applies each step one
update late.
Memory: two values per parameter.
Source: Riedmiller and Braun 1993, ICNN; Igel and Hüsken 2000 without backtracking.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Fraction, LearningRate, NonNegative, Positive
from fnopt.transforms.scaling import scale


class RpropState(NamedTuple):
    """Δ over the rate, real, like the params; the signs of the last gradient, like the params."""

    step_sizes: Any
    signs: Any


@gradient_transformation
def scale_by_rprop(
    learning_rate: LearningRate,
    eta_minus: Fraction = 0.5,
    eta_plus: Positive = 1.2,
    min_step_size: NonNegative = 1e-6,
    max_step_size: Positive = 50.0,
    *,
    backtracking: bool = False,
) -> Any:
    """u ← sign(u)Δ, with a Δ for each entry.

    Args:
      learning_rate: Δ at the start, and a factor of it ever after.
      eta_minus: η⁻ in [0, 1].
      eta_plus: η⁺ > 0, usually above 1.
      min_step_size: Δmin.
      max_step_size: Δmax.
      backtracking: take the last step back where the sign has turned.

    Memory: two values per parameter.
    """

    def init(params: Any) -> RpropState:
        return RpropState(tree.full_like(params, 1.0), tree.zeros_like(params))

    def update(updates: Any, state: RpropState) -> Any:
        rate = jnp.maximum(learning_rate, 1e-30)
        low, high = min_step_size / rate, max_step_size / rate

        def step(g: jax.Array, size: jax.Array, last: jax.Array) -> tuple[jax.Array, ...]:
            sign = jnp.sign(g)
            same = jnp.real(sign * jnp.conj(last)) if jnp.iscomplexobj(g) else sign * last
            moved = jnp.clip(size * jnp.where(same > 0, eta_plus, eta_minus), low, high)
            new = jnp.where(same == 0, size, moved)
            sign = jnp.where(same < 0, jnp.zeros_like(sign), sign)
            u = learning_rate * new * sign
            if backtracking:
                u = jnp.where(same < 0, -learning_rate * size * last, u)
            return u, new, sign

        updates, sizes, signs = tree.map(step, updates, state.step_sizes, state.signs, outputs=3)
        return updates, RpropState(sizes, signs)

    return init, update


@composition
def rprop(
    learning_rate: LearningRate,
    eta_minus: Fraction = 0.5,
    eta_plus: Positive = 1.2,
    min_step_size: NonNegative = 1e-6,
    max_step_size: Positive = 50.0,
    *,
    backtracking: bool = False,
) -> GradientTransformation:
    """Rprop, resilient backpropagation.

    Args:
      learning_rate: Δ at the start, and a factor of it ever after.
      eta_minus: η⁻ in [0, 1].
      eta_plus: η⁺ > 0, usually above 1.
      min_step_size: Δmin.
      max_step_size: Δmax.
      backtracking: take the last step back where the sign has turned, as in the 1993 paper.

    >>> import fnopt
    >>> fnopt.rprop(1e-2).name
    'rprop'
    """
    rule = scale_by_rprop(
        learning_rate, eta_minus, eta_plus, min_step_size, max_step_size, backtracking=backtracking
    )
    return chain(rule, scale(-1.0))
