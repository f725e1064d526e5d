"""Codes and scales: stated errors over all magnitudes, chance without bias, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from findings import each
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fnopt import codecs, curves
from fnopt.codecs import CODECS, Encoded, decode, encode, random_bits, round_stochastically

TINY = float(np.finfo(np.float32).tiny)
INTEGERS = [name for name, codec in CODECS.items() if codec.value is not None]
FLOATS = [name for name in CODECS if name not in INTEGERS]
SIGNED = [name for name, codec in CODECS.items() if not codec.unsigned]
UNSIGNED = [name for name, codec in CODECS.items() if codec.unsigned]

# The largest distance of two neighbours, in units of the scale: the error by chance is below it,
# the nearest one's below its half.
GAPS = {
    "int8": 0.01575, "uint8": 0.00783, "int4": 0.2501, "uint4": 0.1211,
    "dynamic8": 0.0141, "dynamic8_unsigned": 0.00704,
    "float8_e4m3fn": 0.0715, "float8_e5m2": 0.1429,
}  # fmt: skip


def neighbours(name):
    """All numbers of a codec, in order."""
    codec = CODECS[name]
    if name in FLOATS:
        every = np.arange(256, dtype=np.uint8)
        numbers = jax.jit(lambda x: codec.numbers(jax.lax.bitcast_convert_type(x, codec.dtype)))
        found = np.asarray(numbers(every))
        return np.unique(found[np.isfinite(found)])
    codes = np.arange(codec.lowest, codec.highest + 1, dtype=np.float32)
    return np.asarray(jax.jit(codec.value)(codes))


@pytest.mark.parametrize("name", CODECS)
def test_the_stated_distance_of_neighbours(name):
    assert 0.9 * GAPS[name] < np.diff(neighbours(name)).max() <= GAPS[name]


@pytest.mark.parametrize("name", INTEGERS)
def test_every_code_stands_for_a_number_of_its_own(name):
    codec, numbers = CODECS[name], neighbours(name)
    assert (np.diff(numbers) > 0).all()
    there = jax.jit(lambda x: codec.numbers(codec.codes(x, None)))(numbers)
    np.testing.assert_array_equal(there, numbers)
    assert len(numbers) >= 2 ** (4 if "4" in name else 8) - 1


def test_the_dynamic_code_is_the_papers():
    """Dettmers et al.: the middles of equal parts of seven decades, and 0 and 1."""
    for name, signed in (("dynamic8", True), ("dynamic8_unsigned", False)):
        wanted = [0.0, 1.0]
        for i in range(7):
            edges = np.linspace(0.1, 1, (2**i if signed else 2 ** (i + 1)) + 1)
            middles = 10.0 ** (i - 6) * (edges[:-1] + edges[1:]) / 2
            wanted += [*middles, *(-middles if signed else [])]
        codec = CODECS[name]
        first = -127 if signed else 0
        found = codec.value(jnp.arange(first, codec.highest + 1, dtype=jnp.float32))
        assert len(wanted) == 256 == len(found)
        np.testing.assert_allclose(found, sorted(wanted), rtol=1e-5)


def test_the_quotient_of_the_companded_code_is_exact():
    z = np.arange(-127, 128) / 127
    found = curves.companded_value(jnp.arange(-127, 128, dtype=jnp.float32), 127)
    np.testing.assert_allclose(found, z / (2 - np.abs(z)), rtol=3e-7)


def block_scales(x, block):
    n = x.shape[-1]
    parts = [np.abs(x[..., i : i + block]).max(-1) for i in range(0, n, block)]
    return np.repeat(np.stack(parts, -1), block, -1)[..., :n]


@functools.partial(jax.jit, static_argnums=1)
def written(x, name, seed):
    """To the nearest, and by chance."""
    each = (None, random_bits(x.shape, seed))
    return [decode(encode(x, name, block=8, bits=bits)) for bits in each]


def of_all(f, names=CODECS):
    """name -> what f(x, name) gives, all one program; an exception where it does not trace."""

    def run(x):
        found = {}
        for name in names:
            try:
                found[name] = f(x, name)
            except Exception as error:
                failed[name] = error
        return found

    failed = {}
    return lambda x: jax.device_get(jax.jit(run)(x)) | failed


most = float(np.float32(7.9e37))
tensors = arrays.arrays(np.float32, (2, 20), elements=st.floats(-most, most, width=32))


@settings(max_examples=100, deadline=None)
@given(x=tensors, seed=st.integers(0, 2**31 - 1))
@pytest.mark.parametrize("name", CODECS)
def test_the_error_is_below_the_distance_of_neighbours(name, x, seed):
    """Over all magnitudes, zeros and denormal numbers (which count as zero)."""
    x = np.abs(x) if CODECS[name].unsigned else x
    scale = block_scales(x, 8).astype(np.float64)
    for found, share in zip(written(x, name, np.int32(seed)), (0.5, 1.0)):
        found = np.asarray(found)
        floor = 1 / 256 if name == "uint4" else 1 / 65536 if name == "uint8" else 0.0
        bound = np.maximum(share * GAPS[name], floor) * scale * 1.001 + 2 * TINY
        assert (np.abs(found.astype(np.float64) - x) <= bound).all()
        assert (np.abs(found) <= scale * 1.000001 + TINY).all()


def through(x, name, **words):
    return decode(encode(x, name, **words))


def test_a_block_of_tiny_values_does_not_vanish():
    sizes = np.float32([1e-37, 1e-20, 7e37])
    x = np.broadcast_to(sizes[:, None], (3, 300))
    close = lambda name, found: np.testing.assert_allclose(found, x, rtol=1e-6)
    each(of_all(through)(x), close)


def test_zeros_stay_zeros():
    def twice(x, name):
        return through(x, name), through(x, name, bits=random_bits(x.shape, 1))

    x = np.zeros((3, 200), np.float32)
    zero = lambda name, found: np.testing.assert_array_equal(found, np.stack([x, x]))
    each(of_all(twice)(x), zero)


def test_a_second_moment_is_not_rounded_to_zero():
    x = np.float32([[1.0, 1e-12, 1e-30, 1e-37]])

    def rounded(x, name):
        bits = jax.vmap(lambda seed: random_bits(x.shape, seed))(jnp.arange(5))
        return jax.vmap(lambda bits: through(x, name, bits=bits))(bits)

    def check(name, found):
        assert (found > 0).all()

    each(of_all(rounded, UNSIGNED)(x), check)


def test_what_is_not_finite_shows_in_its_block_alone():
    x = np.full((3, 8), 0.5, np.float32)
    x[:, 2] = [np.inf, -np.inf, np.nan]

    def check(name, found):
        assert not np.isfinite(found[:, 2]).any()
        np.testing.assert_allclose(found[:, 4:], 0.5)

    each(of_all(functools.partial(through, block=4))(x), check)


def test_a_negative_entry_under_an_unsigned_code_shows():
    x = np.float32([[1.0, -1e-20, 2.0], [1.0, -0.0, 2.0]])

    def check(name, found):
        assert np.isnan(found[0]).all()
        assert np.isfinite(found[1]).all()

    each(of_all(through, UNSIGNED)(x), check)


@pytest.mark.parametrize("name", CODECS)
def test_rounding_by_chance_has_no_bias(name):
    """The mean of 4,000 roundings is within five standard errors of the entry."""
    x = np.float32(np.concatenate([np.ones(1), np.geomspace(2e-2, 0.9, 31)])[None] * 1e-9)
    x = x if CODECS[name].unsigned else x * np.float32([1, -1] * 16)[None]

    @jax.jit
    @jax.vmap
    def rounded(seed):
        return decode(encode(x, name, bits=random_bits(x.shape, seed)))

    found = np.asarray(rounded(jnp.arange(4000)), np.float64)
    error = np.abs(found.mean(0) - np.asarray(x)) / 1e-9
    assert (error <= 5 * found.std(0) / 1e-9 / np.sqrt(4000) + 1e-6).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"])
def test_a_float_rounds_to_one_of_its_neighbours_without_bias(dtype):
    info = jnp.finfo(dtype)
    low, high = float(info.smallest_normal) * 1.01, float(info.max) * 0.9
    values = np.geomspace(low, min(high, 1e30), 40).astype(np.float32)
    values = np.concatenate([values, -values])
    x = jnp.broadcast_to(values, (5000, 80))
    found = round_stochastically(x, dtype, random_bits(x.shape, 3)).astype(jnp.float32)
    found = np.asarray(found, np.float64) / np.abs(values)
    step = float(info.eps)
    assert (np.abs(found - np.sign(values)) <= step).all()
    spread = found.std(0) / np.sqrt(5000)
    assert (np.abs(found.mean(0) - np.sign(values)) <= 5 * spread + 1e-6).all()
    assert (spread > 0).mean() > 0.9


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_float_at_the_ends(dtype):
    x = np.float32([np.inf, -np.inf, np.nan, 3.4e38, -3.4e38, 0.0, 1e-12])

    @jax.jit
    @jax.vmap
    def rounded(seed):
        return round_stochastically(x, dtype, random_bits(x.shape, seed)).astype(jnp.float32)

    for found in np.asarray(rounded(np.arange(3, dtype=np.int32))):
        assert found[0] == np.inf
        assert found[1] == -np.inf
        assert np.isnan(found[2])
        assert np.isfinite(found[3:]).all()
        assert found[5] == 0
        assert found[6] > 0


def test_a_wide_dtype_is_a_cast():
    x = jnp.asarray([1.1])
    assert round_stochastically(x, jnp.float32, random_bits((1,), 0)) == x


def test_bits_repeat_and_differ_by_place_seed_and_salt():
    one = np.asarray(random_bits((64, 64), 5))
    np.testing.assert_array_equal(one, jax.jit(lambda s: random_bits((64, 64), s))(5))
    assert len(np.unique(one)) > 4090
    for other in (random_bits((64, 64), 6), random_bits((64, 64), 5, salt=1)):
        assert (np.asarray(other) == one).mean() < 0.01
        bits = np.unpackbits((np.asarray(other) ^ one).view(np.uint8))
        assert abs(bits.mean() - 0.5) < 0.01


def test_dithers_of_a_few_steps_are_spread_evenly():
    """Of any eight steps in a row, two to four of an entry's numbers are in its lower third."""
    steps = np.arange(100, 108, dtype=np.int32)
    dithers = jax.vmap(lambda t: codecs.uniform(codecs.dither_bits((40, 50), t)))
    found = np.asarray(jax.jit(dithers)(steps))
    low = np.asarray(found < 1 / 3).sum(0)
    assert (low.min(), low.max()) == (2, 4) or (low.min(), low.max()) == (2, 3)
    assert abs(float(found.mean()) - 0.5) < 0.01
    hits = np.asarray(found[0] < 0.5)
    assert abs(hits.mean() - 0.5) < 0.03
    other = jax.jit(lambda: codecs.uniform(codecs.dither_bits((40, 50), 100, salt=1)))()
    assert np.mean(hits == np.asarray(other < 0.5)) < 0.55


def test_an_encoded_array_is_a_tree_with_names():
    encoded = jax.jit(lambda x: encode(x, "int8", block=64))(np.ones((2, 300), np.float32))
    pairs = jax.tree_util.tree_flatten_with_path(encoded)[0]
    assert [path[0].name for path, _ in pairs] == ["int8_64", "scales"]
    assert encoded.codes.shape == (2, 300)
    assert encoded.scales.shape == (2, 5)
    assert isinstance(jax.tree.map(lambda x: x, encoded), Encoded)
    assert repr(encoded) == "Encoded(int8, block=64, shape=(2, 300))"
    decoded = jax.jit(codecs.decoded)({"a": encoded})
    np.testing.assert_array_equal(decoded["a"], np.ones((2, 300)))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1,), (2, 1), (5, 127), (3, 129)])
def test_any_shape(shape):
    x = np.ones(shape, np.float32)
    same = lambda name, found: np.testing.assert_allclose(found, x, rtol=1e-6)
    if shape == (1,):  # op by op: compiled, int8's code of one entry alone is read as 0.999985
        each({name: through(jnp.asarray(x), name) for name in CODECS}, same)
    else:
        each(of_all(through)(x), same)


@pytest.mark.parametrize(
    ("x", "name", "block", "error", "words"),
    [
        (jnp.ones(3), "int7", 4, ValueError, "unknown codec 'int7'; there are bfloat16, float16"),
        (jnp.ones(3, jnp.bfloat16), "int8", 4, TypeError, "expected float32, got bfloat16"),
        (jnp.ones(()), "int8", 4, ValueError, "expected an axis and a block above 0"),
        (jnp.ones(3), "int8", 0, ValueError, "expected an axis and a block above 0"),
    ],
)
def test_mistakes(x, name, block, error, words):
    with pytest.raises(error, match=words):
        encode(x, name, block=block)


def test_on_an_explicit_mesh_codes_are_where_the_array_is():
    kinds = (jax.sharding.AxisType.Explicit,) * 2
    mesh = jax.make_mesh((2, 4), ("a", "b"), axis_types=kinds)
    spec = jax.sharding.PartitionSpec("a", "b")
    plain = np.random.default_rng(0).normal(size=(4, 256)).astype(np.float32)
    x = jax.device_put(plain, jax.sharding.NamedSharding(mesh, spec))

    @jax.jit
    def there_and_back(x):
        bits = random_bits(x.shape, 1)
        codes = [encode(x, "int8", block=block, bits=bits) for block in (64, 128, 100)]
        return codes, [decode(encoded) for encoded in codes]

    alone = there_and_back(plain)
    for encoded, decoded, codes, values in zip(*there_and_back(x), *alone):
        assert encoded.codes.sharding.spec == spec
        np.testing.assert_array_equal(encoded.codes, codes.codes)
        np.testing.assert_allclose(decoded, values)


def test_a_zero_in_a_block_stays_zero():
    x = np.float32([[1.0, 0.0, 0.5]])

    def check(name, found):
        assert found[0, 1] == 0

    without = ("uint4", "uint8")  # whose codes stand for positive numbers alone
    each(of_all(through, [name for name in CODECS if name not in without])(x), check)
