"""Adan: Nesterov's look-ahead by the difference of gradients, in three averages.

    d = g − g₋₁                        0 at the first step
    m ← b₁m + (1−b₁)g                 m̂ = m / (1−b₁ᵗ)
    v ← b₂v + (1−b₂)d                 v̂ = v / (1−b₂ᵗ)
    n ← b₃n + (1−b₃)(g + b₂d)²        n̂ = n / (1−b₃ᵗ)
    u = (m̂ + b₂v̂) / (√n̂ + ε)
    θ ← (θ − ηu) / (1 + ηλ)           or θ − η(u + λθ) with `proximal=False`

The b are decays, as in the authors' code: 1−β in the paper's notation, and the paper's weight
1−β₂ of the look-ahead is b₂.

Good for: vision transformers at large rates, by its authors' tests, if its memory can be spared.
Caveat: optax weighs the look-ahead with 1−b₂ and has ε = 1e-8 inside the root too, so the same
numbers give another run there.
Memory: four values per parameter.
Source: Xie et al. 2022, arXiv 2208.06677, and github.com/sail-sg/Adan.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from fnopt import tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.fusion import overwrite_after
from fnopt.hyperparameters import Decay, LearningRate, NonNegative
from fnopt.masks import chosen
from fnopt.transforms.decay import add_decayed_weights
from fnopt.transforms.scaling import scale_by_learning_rate


class AdanState(NamedTuple):
    """The count, int32 (); m and v, like the params; n, real, like them; the last g, like them."""

    count: Any
    mu: Any
    difference: Any
    nu: Any
    last: Any


@gradient_transformation
def scale_by_adan(
    b1: Decay = 0.98,
    b2: Decay = 0.92,
    b3: Decay = 0.99,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
) -> Any:
    """u ← (m̂ + b₂v̂) / (√(n̂ + eps_root) + ε).

    Args:
      b1: in [0, 1), the decay of the mean of the gradients.
      b2: in [0, 1), the decay of the mean of their differences, and its weight.
      b3: in [0, 1), the decay of the mean square.
      eps: ε, outside the root.
      eps_root: added inside the root, for derivatives through the update.

    Memory: four values per parameter.
    """

    def init(params: Any) -> AdanState:
        m, v, g = (tree.zeros_like(params) for _ in range(3))
        return AdanState(tree.zero_count(), m, v, tree.real_zeros_like(params), g)

    def update(updates: Any, state: AdanState) -> Any:
        t = tree.increment(state.count)
        c1 = tree.debias(b1, t)
        c2 = b2 * tree.debias(b2, t)
        c3 = tree.debias(b3, t)
        later = tree.weak(state.count > 0)

        def step(g: jax.Array, m: jax.Array, v: jax.Array, n: jax.Array, old: jax.Array) -> Any:
            d = later * (tree.saturate(g) - tree.saturate(old))
            m = b1 * m + (1 - b1) * tree.saturate(g)
            v = b2 * v + (1 - b2) * d
            n = b3 * n + (1 - b3) * tree.squared(tree.saturate(g) + b2 * d)
            u = (c1 * m + c2 * v) / (tree.sqrt(c3 * n + eps_root) + eps)
            return u, m, v, n, overwrite_after(g, v, n)

        columns = updates, state.mu, state.difference, state.nu, state.last
        updates, m, v, n, g = tree.map(step, *columns, outputs=5)
        return updates, AdanState(t, m, v, n, g)

    return init, update


@gradient_transformation
def scale_by_proximal_rate(
    learning_rate: LearningRate, weight_decay: NonNegative = 0.0, mask: Any = None
) -> Any:
    """u ← (θ − ηu) / (1 + ηλ) − θ, written −η(u + λθ) / (1 + ηλ): the decay solved implicitly.

    Args:
      learning_rate: η ≥ 0.
      weight_decay: λ ≥ 0.
      mask: which leaves decay, as in `add_decayed_weights`.

    Source: Xie et al. 2022, arXiv 2208.06677, algorithm 1.
    """
    shrunk = -learning_rate / (1 + learning_rate * weight_decay)

    def update(updates: Any, state: Any, params: Any) -> Any:
        decaying = jax.tree.map(lambda on, p: p if on else None, chosen(mask, params), params)

        def step(u: jax.Array, p: jax.Array | None) -> jax.Array:
            return -learning_rate * u if p is None else shrunk * (u + weight_decay * p)

        return tree.map(step, updates, decaying), state

    return lambda params: (), update


@composition
def adan(
    learning_rate: LearningRate,
    b1: Decay = 0.98,
    b2: Decay = 0.92,
    b3: Decay = 0.99,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
    *,
    proximal: bool = True,
) -> GradientTransformation:
    """Adan.

    Args:
      learning_rate: η ≥ 0.
      b1: in [0, 1), the decay of the mean of the gradients.
      b2: in [0, 1), the decay of the mean of their differences, and its weight.
      b3: in [0, 1), the decay of the mean square.
      eps: ε, outside the root.
      eps_root: added inside the root.
      weight_decay: λ ≥ 0, multiplied by the learning rate.
      mask: which leaves decay: a tree of bools with the params' structure or a prefix of it, or a
        function of the params that returns one.
      proximal: divide by 1 + ηλ after the step, instead of subtracting ηλθ.

    >>> import fnopt
    >>> fnopt.adan(1e-3, weight_decay=0.02, proximal=False).name
    'adan'
    """
    rule = scale_by_adan(b1, b2, b3, eps, eps_root)
    if proximal and not tree.is_static_zero(weight_decay):
        return chain(rule, scale_by_proximal_rate(learning_rate, weight_decay, mask))
    decay = add_decayed_weights(weight_decay, mask)
    return chain(rule, decay, scale_by_learning_rate(learning_rate))
