"""SignSGD: every entry moves by the rate, in the direction of its gradient; and Signum.

    θ ← θ − η sign(g)                              sign_sgd
    m ← βm + (1−β)g;  θ ← θ − η sign(m)            signum

One bit per entry is enough to send a gradient, and no entry's step depends on its size.

Good for: gradients sent as one bit; signum as a baseline. Signum can destabilize long runs (arXiv
2509.01440).
Caveat: near a minimum the steps do not shrink, so the rate must; sign(0) = 0.
Memory: none; signum one value per parameter.
Source: Bernstein et al. 2018, arXiv 1802.04434.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Decay, LearningRate
from fnopt.storage import StoredMean
from fnopt.transforms.normalization import scale_by_sign
from fnopt.transforms.scaling import scale_by_learning_rate


class SignumState(NamedTuple):
    """m, like the params; None for a static beta of 0."""

    mu: Any


@gradient_transformation
def scale_by_signum(beta: Decay = 0.9, accumulator_dtype: StoredMean = None) -> Any:
    """u ← sign(m), with m ← βm + (1−β)u.

    Args:
      beta: β in [0, 1), the decay of the average. A static 0 keeps none.
      accumulator_dtype: the dtype or codec that m is stored in, as in `store`; None for the compute
        dtype.

    Memory: one value per parameter; none with beta=0.
    """
    no_mean = tree.is_static_zero(beta)

    def init(params: Any) -> SignumState:
        return SignumState(None if no_mean else tree.zeros_like(params))

    def step(g: jax.Array, m: jax.Array) -> tuple[jax.Array, jax.Array]:
        m = beta * m + (1 - beta) * tree.saturate(g)
        return jnp.sign(m), m

    def update(updates: Any, state: SignumState) -> Any:
        if no_mean:
            return tree.map(jnp.sign, updates), state
        updates, mu = tree.map(step, updates, state.mu, outputs=2)
        return updates, SignumState(mu)

    return init, update


@composition
def sign_sgd(learning_rate: LearningRate) -> GradientTransformation:
    """SignSGD.

    Args:
      learning_rate: η ≥ 0; the length of every entry's step.

    >>> import fnopt
    >>> fnopt.sign_sgd(1e-3)
    sign_sgd(learning_rate=0.001)
    """
    return chain(scale_by_sign(), scale_by_learning_rate(learning_rate))


@composition
def signum(
    learning_rate: LearningRate, beta: Decay = 0.9, accumulator_dtype: StoredMean = None
) -> GradientTransformation:
    """Signum: SignSGD with momentum.

    Args:
      learning_rate: η ≥ 0; the length of every entry's step.
      beta: β in [0, 1), the decay of the average. A static 0 keeps none and is `sign_sgd`.
      accumulator_dtype: the dtype or codec that m is stored in, as in `store`; None for the compute
        dtype.

    >>> import fnopt
    >>> fnopt.signum(1e-3)
    signum(learning_rate=0.001, beta=0.9)
    """
    return chain(scale_by_signum(beta, accumulator_dtype), scale_by_learning_rate(learning_rate))
