"""Cautious updates: only the entries of a step that agree with the gradient are taken.

    φ = 1[−u · g > 0];   u ← u φ / max(mean φ, 10⁻³)          the mean over each leaf

An optimizer with memory may step against the present gradient; here those entries wait, and the
others are lengthened so that the step keeps its size.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fnopt import reductions, tree
from fnopt.core import gradient_transformation
from fnopt.hyperparameters import Positive


@gradient_transformation
def cautious(
    optimizer: Any,
    *,
    min_fraction: Positive = 1e-3,
    descending: bool = True,
    axis_name: Any = None,
) -> Any:
    """An optimizer whose updates are masked to the entries that descend.

    The gradient is the one that the wrapper receives, so a clip inside it does not change the
    mask. Weight decay inside it is masked with the rest; to decay every entry, as the paper does,
    wrap the rule alone and decay after it:

        chain(cautious(scale_by_adam(), descending=False), add_decayed_weights(0.1),
              scale_by_learning_rate(1e-3))

    Args:
      optimizer: any transformation.
      min_fraction: the least mean of the mask to divide by.
      descending: whether the updates are ready to be added, as a whole optimizer's are; False for
        a rule before its sign is turned.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split. It does
        not reach the optimizer, which has its own.

    Good for: a little more of any optimizer with momentum, by its authors' tests on language
    models.
    Memory: the optimizer's.
    Source: Liang et al. 2024, arXiv 2411.16085.

    >>> import fnopt
    >>> fnopt.cautious(fnopt.sgd(0.1))
    cautious(optimizer=sgd(learning_rate=0.1), min_fraction=0.001, descending=True)
    """

    def masked(u: jax.Array, g: jax.Array) -> jax.Array:
        # signs, since a product of two small numbers may vanish
        agreement = jnp.real(jnp.conj(jnp.sign(u)) * jnp.sign(g))
        agrees = agreement < 0 if descending else agreement > 0
        phi = agrees.astype(agreement.dtype)
        mean = reductions.axis_mean(phi, tuple(range(u.ndim)), axis_name)
        return u * (phi / jnp.maximum(mean, min_fraction))

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        new, state = optimizer.update(updates, state, params, **extra_args)
        return tree.map(masked, new, updates), state

    return optimizer.init, update
