import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnopt
from fnopt.optimizers.polyak_sgd import polyak_sgd
from fnopt.testing.oracles import trial


def run(optimizer, dtype):
    """Parameters after each step with losses 1.0, 0.9, ... and below zero in the end."""
    start, gradients = trial()
    params = {k: jnp.asarray(x, dtype) for k, x in start.items()}
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, g, value):
        updates, state = optimizer.update(g, state, params, value=value)
        return fnopt.apply_updates(params, updates), state

    for t, g in enumerate(gradients):
        g = {k: jnp.asarray(x, dtype) for k, x in g.items()}
        params, state = step(params, state, g, jnp.asarray(1.0 - 0.05 * t, dtype))
        yield params


def oracle(dtype, max_learning_rate=1.0, scaling=1.0, f_min=0.0, eps=0.0, variant="sps"):
    start, gradients = trial()
    rounded = lambda t: {k: np.asarray(jnp.asarray(x, dtype), np.float64) for k, x in t.items()}
    theta = rounded(start)
    for t, g in enumerate(map(rounded, gradients)):
        gap = float(jnp.asarray(1.0 - 0.05 * t, dtype)) - f_min
        gap = max(gap, 0.0) if variant == "sps+" else gap
        square = sum((x**2).sum() for x in g.values()) + eps
        gamma = min(gap / square, max_learning_rate) if square else 0.0
        theta = {k: x - scaling * gamma * g[k] for k, x in theta.items()}
        yield theta


SETTINGS = [
    dict(),
    dict(max_learning_rate=0.02, scaling=0.5),
    dict(f_min=0.3, eps=2.0, variant="sps+"),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-6), ("float64", 1e-12)])
def test_oracle(setting, dtype, bound):
    with jax.enable_x64(dtype == "float64"):
        for got, wanted in zip(run(polyak_sgd(**setting), dtype), oracle(dtype, **setting)):
            for k in wanted:
                distance = np.linalg.norm(np.asarray(got[k], np.float64) - wanted[k])
                assert distance <= bound * max(np.linalg.norm(wanted[k]), 1.0)


@pytest.mark.parametrize("setting", [dict(), dict(f_min=0.1, eps=0.5, variant="sps+")], ids=str)
def test_agrees_with_optax(setting, standard_numerics):
    params = jnp.arange(4.0)
    g = jnp.array([1.0, -2.0, 0.5, 0.0])
    got, wanted = (
        o.update(g, o.init(params), params, value=jnp.float32(2.0))[0]
        for o in (polyak_sgd(**setting), optax.polyak_sgd(**setting))
    )
    np.testing.assert_allclose(got, wanted, rtol=1e-4)


def test_a_missing_value_is_named():
    params = jnp.ones(2)
    with pytest.raises(TypeError, match="needs value="):
        polyak_sgd().update(params, polyak_sgd().init(params), params)
    with pytest.raises(ValueError, match="variant must be"):
        polyak_sgd(variant="other")


def test_a_huge_gradient_still_gets_its_step():
    params, g = jnp.zeros(2), jnp.array([3e20, 4e20])
    updates, _ = polyak_sgd().update(g, polyak_sgd().init(params), params, value=jnp.float32(1.0))
    np.testing.assert_allclose(updates, [-1.2e-21, -1.6e-21], rtol=1e-5)


def step(optimizer, size, value):
    params, g = jnp.zeros(1), jnp.full(1, size)
    return float(optimizer.update(g, optimizer.init(params), params, value=value)[0][0])


def test_the_scaling_lengthens_the_step_where_optaxs_shortens_it(standard_numerics):
    value, setting = jnp.float32(1.0), dict(max_learning_rate=100.0, scaling=2.0)
    assert step(polyak_sgd(**setting), 0.5, value) == pytest.approx(-4.0)
    assert step(optax.polyak_sgd(**setting), 0.5, value) == pytest.approx(-1.0)


def test_tiny_gradients_still_move_where_optaxs_stand(standard_numerics):
    value = jnp.float32(1e-18)
    assert step(polyak_sgd(), 1e-9, value) == pytest.approx(-1e-9)
    assert step(optax.polyak_sgd(), 1e-9, value) == 0
