"""Schedules one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from fnopt.schedules.arguments import boundaries as checked_boundaries
from fnopt.schedules.arguments import sequence
from fnopt.schedules.schedule import schedule


@schedule
def join_schedules(
    schedules: Sequence[Callable[[Any], Any]], boundaries: Sequence[int]
) -> Callable[[jax.Array], Any]:
    """schedules[0] until boundaries[0], then schedules[1] until boundaries[1], and so on.

    Each schedule counts from its own beginning: schedules[i + 1] is given count - boundaries[i],
    and is never asked beyond its own piece.

    Ends: schedules[0](0) at count 0 (if boundaries[0] > 0); the last schedule without end. At a
    boundary the later schedule rules.

    Args:
      schedules: any functions `count -> scalar`.
      boundaries: one fewer than schedules; not negative and not decreasing.

    Raises:
      TypeError: one of the schedules is no function.
      ValueError: the lengths do not fit, or the boundaries decrease.
    """
    name = "join_schedules"
    pieces = tuple(sequence(name, schedules=schedules))
    bounds = checked_boundaries(name, boundaries=sequence(name, boundaries=boundaries))
    for piece in pieces:
        if not callable(piece):
            raise TypeError(f"{name}: schedules must be functions of the count, got {piece!r}")
    if not pieces or len(bounds) != len(pieces) - 1:
        raise ValueError(
            f"{name}: boundaries must be one fewer than schedules, "
            f"got {len(bounds)} boundaries and {len(pieces)} schedules"
        )

    def value(count: jax.Array) -> jax.Array:
        def ask(i: int) -> jax.Array:
            """Piece i at its own count, held within the piece so that no other value can harm."""
            begin = bounds[i - 1] if i else 0
            own = jnp.maximum(count - begin, 0) if i else count
            if i < len(bounds):
                own = jnp.minimum(own, bounds[i] - begin)
            return jnp.asarray(pieces[i](own), count.dtype)

        result = ask(0)
        for i, bound in enumerate(bounds):
            result = jnp.where(count < bound, result, ask(i + 1))
        return result

    return value
