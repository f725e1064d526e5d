"""AdEMAMix: Adam with a second, slow mean that remembers tens of thousands of gradients.

    m₁ ← β₁m₁ + (1−β₁)g               m̂₁ = m₁ / (1−β₁ᵗ)
    m₂ ← β₃m₂ + (1−β₃)g               not corrected: it fills slowly
    v  ← β₂v + (1−β₂)g²               v̂ = v / (1−β₂ᵗ)
    θ  ← θ − η [(m̂₁ + αm₂) / (√v̂ + ε) + λθ]

The authors warm α and β₃ up over the whole run, T steps, lest old gradients upset the start:

    adamw-like rates, `alpha=alpha_warmup_schedule(5.0, T)`, `b3=b3_warmup_schedule(0.9999, T)`

Good for: long language-model runs: among the leaders of an independent comparison (arXiv
2509.01440).
Caveat: without the warm-ups long runs may diverge early. α is 5 as in the authors' JAX code; their
PyTorch code has 2, and long runs had 8 and more. The decay is scaled by the learning rate.
Memory: three values per parameter; two with b1=0.
Source: Pagliardini, Ablin and Grangier 2024, arXiv 2409.03137.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Decay, LearningRate, NonNegative
from fnopt.schedules.arguments import number, steps
from fnopt.schedules.schedule import schedule
from fnopt.storage import StoredMean
from fnopt.transforms.decay import add_decayed_weights
from fnopt.transforms.scaling import scale_by_learning_rate


@schedule
def alpha_warmup_schedule(alpha: Any, warmup_steps: int) -> Callable[[jax.Array], Any]:
    """α·min(1, t/T): a line to `alpha`, with t = count + 1 the number of the step.

    Ends: alpha/T at count 0; alpha from count T − 1 on.

    Args:
      alpha: the value after the warm-up, at least 0.
      warmup_steps: T, positive.
    """
    name = "alpha_warmup_schedule"
    value, n = number(name, alpha=alpha, at_least=0), steps(name, warmup_steps=warmup_steps)
    return lambda count: value * jnp.minimum((count + 1) / n, 1)


@schedule
def b3_warmup_schedule(b3: Any, warmup_steps: int, b1: Any = 0.9) -> Callable[[jax.Array], Any]:
    """From `b1` to `b3` so that the mean's half-life grows linearly, with t = count + 1.

    f(β) = ln ½ / ln β − 1 is the half-life, and β₃(t) = f⁻¹((1−t/T) f(β₁) + (t/T) f(β₃)).

    Ends: f⁻¹(f(β₁) + (f(β₃) − f(β₁))/T), a little above `b1`, at count 0; b3 from count T − 1 on.

    Args:
      b3: the decay after the warm-up, above 0 and below 1.
      warmup_steps: T, positive.
      b1: the decay to start from, above 0 and below 1.
    """
    name = "b3_warmup_schedule"
    first = number(name, b1=b1, above=0, at_most=1 - 2**-24)
    last = number(name, b3=b3, above=0, at_most=1 - 2**-24)
    n = steps(name, warmup_steps=warmup_steps)

    def half_life(b: Any) -> Any:
        return math.log(0.5) / (math.log(b) if isinstance(b, float) else jnp.log(b))

    def value(count: jax.Array) -> Any:
        done = jnp.minimum((count + 1) / n, 1)
        return 0.5 ** (1 / ((1 - done) * half_life(first) + done * half_life(last)))

    return value


class AdemamixState(NamedTuple):
    """The count, int32 (); m₁, like the params, or None; m₂, like them; v, real, like them."""

    count: Any
    mu: Any
    slow: Any
    nu: Any


@gradient_transformation
def scale_by_ademamix(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: Decay = 0.9999,
    alpha: NonNegative = 5.0,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: StoredMean = None,
) -> Any:
    """u ← (m̂₁ + αm₂) / (√(v̂ + eps_root) + ε).

    Args:
      b1: β₁ in [0, 1), the decay of the fast mean. A static 0 keeps none: it is g.
      b2: β₂ in [0, 1), the decay of the mean square.
      b3: β₃ in [0, 1), the decay of the slow mean.
      alpha: α ≥ 0, the weight of the slow mean.
      eps: ε, outside the root.
      eps_root: added inside the root, for derivatives through the update.
      mu_dtype: the dtype or codec that m₁ is stored in, as in `store`; None for the compute dtype.
        m₂ stays in that: the roundings of as many steps as it remembers would come to a tenth of
        it in bfloat16, and a third of it in int8. optax narrows m₁, m₂ and v.

    Memory: three values per parameter; two with b1=0.
    """
    no_mean = tree.is_static_zero(b1)

    def init(params: Any) -> AdemamixState:
        m1 = None if no_mean else tree.zeros_like(params)
        return AdemamixState(
            tree.zero_count(), m1, tree.zeros_like(params), tree.real_zeros_like(params)
        )

    def update(updates: Any, state: AdemamixState) -> Any:
        t = tree.increment(state.count)
        c1 = tree.debias(b1, t)
        c2 = tree.debias(b2, t)

        def step(g: jax.Array, m1: jax.Array | None, m2: jax.Array, v: jax.Array) -> Any:
            v = b2 * v + (1 - b2) * tree.squared(g)
            g = tree.saturate(g)
            m1 = g if m1 is None else b1 * m1 + (1 - b1) * g
            m2 = b3 * m2 + (1 - b3) * g
            return (c1 * m1 + alpha * m2) / (tree.sqrt(c2 * v + eps_root) + eps), m1, m2, v

        m1 = tree.nones_like(updates) if no_mean else state.mu
        updates, m1, m2, nu = tree.map(step, updates, m1, state.slow, state.nu, outputs=4)
        return updates, AdemamixState(t, None if no_mean else m1, m2, nu)

    return init, update


@composition
def ademamix(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: Decay = 0.9999,
    alpha: NonNegative = 5.0,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: StoredMean = None,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
) -> GradientTransformation:
    """AdEMAMix.

    Args:
      learning_rate: η ≥ 0.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      b3: β₃ in [0, 1); `b3_warmup_schedule` warms it up.
      alpha: α ≥ 0; `alpha_warmup_schedule` warms it up.
      eps: ε, outside the root.
      eps_root: added inside the root.
      mu_dtype: the dtype or codec that m₁ is stored in, as in `store`; None for the compute dtype.
        m₂ stays in that: the roundings of as many steps as it remembers would come to a tenth of
        it in bfloat16, and a third of it in int8. optax narrows m₁, m₂ and v.
      weight_decay: λ ≥ 0, multiplied by the learning rate.
      mask: which leaves decay: a tree of bools with the params' structure or a prefix of it, or a
        function of the params that returns one.

    >>> import fnopt
    >>> fnopt.ademamix(1e-3).arguments.arguments["alpha"]
    5.0
    """
    return chain(
        scale_by_ademamix(b1, b2, b3, alpha, eps, eps_root, mu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
