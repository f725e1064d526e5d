import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import fnopt

NARROW = [jnp.bfloat16, jnp.float16, jnp.float8_e4m3fn, jnp.float8_e5m2]


def stochastic(params, updates, key=None):
    key = jax.random.key(0) if key is None else key
    return fnopt.apply_updates(params, updates, rounding="stochastic", key=key)


compiled = jax.jit(stochastic)


def neighbours(x, dtype):
    """The two numbers of a narrow dtype around a float."""
    every = np.arange(2 ** (8 * jnp.dtype(dtype).itemsize)).astype(f"u{jnp.dtype(dtype).itemsize}")
    with np.errstate(invalid="ignore"):
        numbers = every.view(jnp.dtype(dtype)).astype(np.float64)
    numbers = np.unique(numbers[np.isfinite(numbers)])
    place = np.searchsorted(numbers, x, "right")
    return numbers[place - 1], numbers[place]


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize(("start", "update"), [(1.0, 1e-3), (-0.7, 0.013), (0.0, 0.3)])
def test_it_rounds_to_a_neighbour_and_on_average_to_the_sum(dtype, start, update):
    n = 40_000
    params = np.full(n, start, dtype)
    update = np.float32(update)
    wanted = float(params[0]) + float(update)
    updates = np.full(n, update)
    below, above = neighbours(wanted, dtype)
    got = np.asarray(compiled(params, updates), np.float64)
    assert set(got) == {below, above}
    spread = np.sqrt((wanted - below) * (above - wanted) / n)
    assert abs(got.mean() - wanted) < 5 * spread
    nearest = np.asarray(jax.jit(fnopt.apply_updates)(params, updates), np.float64)
    assert len(set(nearest)) == 1


def test_a_thousand_small_updates_add_up_on_average():
    """One parameter ends within a few steps of its dtype, 1e-1; the mean of many at 0."""
    optimizer = fnopt.sgd(1e-3)

    def step(carry, key):
        params, state = carry
        updates, state = optimizer.update(jnp.ones(4096), state, params)
        return (stochastic(params, updates, key), state), None

    params = jnp.ones(4096, jnp.bfloat16)
    keys = jax.random.split(jax.random.key(0), 1000)
    moved, _ = jax.jit(lambda c: jax.lax.scan(step, c, keys)[0])((params, optimizer.init(params)))
    assert moved.dtype == jnp.bfloat16
    ends = np.asarray(moved, np.float64)
    assert abs(ends.mean()) < 1e-2
    assert 0.01 < ends.std() < 0.1


def test_numbers_that_need_no_rounding_are_exact():
    params = jnp.array([1.0, -2.0, 0.0, jnp.inf, jnp.nan], jnp.bfloat16)
    moved = stochastic(params, jnp.array([0.5, 1.0, 0.0, 1.0, 1.0]))
    np.testing.assert_array_equal(moved.astype(jnp.float32), [1.5, -1.0, 0.0, np.inf, np.nan])


def test_other_leaves_are_as_ever(x64):
    params = {
        "f32": jnp.ones(3, jnp.float32),
        "f64": jnp.ones(3, jnp.float64),
        "c64": jnp.ones(3, jnp.complex64),
        "int": jnp.arange(3),
        "fixed": jnp.ones(3, jnp.bfloat16),
        "none": None,
        "name": "relu",
    }
    updates = {
        k: None if k in ("fixed", "none", "name") else p if k == "int" else 1e-3 * jnp.ones(3)
        for k, p in params.items()
    }
    got, wanted = stochastic(params, updates), fnopt.apply_updates(params, updates)
    assert all(got[k] is params[k] for k in ("int", "fixed", "none", "name"))
    for k in ("f32", "f64", "c64"):
        assert got[k].dtype == params[k].dtype
        np.testing.assert_array_equal(got[k], wanted[k])


def test_each_leaf_and_each_key_draws_its_own_bits():
    params = {k: np.ones(400, jnp.bfloat16) for k in "abcd"}
    updates = {k: np.full(400, 2.0**-8, np.float32) for k in "abcd"}  # half of them go up
    first, again = stochastic(params, updates), compiled(params, updates)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    other = compiled(params, updates, jax.random.key(1))
    raw = compiled(params, updates, jax.random.PRNGKey(0))
    jax.tree.map(np.testing.assert_array_equal, first, raw)
    ups = [np.asarray(x) > 1 for t in (first, other) for x in t.values()]
    for i, one in enumerate(ups):
        assert 130 < one.sum() < 270
        for two in ups[:i]:
            assert 130 < (one == two).sum() < 270


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_on_a_mesh(kind):
    mesh = jax.make_mesh((2, 4), ("x", "y"), axis_types=(kind, kind))
    place = NamedSharding(mesh, PartitionSpec("x", "y"))
    params, updates = jnp.ones((4, 8), jnp.bfloat16), jnp.full((4, 8), 2.0**-8)
    wanted = stochastic(params, updates)
    with jax.set_mesh(mesh):
        there = [jax.device_put(x, place) for x in (params, updates)]
        for f in (stochastic, jax.jit(stochastic)):
            got = f(*there)
            assert got.sharding.is_equivalent_to(place, 2)
            np.testing.assert_array_equal(np.asarray(got), np.asarray(wanted))


def test_nearest_is_the_default_and_needs_no_key():
    params, updates = {"w": jnp.ones(3, jnp.bfloat16)}, {"w": jnp.full(3, 0.3)}
    programs = [
        jax.jit(lambda p, u, f=f: f(p, u)).lower(params, updates).as_text()
        for f in (
            fnopt.apply_updates,
            lambda p, u: fnopt.apply_updates(p, u, rounding="nearest", key=jax.random.key(0)),
        )
    ]
    assert programs[0] == programs[1]
    assert "xor" not in programs[0]


def test_mistakes_are_named():
    params = jnp.ones(3, jnp.bfloat16)
    with pytest.raises(ValueError, match=r"rounding='stochastic' needs key=\.\.\., another at"):
        fnopt.apply_updates(params, params, rounding="stochastic")
    with pytest.raises(ValueError, match=r"must be 'nearest' or 'stochastic', got 'up'"):
        fnopt.apply_updates(params, params, rounding="up")
    with pytest.raises(ValueError, match=r"updates has shape \(2,\), but params has shape \(3,\)"):
        stochastic(params, jnp.ones(2))
