"""Weight decay in its kinds: how far, along what, and toward where the parameters are pulled.

    coupled (L2)     g ← g + λθ           before the rule, which then averages and rescales it
    decoupled        u ← u + λθ           after the rule, before the rate: θ ← θ − ηλθ
    cautious         u ← u + λ 1[uθ ≥ 0] θ   decoupled, where the step goes toward zero too
    independent      θ ← θ − λθ           after the rate, which does not scale it
    to the start     u ← u + λ(θ − θ₀)    coupled or decoupled by its place

Which kind an `add_decayed_weights` is, its place in the chain decides:

    chain(add_decayed_weights(λ), scale_by_adam(), scale_by_learning_rate(η))             coupled
    chain(scale_by_adam(), add_decayed_weights(λ), scale_by_learning_rate(η))           decoupled
    chain(scale_by_adam(), scale_by_learning_rate(η), add_independent_weight_decay(λ))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import tree
from fnopt.core import GradientTransformation, gradient_transformation
from fnopt.hyperparameters import Fraction, NonNegative
from fnopt.masks import chosen
from fnopt.transforms.scaling import scale_by_learning_rate

DECAYS = ("decoupled", "cautious", "independent")
"""The kinds of decay that an optimizer with the argument `decay` offers."""


def no_decay_on_vectors(params: Any, stacked: Any = False) -> Any:
    """A mask: True for matrices and leaves of more dimensions, False for vectors and scalars.

    Biases and the scales of normalization layers are vectors, and are best not pulled to zero.

        adamw(1e-3, weight_decay=0.1, mask=no_decay_on_vectors)

    Embeddings are matrices here. A stack of vectors, as layers under `lax.scan` have them, looks
    like a matrix: say which leaves are stacks.

        functools.partial(no_decay_on_vectors, stacked={"layers": True, "head": False})

    Args:
      params: the tree of parameters.
      stacked: which leaves have a leading axis of layers, not counted: a bool, a tree of bools
        with the params' structure or a prefix of it, or a function of the params that gives one.

    >>> import jax.numpy as jnp
    >>> no_decay_on_vectors({"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)})
    {'bias': False, 'kernel': True}
    """
    stacks = chosen(stacked, params, "no_decay_on_vectors")
    return jax.tree.map(lambda p, stack: jnp.ndim(p) >= 2 + stack, params, stacks)


def _pulled(mask: Any, params: Any) -> Any:
    """The parameters that decay; None in the places of the others."""
    if mask is None:
        return params
    return jax.tree.map(lambda on, p: p if on else None, chosen(mask, params), params)


def _on(mask: Any, f: Callable[..., Any], updates: Any, params: Any, *rest: Any) -> Any:
    """f(u, θ, ...) for the leaves that decay; u for the others."""
    step = lambda u, p, *xs: u if p is None else f(u, p, *xs)
    return tree.map(step, updates, _pulled(mask, params), *rest)


@gradient_transformation
def add_decayed_weights(weight_decay: NonNegative = 0.0, mask: Any = None) -> Any:
    """u ← u + λθ.

    After a rule and before `scale_by_learning_rate` the decay is decoupled and scaled by the
    rate, as in AdamW; before the rule it is L2 regularization. No state.

    Args:
      weight_decay: λ ≥ 0.
      mask: which leaves decay: a tree of bools with the params' structure or a prefix of it, or a
        function of the params that returns one.

    Source: Loshchilov and Hutter, arXiv 1711.05101.
    """

    def update(updates: Any, state: Any, params: Any) -> Any:
        if tree.is_static_zero(weight_decay):
            return updates, state
        return _on(mask, lambda u, p: u + weight_decay * p, updates, params), state

    return lambda params: (), update


@gradient_transformation
def add_cautious_weight_decay(weight_decay: NonNegative = 0.0, mask: Any = None) -> Any:
    """u ← u + λθ in the entries where uθ ≥ 0: where the step goes toward zero anyway, or nowhere.

    After a rule and before `scale_by_learning_rate`, whose sign it expects. An entry that the
    gradients drive away from zero is not held back, so that the loss itself is minimized. Of a
    complex entry the product is Re(ū θ). No state.

    Args:
      weight_decay: λ ≥ 0.
      mask: which leaves decay: a tree of bools with the params' structure or a prefix of it, or a
        function of the params that returns one.

    Source: Chen et al. 2025, arXiv 2510.12402.
    """

    def decay(u: jax.Array, p: jax.Array) -> jax.Array:
        # signs, since a product of two small numbers may vanish
        agrees = jnp.real(jnp.conj(jnp.sign(u)) * jnp.sign(p)) >= 0
        return u + weight_decay * jnp.where(agrees, p, jnp.zeros_like(p))

    def update(updates: Any, state: Any, params: Any) -> Any:
        if tree.is_static_zero(weight_decay):
            return updates, state
        return _on(mask, decay, updates, params), state

    return lambda params: (), update


@gradient_transformation
def add_independent_weight_decay(weight_decay: Fraction = 0.0, mask: Any = None) -> Any:
    """u ← u − λθ: a fraction of the weights at each step, whatever the rate. After the rate.

    With it the rate can be tuned alone, and weights forget the start in 1/λ steps at any rate.
    Caveat: it goes on where a rate falls to zero; give a schedule for λ if it shall fall too. No
    state for a number.

    Args:
      weight_decay: λ in [0, 1]: η times that of AdamW.
      mask: which leaves decay: a tree of bools with the params' structure or a prefix of it, or a
        function of the params that returns one.

    Source: Loshchilov and Hutter, arXiv 1711.05101, whose schedule scales λ though the rate does
    not; Wortsman et al. 2023, arXiv 2309.14322.
    """

    def update(updates: Any, state: Any, params: Any) -> Any:
        if tree.is_static_zero(weight_decay):
            return updates, state
        return _on(mask, lambda u, p: u - weight_decay * p, updates, params), state

    return lambda params: (), update


class StartState(NamedTuple):
    """θ₀, like the params, in their compute dtype; None of leaves that do not decay."""

    start: Any


@gradient_transformation
def add_weight_decay_to_start(weight_decay: NonNegative = 0.0, mask: Any = None) -> Any:
    """u ← u + λ(θ − θ₀): toward the parameters that `init` was given, for fine-tuning.

    Before a rule it is the penalty λ/2 ‖θ − θ₀‖² (L2-SP); after it and before
    `scale_by_learning_rate` it is decoupled. `init` needs the true parameters, not shapes.

    Args:
      weight_decay: λ ≥ 0.
      mask: which leaves are pulled: a tree of bools with the params' structure or a prefix of it,
        or a function of the params that returns one. A new head has no start worth keeping.

    Memory: one value per parameter that is pulled; none with weight_decay=0.
    Source: Li, Grandvalet and Davoine 2018, arXiv 1802.01483.
    """
    without = tree.is_static_zero(weight_decay)

    def init(params: Any) -> StartState:
        return StartState(None if without else _pulled(mask, params))

    def update(updates: Any, state: StartState, params: Any) -> Any:
        if without:
            return updates, state
        pull = lambda u, p, p0: u + weight_decay * (p - p0)
        return _on(mask, pull, updates, params, state.start), state

    return init, update


def decay_and_rate(
    owner: str, decay: str, learning_rate: Any, weight_decay: Any, mask: Any
) -> tuple[GradientTransformation, GradientTransformation]:
    """What follows a rule in an optimizer: weight decay of one of the `DECAYS`, and the rate.

    Raises:
      ValueError: for another word.
    """
    rate = scale_by_learning_rate(learning_rate)
    if decay == "decoupled":
        return add_decayed_weights(weight_decay, mask), rate
    if decay == "cautious":
        return add_cautious_weight_decay(weight_decay, mask), rate
    if decay == "independent":
        return rate, add_independent_weight_decay(weight_decay, mask)
    raise ValueError(f"{owner}: decay must be one of {', '.join(DECAYS)}, got {decay!r}")
