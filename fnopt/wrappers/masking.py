"""Some leaves and not others: `masked`, `freeze` and `selective_transform`.

A leaf that is left out is frozen: its update is zero and it has no state. With `passthrough` its
update stays as it came, which inside a chain is what a part of it wants.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from fnopt import masks, tree
from fnopt.core import gradient_transformation
from fnopt.rule import routed


class MaskedState(NamedTuple):
    """The wrapped optimizer's state, on the chosen leaves; None in the places of the others."""

    inner: Any


FROZEN, PASSED = "frozen", "passed through"


def rest(updates: Any, mask: Any, passthrough: bool) -> Any:
    """What leaves outside a mask get: their updates, or zeros; None inside it."""
    outside = masks.only(updates, jax.tree.map(lambda on: not on, mask))
    return outside if passthrough else tree.zeros_like(outside)


def join(mask: Any, inside: Any, outside: Any) -> Any:
    """The leaves of one tree where the mask is true, of the other elsewhere."""
    return jax.tree.map(lambda on, a, b: a if on else b, mask, inside, outside)


def masked_extras(extra_args: dict[str, Any], params: Any, mask: Any) -> dict[str, Any]:
    """The extra arguments, those of the params' structure without the leaves outside the mask."""
    structure: Any = jax.tree.structure(params)
    return {
        name: masks.only(value, mask) if jax.tree.structure(value) == structure else value
        for name, value in extra_args.items()
    }


@gradient_transformation
def masked(
    inner: Any,
    mask: Any = None,
    *,
    mask_fn: Callable[[Any], Any] | None = None,
    passthrough: bool = False,
    mask_compatible_extra_args: bool = False,
) -> Any:
    """An optimizer for the leaves where a mask is true; the others are frozen.

        masked(adamw(1e-3), {"encoder": False, "head": True})
        chain(masked(add_decayed_weights(0.1), no_decay_on_vectors, passthrough=True), adam(1e-3))

    Args:
      inner: any transformation.
      mask: a tree of bools with the params' structure or a prefix of it, in any container type, or
        a function of the params that returns one. Params have None where a leaf is no float array.
      mask_fn: any callable in the place of `mask`, a module for example.
      passthrough: leave the updates of the other leaves as they are instead of zero.
      mask_compatible_extra_args: mask extra arguments that have the params' structure too.

    Raises:
      ValueError: unless one of `mask` and `mask_fn` is given; where a mask does not fit the params.

    Memory: the optimizer's, on the chosen leaves.
    """
    if (mask is None) == (mask_fn is None):
        raise ValueError("masked: give one of mask and mask_fn")

    def chosen(params: Any) -> Any:
        return masks.chosen(mask if mask_fn is None else mask_fn(params), params, "masked")

    def init(params: Any) -> MaskedState:
        return MaskedState(inner.init(masks.only(params, chosen(params))))

    def update(updates: Any, state: MaskedState, params: Any = None, **extra_args: Any) -> Any:
        on = chosen(updates if params is None else params)
        if mask_compatible_extra_args:
            extra_args = masked_extras(extra_args, updates, on)
        seen = None if params is None else masks.only(params, on)
        new, state = inner.update(masks.only(updates, on), state.inner, seen, **extra_args)
        return join(on, new, rest(updates, on, passthrough)), MaskedState(state)

    def routes(params: Any) -> Any:
        on = chosen(params)
        words = jax.tree.map(lambda _: PASSED if passthrough else FROZEN, params)
        return join(on, routed(inner, masks.only(params, on)), words)

    return init, update, routes


@gradient_transformation
def freeze(mask: Any) -> Any:
    """u ← 0 where the mask is true; the others pass. No state.

    Args:
      mask: a tree of bools with the params' structure or a prefix of it, in any container type, or
        a function of the params that returns one.
    """

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        on = masks.chosen(mask, updates if params is None else params, "freeze")
        return join(on, tree.zeros_like(updates), updates), state

    def routes(params: Any) -> Any:
        on = masks.chosen(mask, params, "freeze")
        return jax.tree.map(lambda frozen: FROZEN if frozen else PASSED, on)

    return lambda params: (), update, routes


@gradient_transformation
def selective_transform(optimizer: Any, *, freeze_mask: Any) -> Any:
    """An optimizer for the leaves where a mask is false; the others are frozen.

    `masked` with the mask turned around.

    Args:
      optimizer: any transformation.
      freeze_mask: a tree of bools with the params' structure or a prefix of it, in any container
        type, or a function of the params that returns one.

    Memory: the optimizer's, on the leaves that are not frozen.
    """

    def thawed(params: Any) -> Any:
        frozen = masks.chosen(freeze_mask, params, "selective_transform")
        return jax.tree.map(lambda x: not x, frozen)

    rule = masked(optimizer, thawed).rule
    return rule.init, rule.update, rule.routes
