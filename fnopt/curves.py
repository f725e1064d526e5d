"""The curves between the integer codes of `fnopt.codecs` and the numbers that they stand for.

Each pair is a function of codes and its inverse: `*_value` gives the number y of a code c, and
`*_place` where y stands between codes. Both take and give float32. The values are written so that a
CPU compiler repeats them in each loop that reads them instead of storing them: no division, root
or power.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def companded_value(c: jax.Array, levels: int) -> jax.Array:
    """y = z / (2 − |z|) for z = c / levels, the quotient as a product, exact to 3e-10."""
    z = c * np.float32(1 / levels)
    h = jnp.abs(z) * np.float32(0.5)
    y = z * np.float32(0.5)
    for _ in range(5):  # 1 / (1 − h) = (1 + h)(1 + h²)(1 + h⁴)...
        y, h = y + y * h, h * h
    return y


def companded_place(y: jax.Array, levels: int) -> jax.Array:
    """levels · 2y / (1 + |y|): twice as fine near zero as a linear code."""
    return y * np.float32(2 * levels) / (1 + jnp.abs(y))


def root_value(c: jax.Array, levels: int, shift: int = 0) -> jax.Array:
    """y = ((c + shift + 1) / levels)²: never zero for c ≥ −shift."""
    z = (c + (shift + 1)) * np.float32(1 / levels)
    return z * z


def root_place(y: jax.Array, levels: int, shift: int = 0) -> jax.Array:
    """levels · √y − 1 − shift."""
    return jnp.sqrt(y) * np.float32(levels) - (shift + 1)


# The dynamic code: seven decades below 1, of which the i-th from below has 2^i equal parts, each
# with its middle for a number; twice as many without a sign. Code 2^i + f is the f-th part.


def _chosen(index: jax.Array, numbers: list[float]) -> jax.Array:
    """numbers[index], by selections."""
    result = jnp.full_like(index, numbers[-1], dtype=jnp.float32)
    for i, number in enumerate(numbers[:-1]):
        result = jnp.where(index == i, np.float32(number), result)
    return result


def dynamic_value(c: jax.Array, signed: bool) -> jax.Array:
    """The code's number: 0 for 0, 1 for the highest code, which with a sign is 128 or −128."""
    first = 0 if signed else 1
    if signed:
        c = jnp.where(c == -128, np.float32(128), c)
    magnitude = jnp.maximum(jnp.abs(c) + first, 1)
    word = jax.lax.bitcast_convert_type(magnitude, jnp.uint32)
    octave = (word >> np.uint32(23)).astype(jnp.int32) - (127 + first)
    per_part = _chosen(octave, [2.0 ** -(i + first) for i in range(8 - first)])
    power = jax.lax.bitcast_convert_type(word & np.uint32(0x7F800000), jnp.float32)
    part = (magnitude - power + np.float32(0.5)) * per_part
    decade = _chosen(octave, [10.0 ** (i - 6) for i in range(8 - first)])
    y = decade * (np.float32(0.1) + np.float32(0.9) * part)
    y = jnp.where(c == 0, np.float32(0), y)
    y = jnp.where(jnp.abs(c) >= (128 if signed else 255), np.float32(1), y)
    return jnp.where(c < 0, -y, y)


def dynamic_place(y: jax.Array, signed: bool) -> jax.Array:
    """Where y stands between codes."""
    first = 0 if signed else 1
    size = jnp.abs(y)
    octave = jnp.zeros(y.shape, jnp.int32)
    for i in range(-6, 0):
        octave = octave + (size > 10.0**i).astype(jnp.int32)
    parts = _chosen(octave, [2.0 ** (i + first) for i in range(7)])
    unit = _chosen(octave, [10.0 ** (6 - i) for i in range(7)])
    part = (size * unit - np.float32(0.1)) * np.float32(1 / 0.9) * parts
    c = parts + part - np.float32(0.5 + first)
    smallest = np.float32(0.55e-6 if signed else 0.325e-6)
    c = jnp.where(size < smallest, size * np.float32(1 / smallest), jnp.maximum(c, 1))
    return jnp.where(y < 0, -jnp.minimum(c, 127), c)
