"""Members of a partition that share their reductions, each run as far as the others' results."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Sequence
from typing import Any

import jax

_SEAT: contextvars.ContextVar[list[Any] | None] = contextvars.ContextVar("seat", default=None)
"""While a member of a sharing partition runs: the results that it has still to be given."""


class _Waits(Exception):
    """Ends a member's run where it needs a reduction that the others have yet to take part in."""

    def __init__(self, value: jax.Array, combine: Callable[[list[jax.Array]], jax.Array]):
        self.value, self.combine = value, combine


def share(value: jax.Array, combine: Callable[[list[jax.Array]], jax.Array]) -> jax.Array:
    """A reduction of a member's leaves; inside `meet` combined with those of the others."""
    seat = _SEAT.get()
    if seat is None:
        return value
    if seat:
        return seat.pop(0)
    raise _Waits(value, combine)


def meet(runs: Sequence[Callable[[], Any]]) -> list[Any]:
    """What each run returns, their reductions over the whole tree shared (`reductions.total`).

    A run is begun again each time that a reduction of it is known, and the first part of its
    program is then a second copy, which the compiler leaves out. Runs that have fewer reductions
    than others take no part in the rest.
    """
    results: list[Any] = [None] * len(runs)
    waiting, known = list(range(len(runs))), list[Any]()
    while waiting:
        halted: list[tuple[int, _Waits]] = []
        for i in waiting:
            token = _SEAT.set(list(known))
            try:
                results[i] = runs[i]()
            except _Waits as wait:
                halted.append((i, wait))
            finally:
                _SEAT.reset(token)
        waiting = [i for i, _ in halted]
        if halted:
            known.append(halted[0][1].combine([wait.value for _, wait in halted]))
    return results
