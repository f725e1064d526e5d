"""Weight decay: pulling parameters toward zero."""

from __future__ import annotations

from typing import Any

import jax

from fnopt import tree
from fnopt.core import gradient_transformation
from fnopt.hyperparameters import NonNegative
from fnopt.masks import chosen


@gradient_transformation
def add_decayed_weights(weight_decay: NonNegative = 0.0, mask: Any = None) -> Any:
    """u ← u + λθ.

    Before `scale_by_learning_rate` the decay is decoupled and scaled by the learning rate, as in
    AdamW; before `scale_by_adam` it is L2 regularization. No state.

    Args:
      weight_decay: λ ≥ 0.
      mask: which leaves decay: a tree of bools with the params' structure or a prefix of it, or a
        function of the params that returns one.

    Source: Loshchilov and Hutter, arXiv 1711.05101.
    """

    def update(updates: Any, state: Any, params: Any) -> Any:
        def decay(on: bool, u: jax.Array, p: jax.Array) -> jax.Array:
            return u + weight_decay * p if on else u

        if tree.is_static_zero(weight_decay):
            return updates, state
        if mask is None:
            return tree.map(lambda u, p: decay(True, u, p), updates, params), state
        return jax.tree.map(decay, chosen(mask, params), updates, params), state

    return lambda params: (), update
