"""Grokfast: the slow part of the gradients, amplified before an optimizer sees them.

h ← αh + (1−α)g                   h = g at the first step
the optimizer gets g + λh
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import tree
from fnopt.core import gradient_transformation
from fnopt.hyperparameters import Decay, NonNegative


class GrokfastState(NamedTuple):
    """The count, int32 (); h, like the params; the optimizer's state."""

    count: Any
    slow: Any
    inner: Any


@gradient_transformation
def grokfast(optimizer: Any, *, decay: Decay = 0.98, strength: NonNegative = 2.0) -> Any:
    """An optimizer on gradients whose slow part is amplified, so that it generalizes earlier.

    Args:
      optimizer: any transformation.
      decay: α in [0, 1), the decay of the average.
      strength: λ ≥ 0, how much of the average is added.

    Good for: small algorithmic tasks that are learned by heart long before they are understood.
    Memory: one value per parameter, and the optimizer's.
    Source: Lee et al. 2024, arXiv 2405.20233 (the EMA form), and the authors' code, in which the
    average starts at the first gradient.

    >>> import fnopt
    >>> fnopt.grokfast(fnopt.sgd(0.1))
    grokfast(optimizer=sgd(learning_rate=0.1), decay=0.98, strength=2.0)
    """

    def init(params: Any) -> GrokfastState:
        return GrokfastState(tree.zero_count(), tree.zeros_like(params), optimizer.init(params))

    def update(updates: Any, state: GrokfastState, params: Any = None, **extra_args: Any) -> Any:
        count = tree.increment(state.count)
        kept = tree.weak(jnp.where(count == 1, 0.0, 1.0)) * decay

        def step(g: jax.Array, h: jax.Array) -> tuple[jax.Array, jax.Array]:
            h = kept * h + (1 - kept) * g
            return g + strength * h, h

        updates, slow = tree.map(step, updates, state.slow, outputs=2)
        updates, inner = optimizer.update(updates, state.inner, params, **extra_args)
        return updates, GrokfastState(count, slow, inner)

    return init, update
