import jax.numpy as jnp
import numpy as np
import pytest
from optax import contrib

import fnopt
from fnopt.optimizers.madgrad import madgrad
from fnopt.testing.oracles import largest_error, leafwise


def oracle(rate, momentum=0.9, weight_decay=0.0, eps=1e-6):
    @leafwise
    def run(theta, gradients):
        start, s, v = theta, np.zeros_like(theta), np.zeros_like(theta)
        for t, g in enumerate(gradients, 1):
            weight = (rate + eps) * np.sqrt(t)
            if momentum == 0:
                start = theta + s / (np.cbrt(v) + eps)
            s = s + weight * g
            v = v + weight * g**2
            z = start - s / (np.cbrt(v) + eps)
            theta = momentum * theta + (1 - momentum) * z - rate * weight_decay * theta
            yield theta

    return run


SETTINGS = [dict(), dict(momentum=0.5, weight_decay=0.1, eps=1e-3), dict(momentum=0.0)]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    assert largest_error(madgrad(0.02, **setting), oracle(0.02, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    assert largest_error(madgrad(0.02, **setting), oracle(0.02, **setting), jnp.float64) < 1e-12


def test_agrees_with_optax(standard_numerics):
    params, rng = jnp.ones((4, 3)), np.random.default_rng(0)
    pair = [madgrad(0.1, 0.8), contrib.madgrad(0.1, 0.8)]
    states = [o.init(params) for o in pair]
    for _ in range(4):
        g = jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)
        (got, a), (wanted, b) = [o.update(g, s, params) for o, s in zip(pair, states)]
        states = [a, b]
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6)


def test_rounding_of_bfloat16_params_does_not_add_up_without_momentum():
    optimizer = madgrad(1e-3, momentum=0.0)
    params = jnp.ones(3, jnp.bfloat16)
    state = optimizer.init(params)
    for _ in range(200):
        updates, state = optimizer.update(jnp.full(3, 0.01, jnp.bfloat16), state, params)
        params = fnopt.apply_updates(params, updates)
    exact = optimizer.init(jnp.ones(3))
    wanted = jnp.ones(3)
    for _ in range(200):
        updates, exact = optimizer.update(
            jnp.full(3, jnp.bfloat16(0.01), jnp.float32), exact, wanted
        )
        wanted = fnopt.apply_updates(wanted, updates)
    assert float(wanted[0]) < 0.99
    np.testing.assert_allclose(params.astype(jnp.float32), wanted, rtol=2**-8)


def test_the_decay_is_outside_of_the_sums():
    params = {"w": jnp.ones(2), "b": jnp.ones(2)}
    optimizer = madgrad(0.1, weight_decay=0.5, mask={"w": True, "b": False})
    zeros = {"w": jnp.zeros(2), "b": jnp.zeros(2)}
    updates, state = optimizer.update(zeros, optimizer.init(params), params)
    np.testing.assert_allclose(updates["w"], -0.05, rtol=1e-6)
    np.testing.assert_array_equal(updates["b"], 0.0)
    np.testing.assert_array_equal(fnopt.tree_get(state, "gradient_sum")["w"], 0.0)


def test_optax_gathers_the_decay_in_the_sums(standard_numerics):
    params, zeros = jnp.ones(2), jnp.zeros(2)
    for factory, gathered in ((madgrad, False), (contrib.madgrad, True)):
        optimizer = factory(0.1, weight_decay=0.5)
        updates, state = optimizer.update(zeros, optimizer.init(params), params)
        assert (
            np.any(state[-1].s if gathered else fnopt.tree_get(state, "gradient_sum")) == gathered
        )
        assert np.allclose(updates, -0.1 * 0.5) != gathered
