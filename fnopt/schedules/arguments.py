"""The arguments of schedules: checked where known, traced values passed on, errors that name them.

What is known when a schedule is built becomes a Python float, so it is folded at double
precision; what is traced becomes a scalar of the default float dtype and is not checked.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def number(
    schedule: str,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    **named: Any,
) -> Any:
    """The one finite scalar given by name, within its bounds.

    Returns:
      A float, or a traced scalar of the default float dtype.

    Raises:
      ValueError: it is not a finite number within the bounds.
    """
    ((name, value),) = named.items()
    if isinstance(value, jax.core.Tracer):
        return traced(schedule, name, value)
    bounds = {">=": at_least, ">": above, "<=": at_most}
    said = " and ".join(f"{sign} {b:g}" for sign, b in bounds.items() if b is not None)
    x = as_float(value)
    inside = [at_least is None or x >= at_least, above is None or x > above]
    if not (math.isfinite(x) and all(inside) and (at_most is None or x <= at_most)):
        kind = f"a finite number {said}".strip()
        raise ValueError(f"{schedule}: {name} must be {kind}, got {shown(value)}")
    return x


def rate(schedule: str, **named: Any) -> Any:
    """`number` for a value a schedule may take: finite and not negative."""
    return number(schedule, at_least=0, **named)


def steps(schedule: str, *, least: int = 1, **named: Any) -> Any:
    """The one number of steps given by name: an integer (of any type, 1e4 is one), at least 1 or 0.

    Returns:
      A float (any count fits one), or a traced scalar of the default float dtype.

    Raises:
      ValueError: it is not an integer, or is too small.
    """
    ((name, value),) = named.items()
    if isinstance(value, jax.core.Tracer):
        return traced(schedule, name, value)
    x = as_float(value)
    if not (math.isfinite(x) and x == int(x) and x >= least) or isinstance(value, bool):
        kind = "a positive" if least == 1 else "a non-negative" if least == 0 else f"a >= {least}"
        raise ValueError(f"{schedule}: {name} must be {kind} integer, got {shown(value)}")
    return x


def boundaries(schedule: str, **named: Iterable[Any]) -> tuple[Any, ...]:
    """The steps at which something changes, given by name: not negative, and never decreasing.

    Raises:
      ValueError: one is not a non-negative integer, or is smaller than the one before.
    """
    ((name, values),) = named.items()
    values = tuple(values)
    found = tuple(steps(schedule, least=0, **{name: value}) for value in values)
    if any(known(a) and known(b) and b < a for a, b in itertools.pairwise(found)):
        raise ValueError(f"{schedule}: {name} must not decrease, got {list(values)}")
    return found


def sequence(schedule: str, **named: Any) -> Sequence[Any]:
    """The one list or tuple given by name: an iterator would be empty at the second reading."""
    ((name, values),) = named.items()
    if isinstance(values, str | bytes) or not isinstance(values, Sequence | np.ndarray | jax.Array):
        raise TypeError(f"{schedule}: {name} must be a list or a tuple, got {shown(values)}")
    return values  # type: ignore[return-value]


def mapping(schedule: str, **named: Any) -> Mapping[Any, Any]:
    """The one dict given by name; None is an empty one."""
    ((name, values),) = named.items()
    if not isinstance(values, Mapping | None):
        raise TypeError(f"{schedule}: {name} must be a dict, got {shown(values)}")
    return values or {}


def choice(schedule: str, options: Iterable[str], **named: str) -> str:
    """The one word given by name, if it is one of the options."""
    ((name, word),) = named.items()
    if word not in tuple(options):
        raise ValueError(f"{schedule}: {name} must be one of {', '.join(options)}, got {word!r}")
    return word


def known(value: Any) -> bool:
    """Whether a checked argument has its value now, and not only when the program runs."""
    return not isinstance(value, jax.core.Tracer)


def traced(schedule: str, name: str, value: jax.core.Tracer) -> jax.Array:
    """A traced scalar in the default float dtype."""
    if value.shape:
        raise ValueError(f"{schedule}: {name} must be a scalar, got shape {value.shape}")
    return jnp.asarray(value).astype(jnp.result_type(float))


def as_float(value: Any) -> float:
    """The value as a Python float, NaN if it is not a scalar number."""
    if isinstance(value, str | bytes):
        return math.nan
    try:
        return math.nan if np.ndim(value) else float(value)
    except (TypeError, ValueError):
        return math.nan


def shown(value: Any) -> str:
    """How an error prints what it was given."""
    if np.ndim(value) if isinstance(value, np.ndarray | jax.Array) else False:
        return f"an array of shape {value.shape}"
    return getattr(value, "__name__", repr(value)) if inspect.isroutine(value) else repr(value)
