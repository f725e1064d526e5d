"""Mechanic: learns the scale of another optimizer's steps, by several bets on its direction.

    Δ ← Δ + u                         u the optimizer's update, from Δ = 0
    h = −⟨g + λ s ‖g‖/‖θ‖ θ, Δ⟩       Δ before u; s the sum of all sᵢ
    mᵢ ← max(βᵢmᵢ, |h| + ε);  vᵢ ← βᵢ²vᵢ + h²
    rᵢ ← βᵢrᵢ + clip(h, ±mᵢ of before) sᵢ
    sᵢ = (s₀mᵢ/n + max(rᵢ, 0)) / (√vᵢ + ε)         βᵢ = 1 − 10⁻ⁱ, i to n
    θ ← θ₀ + sΔ

Give the optimizer the schedule's shape at a rate of 1; its scale is found.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnopt import reductions, tree
from fnopt.core import gradient_transformation
from fnopt.hyperparameters import NonNegative, Positive
from fnopt.rule import routed
from fnopt.transforms.normalization import reciprocal


class MechanicState(NamedTuple):
    """The count, int32 (); r, m, v and s, each float (n,); θ₀ and Δ, like the params; the
    optimizer's state."""

    count: Any
    r: Any
    m: Any
    v: Any
    s: Any
    start: Any
    delta: Any
    inner: Any


@gradient_transformation
def mechanize(
    base_optimizer: Any,
    weight_decay: NonNegative = 1e-2,
    eps: Positive = 1e-8,
    s_init: Positive = 1e-6,
    num_betas: int = 6,
    *,
    axis_name: Any = None,
) -> Any:
    """An optimizer whose scale is found as it runs.

    Args:
      base_optimizer: any whole optimizer, with a rate of 1 times the schedule's shape.
      weight_decay: λ ≥ 0, of the scale's own gradient: it steadies s.
      eps: ε > 0.
      s_init: s₀ > 0, the first scale: too small rather than too large.
      num_betas: n ≥ 1.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split. It does
        not reach the optimizer, which has its own.

    θ₀ is what the params are at the first update. Δ is kept, where the authors' and optax's codes
    compute it from θ: rounded params then do not disturb it.

    Memory: two values per parameter, and the optimizer's.
    Source: Cutkosky, Defazio and Mehta 2023, arXiv 2306.00144; the clip of h is of the
    authors' code.

    Raises:
      ValueError: for no betas.
    """
    if num_betas < 1:
        raise ValueError(f"mechanize: num_betas must be at least 1, got {num_betas}")
    betas = 1 - 0.1 ** np.arange(1, num_betas + 1)

    def init(params: Any) -> MechanicState:
        dtype = jnp.result_type(float)
        return MechanicState(
            count=tree.zero_count(),
            r=jnp.zeros(num_betas, dtype),
            m=jnp.zeros(num_betas, dtype),
            v=jnp.zeros(num_betas, dtype),
            s=jnp.zeros(num_betas, dtype),
            start=params,
            delta=tree.zeros_like(params),
            inner=base_optimizer.init(params),
        )

    def update(updates: Any, state: MechanicState, params: Any, **extra_args: Any) -> Any:
        first = state.count == 0
        start = tree.map(lambda s, p: jnp.where(first, p, s), state.start, params)
        new, inner = base_optimizer.update(updates, state.inner, params, **extra_args)
        dtype = state.s.dtype
        beta = jnp.asarray(betas, dtype)
        scale = tree.weak(jnp.where(first, s_init, jnp.sum(state.s)))
        ahead = -reductions.dot(updates, state.delta, axis_name)
        if not tree.is_static_zero(weight_decay):
            sizes = [tree.weak(reductions.whole_norm(t, axis_name)) for t in (updates, params)]
            pull = weight_decay * scale * sizes[0] * reciprocal(sizes[1] + eps)
            ahead = ahead - pull * reductions.dot(params, state.delta, axis_name)
        h = tree.limit(jnp.asarray(ahead, dtype))
        clipped = jnp.clip(h, -state.m, state.m)
        m = jnp.maximum(beta * state.m, jnp.abs(h) + eps)
        v = beta**2 * state.v + h * h
        r = beta * state.r + clipped * state.s
        s = (s_init / num_betas * m + jnp.maximum(r, 0.0)) / (tree.sqrt(v) + eps)
        total = tree.weak(jnp.sum(s))

        def step(u: jax.Array, d: jax.Array, p: jax.Array, p0: jax.Array) -> tuple[Any, ...]:
            d = d + u
            return (p0 - p) + total * d, d

        updates, delta = tree.map(step, new, state.delta, params, start, outputs=2)
        count = tree.increment(state.count)
        return updates, MechanicState(count, r, m, v, s, start, delta, inner)

    return init, update, lambda params: routed(base_optimizer, params)
