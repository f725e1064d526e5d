"""Arrays in one byte or two an entry: block-scaled integers, fp8, and stochastic rounding.

    encoded = encode(x, "int8", bits=random_bits(x.shape, seed=step))
    x ≈ decode(encoded)

The narrow floats `bfloat16` and `float16` are plain arrays. Every other code is kept beside one
float32 scale, the largest magnitude, for each block of `block` entries along the last axis (the
last block of an axis may be shorter), and stands for y = x / scale in [-1, 1]:

    int8, int4                z = 2y / (1 + |y|)   the code is 127 z, or 7 z
    uint8, uint4              z = √y               the code is 256 z − 1, or 16 z − 9: never zero
    dynamic8, dynamic8_unsigned                    seven decades, each with twice as many fractions
    float8_e4m3fn, float8_e5m2                     y times the greatest number of the dtype

With `bits` an entry rounds to one of its two neighbours with a probability that makes its mean the
entry itself; without, to the nearer one. An infinite or NaN entry makes its block infinite or NaN,
and so does a negative entry under an unsigned code: visible at once.

Sources: Dettmers et al. 2021, arXiv 2110.02861, for blocks and the dynamic code; arXiv 2309.01507
for the second moment that is never zero; arXiv 2602.23349 for the two curves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnopt import blocks, curves
from fnopt.placement import beside
from fnopt.rounding import nearest

BLOCK = 128
"""How many entries share a scale, where nothing else is said."""

GOLDEN = 0x9E3779B1
"""2³² over the golden section, as a prime."""

PLAIN = ("bfloat16", "float16")
"""The codes that are plain arrays of a narrow float."""


# Random bits and floats


def random_bits(
    shape: tuple[int, ...], seed: Any, salt: int = 0, axes: tuple[Any, ...] = ()
) -> jax.Array:
    """Uniform uint32 of a shape: a hash of each entry's position, the seed and the salt.

    The same on every device and after a restart; a few integer operations an entry, which the
    compiler puts into the loop that reads them.

    Args:
      shape: of the result.
      seed: an integer scalar.
      salt: tells apart arrays of one shape and seed.
      axes: inside `shard_map` or `pmap`, the mesh axes over which the array is split along its
        first axis; a part has its share of the whole array's bits.
    """
    start = jnp.asarray(seed).astype(jnp.uint32) + np.uint32(salt * GOLDEN % 2**32)
    return _mixed(_index(shape, axes) + _mixed(start))


def dither_bits(
    shape: tuple[int, ...], step: Any, salt: int = 0, axes: tuple[Any, ...] = ()
) -> jax.Array:
    """Uniform uint32 for an array that is rounded at every step: a hash of each entry's position
    and the salt, moved on by the golden section at each step.

    An entry's bits are spread evenly over any few steps, so that the errors of its roundings cancel
    where independent ones would add up to a random walk.

    Args:
      shape: of the result.
      step: an integer scalar, the number of the step.
      salt: tells apart arrays of one shape.
      axes: as in `random_bits`.
    """
    start = _mixed(jnp.asarray(salt * GOLDEN % 2**32, jnp.uint32))
    moved = jnp.asarray(step).astype(jnp.uint32) * np.uint32(GOLDEN)
    return _mixed(_index(shape, axes) + start) + moved


def _index(shape: tuple[int, ...], axes: tuple[Any, ...]) -> jax.Array:
    """Each entry's place in the whole array, counted by rows, uint32."""
    index, stride = jnp.zeros(shape, jnp.uint32), 1
    for axis in reversed(range(len(shape))):
        step = np.uint32(stride % 2**32)
        index = index + jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * step
        stride *= shape[axis]
    if not axes:
        return index
    return index + jax.lax.axis_index(axes).astype(jnp.uint32) * np.uint32(stride % 2**32)


def _mixed(x: jax.Array) -> jax.Array:
    """A bijection of uint32 in which every bit depends on every bit."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def uniform(bits: jax.Array) -> jax.Array:
    """Float32 in [0, 1) of the upper 24 of 32 random bits."""
    return (bits >> np.uint32(8)).astype(jnp.float32) * np.float32(2.0**-24)


def round_stochastically(x: jax.Array, dtype: Any, bits: jax.Array) -> jax.Array:
    """x in a narrow float dtype, rounded up or down so that the mean of the result is x.

    Infinite and NaN entries stay; a finite one never becomes infinite, nor a positive one zero.

    Args:
      x: a float array.
      dtype: a float dtype of 8 or 16 bits; a wider one is a plain cast.
      bits: uint32 of the shape of x, as `random_bits` gives.
    """
    dtype = jnp.dtype(dtype)
    if dtype.itemsize >= 4:
        return x.astype(dtype)
    x = x.astype(jnp.float32)
    info = jnp.finfo(dtype)
    most, least = np.float32(info.max), np.float32(info.smallest_subnormal)
    if dtype == jnp.bfloat16:  # the upper half of a float32
        word = jax.lax.bitcast_convert_type(x, jnp.uint32) + (bits >> np.uint32(16))
        rounded = jax.lax.bitcast_convert_type(word & np.uint32(0xFFFF0000), jnp.float32)
    else:
        word = jax.lax.bitcast_convert_type(x, jnp.uint32) & np.uint32(0x7F800000)
        power = jax.lax.bitcast_convert_type(word, jnp.float32)  # of two, at most |x|
        step = jnp.maximum(power, np.float32(info.smallest_normal)) * np.float32(info.eps)
        rounded = jnp.floor(x / step + uniform(bits)) * step
        rounded = jnp.where(x > 0, jnp.maximum(rounded, least), rounded)
    rounded = jnp.clip(rounded, -most, most)
    return jnp.where(jnp.isfinite(x), rounded, x).astype(dtype)


def narrowed(x: jax.Array, dtype: Any, bits: jax.Array | None) -> jax.Array:
    """x in a narrow float dtype: the nearest, or by chance with `bits`; finite if x is."""
    if bits is not None:
        return round_stochastically(x, dtype, bits)
    return nearest(x, dtype).astype(dtype)


# Codes with a scale for each block


@dataclasses.dataclass(frozen=True)
class Codec:
    """One way to keep numbers y in [-1, 1].

    Attributes:
      name: what `encode` and `store` call it.
      dtype: the codes' dtype.
      value: codes as float32 -> the numbers that they stand for, increasing; None for fp8, whose
        codes are numbers.
      place: numbers -> where they stand between codes.
      lowest: the least code.
      highest: the greatest.
      unsigned: whether only numbers that are not negative can be kept.
    """

    name: str
    dtype: Any
    value: Callable[[jax.Array], jax.Array] | None = None
    place: Callable[[jax.Array], jax.Array] | None = None
    lowest: int = 0
    highest: int = 0
    unsigned: bool = False

    def codes(self, y: jax.Array, bits: jax.Array | None) -> jax.Array:
        """The codes of y, rounded to the nearer number or, with `bits`, by chance."""
        if self.value is None or self.place is None:
            scaled = y * np.float32(jnp.finfo(self.dtype).max)
            if bits is None:
                return scaled.astype(self.dtype)
            return round_stochastically(scaled, self.dtype, bits)
        low = jnp.floor(self.place(y))
        below = self.value(low)
        share = (y - below) / (self.value(low + 1) - below)
        up = share > (0.5 if bits is None else uniform(bits))
        code = jnp.clip(low + up.astype(jnp.float32), self.lowest, self.highest)
        if self.unsigned and self.lowest > 0:  # zero has a code of its own, below
            code = jnp.where(y > 0, code, np.float32(0))
        return code.astype(jnp.int32).astype(self.dtype)

    def numbers(self, codes: jax.Array) -> jax.Array:
        """What codes stand for, float32 in [-1, 1]."""
        if self.value is None:
            return codes.astype(jnp.float32) * np.float32(1 / float(jnp.finfo(self.dtype).max))
        return self.value(codes.astype(jnp.float32))


def _curve(pair: str, *args: Any) -> dict[str, Any]:
    value, place = getattr(curves, f"{pair}_value"), getattr(curves, f"{pair}_place")
    return {"value": lambda c: value(c, *args), "place": lambda y: place(y, *args)}


CODECS = {
    codec.name: codec
    for codec in (
        Codec("int8", jnp.int8, **_curve("companded", 127), lowest=-127, highest=127),
        Codec("uint8", jnp.uint8, **_curve("root", 256), highest=255, unsigned=True),
        Codec("int4", jnp.int4, **_curve("companded", 7), lowest=-7, highest=7),
        # in a signed dtype, since checkpoints have no unsigned one of 4 bits
        Codec("uint4", jnp.int4, **_curve("root", 16, 8), lowest=-8, highest=7, unsigned=True),
        Codec("dynamic8", jnp.int8, **_curve("dynamic", True), lowest=-127, highest=128),
        Codec(
            "dynamic8_unsigned",
            jnp.uint8,
            **_curve("dynamic", False),
            lowest=1,
            highest=255,
            unsigned=True,
        ),
        Codec("float8_e4m3fn", jnp.float8_e4m3fn),
        Codec("float8_e5m2", jnp.float8_e5m2),
    )
}
"""The codecs with block scales by name."""


@jax.tree_util.register_pytree_with_keys_class
class Encoded:
    """An array kept in codes with block scales: a tree of two arrays, whose codec is static.

    Attributes:
      codes: of the array's shape.
      scales: float32 of the array's shape, its last axis divided by the block, rounded up.
      codec: the codec's name.
      block: the entries along the last axis that share a scale.
    """

    def __init__(self, codes: Any, scales: Any, codec: str, block: int) -> None:
        self.codes, self.scales, self.codec, self.block = codes, scales, codec, block

    def __repr__(self) -> str:
        shape = getattr(self.codes, "shape", None)
        return f"Encoded({self.codec}, block={self.block}, shape={shape})"

    @property
    def name(self) -> str:
        """The name of the codes among named arrays: `int8_128`. The scales' is `scales`."""
        return f"{self.codec}_{self.block}"

    def tree_flatten_with_keys(self) -> tuple[Any, Any]:
        """The codes and the scales under their names, for JAX."""
        key = jax.tree_util.GetAttrKey
        children = ((key(self.name), self.codes), (key("scales"), self.scales))
        return children, (self.codec, self.block)

    @classmethod
    def tree_unflatten(cls, aux: Any, children: Any) -> Encoded:
        """The node of two children, for JAX."""
        codes, scales = children
        return cls(codes, scales, *aux)


def is_encoded(x: Any) -> bool:
    """For `is_leaf`: an `Encoded` as a leaf."""
    return isinstance(x, Encoded)


def find(owner: str, name: str) -> Codec:
    """The codec with block scales of that name.

    Raises:
      ValueError: there is none; it lists those there are.
    """
    if name not in CODECS:
        known = ", ".join([*PLAIN, *CODECS])
        raise ValueError(f"{owner}: unknown codec {name!r}; there are {known}")
    return CODECS[name]


def encode(
    x: jax.Array,
    codec: str,
    *,
    block: int = BLOCK,
    bits: jax.Array | None = None,
    axes: tuple[Any, ...] = (),
) -> Encoded:
    """An array in codes with block scales.

    The error of an entry is at most half the distance between its neighbours, times its block's
    scale (the whole distance with `bits`): 0.008 for int8 and 0.13 for int4 at the scale itself, a
    quarter of that near zero. Entries below 1.2e-38 count as zero, finite ones above 8e37 as that.

    Args:
      x: float32, with at least one axis.
      codec: a name of `CODECS`.
      block: entries along the last axis that share a scale, at least 1.
      bits: uint32 of the shape of x, for stochastic rounding.
      axes: inside `shard_map` or `pmap`, the mesh axes over which x is split along its first axis;
        a block of a vector that the parts cut has one scale.

    Raises:
      ValueError: an unknown codec, a scalar, or a block below 1.
      TypeError: x is not float32.
    """
    found = find("encode", codec)
    if x.dtype != jnp.float32:
        raise TypeError(f"encode: expected float32, got {x.dtype}")
    if x.ndim == 0 or block < 1:
        raise ValueError(f"encode: expected an axis and a block above 0, got {x.shape}, {block}")
    # −x, for an operation of one operand is what a CPU compiler repeats in each loop
    minus = -x
    scales = blocks.largest(minus, block, found.unsigned, axes)
    scales = jnp.where(jnp.isfinite(scales), jnp.minimum(scales, np.float32(8e37)), scales)
    tiny = np.float32(jnp.finfo(jnp.float32).tiny)  # as small as the inverse of 8e37
    inverse = jnp.where(scales >= tiny, -1 / jnp.maximum(scales, tiny), np.float32(0))
    if bits is not None:
        bits = beside(bits, x)
    codes = found.codes(minus * blocks.spread(inverse, x, block, axes), bits)
    return Encoded(codes, scales, codec, block)


def decode(encoded: Encoded, axes: tuple[Any, ...] = ()) -> jax.Array:
    """The array that codes and scales stand for, float32; `axes` as they were encoded."""
    codec = find("decode", encoded.codec)
    numbers = codec.numbers(encoded.codes)
    return numbers * blocks.spread(encoded.scales, numbers, encoded.block, axes)


def decoded(t: Any) -> Any:
    """A tree with arrays in the places of its `Encoded` nodes."""
    return jax.tree.map(lambda x: decode(x) if is_encoded(x) else x, t, is_leaf=is_encoded)
