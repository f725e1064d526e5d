"""Rounding to narrow floats, in float32: the nearest, and the two halves of a float32.

All is arithmetic and no casts: a compiler that may compute more precisely than it is asked to
drops a cast there and back.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

HALF, UPPER = np.int32(0x8000), np.int32(-0x10000)
LARGEST = float(jnp.finfo(jnp.bfloat16).max)


def nearest(x: jax.Array, dtype: Any) -> jax.Array:
    """The nearest number of a narrow dtype to each float32, and the largest for finite ones above.

    Ties go to the even one. Infinite and NaN entries stay.
    """
    info = jnp.finfo(dtype)
    most, least = float(info.max), float(info.smallest_subnormal)
    y = jax.lax.reduce_precision(x, 8, info.nmant)
    if info.minexp > -126:  # below its smallest normal number the steps are equal
        steps = jnp.round(x * np.float32(1 / least)) * np.float32(least)
        y = jnp.where(jnp.abs(x) < float(info.smallest_normal), steps, y)
    return jnp.where(jnp.isfinite(x), jnp.clip(y, -most, most), x)


def landing(p: jax.Array, update: jax.Array, dtype: Any) -> jax.Array:
    """What `apply_updates` makes of a parameter: nearly always what it was made for.

    A difference of two narrow numbers of very different size has no float32: from 1 no update
    leads to -2⁻²⁴.
    """
    return nearest(p + update, dtype)


def _word(x: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(x, jnp.int32)


def _float(word: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(word, jnp.float32)


def split(x: jax.Array, p: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The update that leads from a bfloat16 p to the nearest to x, and what `joined` needs, int16.

    A tie goes away from zero: so the rest of 16 bits has the range of an int16.
    """
    upper = _float((_word(x) + HALF) & UPPER)
    upper = jnp.where(jnp.isfinite(x), jnp.clip(upper, -LARGEST, LARGEST), x)
    update = upper - p
    exact = (landing(p, update, jnp.bfloat16) == upper) & (upper != 0) & jnp.isfinite(upper)
    rest = jnp.clip(_word(x) - _word(upper), -0x8000, 0x7FFF)
    return update, jnp.where(exact, rest, 0).astype(jnp.int16)


def joined(p: jax.Array, rest: jax.Array) -> jax.Array:
    """The float32 of a bfloat16 and its rest."""
    whole = _float(_word(p) + rest.astype(jnp.int32))
    return jnp.where(jnp.isfinite(p) & (p != 0), whole, p)
