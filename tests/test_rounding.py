import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnopt.rounding import joined, landing, nearest, split

DTYPES = [
    "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz",
    "float8_e4m3b11fnuz", "float8_e3m4",
]  # fmt: skip


def numbers(n=20_000):
    """Normal numbers of all sizes, halves between bfloat16s, and the corners."""
    rng = np.random.default_rng(0)
    spread = rng.normal(size=n) * 10.0 ** rng.uniform(-30, 30, n)
    usual = rng.normal(size=n) * 10.0 ** rng.uniform(-6, 5, n)
    words = rng.integers(0x0100, 0x7F00, n).astype(np.uint32) << 16
    ties = (words | np.uint32(0x8000)).view(np.float32)
    corners = [0.0, -0.0, 3.4e38, -3.4e38, 65520.0, 448.5, 464.0, np.inf, -np.inf, np.nan]
    return np.concatenate([spread, usual, ties, -ties, corners]).astype(np.float32)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nearest_is_the_cast(dtype, compiled):
    x, most = numbers(), float(jnp.finfo(dtype).max)
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = np.clip(x, -most, most).astype(jnp.dtype(dtype)).astype(np.float32)
    wanted = np.where(np.isfinite(x), wanted, x)
    f = jax.jit(nearest, static_argnums=1) if compiled else nearest
    np.testing.assert_array_equal(f(jnp.asarray(x), dtype), wanted)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_the_halves_make_the_whole(compiled):
    """From near by and from zero."""
    x = numbers()
    apart = np.random.default_rng(1).uniform(0.6, 1.8, x.size).astype(np.float32)
    near = np.where(np.isfinite(x), np.clip(x, -1e38, 1e38), 1) * apart
    for start in (near, np.zeros_like(x)):
        p = jnp.asarray(start, jnp.bfloat16).astype(jnp.float32)
        f = jax.jit(split) if compiled else split
        update, rest = f(jnp.asarray(x), p)
        assert rest.dtype == jnp.int16
        there = (p + update).astype(jnp.bfloat16).astype(jnp.float32)
        np.testing.assert_array_equal(there, landing(p, update, jnp.bfloat16))
        whole = np.asarray(joined(there, rest))
        exact = (np.abs(x) < 3.38e38) & ((np.abs(x) > 1e-35) | (x == 0))
        np.testing.assert_array_equal(whole[exact], x[exact])
        tiny, huge = np.abs(x) <= 1e-35, (np.abs(x) >= 3.38e38) & np.isfinite(x)
        np.testing.assert_allclose(whole[tiny], x[tiny], atol=2.0**-125)
        np.testing.assert_allclose(whole[huge], x[huge], rtol=2.0**-8)
        np.testing.assert_array_equal(whole[~np.isfinite(x)], x[~np.isfinite(x)])
        np.testing.assert_allclose(there[exact], x[exact], rtol=2.0**-8)


def test_halves_that_do_not_belong_together_stay_finite():
    rest = jnp.array([-5, 5, -0x8000, 0x7FFF], jnp.int16)
    for p in (0.0, -0.0, 1.0, float(jnp.finfo(jnp.bfloat16).max)):
        assert np.isfinite(np.asarray(joined(jnp.full(4, p), rest))).all()
    np.testing.assert_array_equal(joined(jnp.full(4, jnp.inf), rest), jnp.inf)
