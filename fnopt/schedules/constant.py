"""The schedule that stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from fnopt.schedules.arguments import rate
from fnopt.schedules.schedule import schedule


@schedule
def constant_schedule(value: Any) -> Callable[[jax.Array], Any]:
    """`value` at every count.

    Ends: value at count 0 and at every other.

    Args:
      value: finite and not negative.

    Raises:
      ValueError: value is negative, infinite or NaN.
    """
    held = rate("constant_schedule", value=value)
    return lambda count: held
