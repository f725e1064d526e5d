"""Members that run at some steps only: `conditionally_transform` and `conditionally_mask`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from fnopt import tree
from fnopt.core import gradient_transformation
from fnopt.rule import routed
from fnopt.wrappers.branching import either


class ConditionalState(NamedTuple):
    """The count of calls, int32 (); the member's state."""

    count: Any
    inner: Any


def _conditional(
    owner: str, inner: Any, should: Callable[..., Any], forward: bool, otherwise: Callable[..., Any]
) -> Any:
    def init(params: Any) -> ConditionalState:
        return ConditionalState(tree.zero_count(), inner.init(params))

    def update(updates: Any, state: ConditionalState, params: Any = None, **extra_args: Any) -> Any:
        new, kept = either(
            owner,
            should(state.count, **(extra_args if forward else {})),
            lambda: inner.update(updates, state.inner, params, **extra_args),
            lambda: (otherwise(updates), state.inner),
        )
        return new, ConditionalState(tree.increment(state.count), kept)

    return init, update, lambda params: routed(inner, params)


@gradient_transformation
def conditionally_transform(
    inner: Any, should_transform_fn: Callable[..., Any], forward_extra_args: bool = False
) -> Any:
    """A member that runs where a condition holds; elsewhere the updates pass as they are.

    Args:
      inner: any transformation.
      should_transform_fn: count of calls, int32 () -> bool or bool ().
      forward_extra_args: give it the extra arguments of `update` too, by name.

    Memory: the member's.
    """
    owner = "conditionally_transform"
    return _conditional(owner, inner, should_transform_fn, forward_extra_args, lambda u: u)


@gradient_transformation
def conditionally_mask(
    inner: Any, should_transform_fn: Callable[..., Any], forward_extra_args: bool = False
) -> Any:
    """A member that runs where a condition holds; elsewhere the updates are zero.

    Args:
      inner: any transformation.
      should_transform_fn: count of calls, int32 () -> bool or bool ().
      forward_extra_args: give it the extra arguments of `update` too, by name.

    Memory: the member's.
    """
    owner = "conditionally_mask"
    return _conditional(owner, inner, should_transform_fn, forward_extra_args, tree.zeros_like)
