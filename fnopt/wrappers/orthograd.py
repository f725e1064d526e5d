"""⊥Grad: gradients without the part along the weights, before an optimizer sees them.

    g⊥ = g − (⟨θ, g⟩ / ⟨θ, θ⟩) θ;   g ← g⊥ ‖g‖ / ‖g⊥‖          over each leaf

A step along the weights only scales the logits, which lowers the loss without learning.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from fnopt import mesh_axes, reductions, tree
from fnopt.core import gradient_transformation
from fnopt.fusion import recompute
from fnopt.transforms.normalization import reciprocal


@gradient_transformation
def orthograd(
    optimizer: Any,
    *,
    renormalize: bool = True,
    axis_name: Any = None,
) -> Any:
    """An optimizer on gradients made orthogonal to the weights of their leaf.

    A leaf of one entry has no orthogonal direction and passes as it is. A gradient that is
    parallel to the weights but for rounding gives 0, where the authors' code would scale the
    rounding up.

    Args:
      optimizer: any transformation; `update` needs params.
      renormalize: give g⊥ the norm of g.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split. It does
        not reach the optimizer, which has its own.

    Good for: networks that learn by heart and whose logits run away; not for problems where the
    size of the weights counts.
    Memory: the optimizer's.
    Source: Prieto et al. 2025, arXiv 2501.04697.

    >>> import fnopt
    >>> fnopt.orthograd(fnopt.sgd(0.1))
    orthograd(optimizer=sgd(learning_rate=0.1), renormalize=True)
    """

    def project(g: jax.Array, p: jax.Array) -> jax.Array:
        if math.prod(mesh_axes.whole_shape(g, axis_name)) < 2:
            return g
        over = reciprocal(tree.weak(reductions.norm([p], axis_name)))
        inner = lambda g, p, over: jnp.real(jnp.conj(over * p) * g)
        across = lambda g, p, along, over: g - along * (over * p)
        along = reductions.total([recompute(inner, g, p, over)], axis_name)
        words = (g, p, along, over)
        before = tree.weak(reductions.norm([g], axis_name))
        after = tree.weak(reductions.norm([recompute(across, *words)], axis_name))
        noise = 4 * float(jnp.finfo(g.dtype).eps) * before
        ratio = before * reciprocal(after) if renormalize else 1.0
        return jnp.where(after > noise, ratio, 0.0) * across(*words)

    def update(updates: Any, state: Any, params: Any, **extra_args: Any) -> Any:
        updates = tree.map(project, updates, params)
        return optimizer.update(updates, state, params, **extra_args)

    return optimizer.init, update
