import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fnopt.optimizers.adadelta import adadelta
from fnopt.testing.oracles import largest_error, leafwise


def oracle(rate=1.0, rho=0.9, eps=1e-6, weight_decay=0.0):
    @leafwise
    def run(theta, gradients):
        s, d = np.zeros_like(theta), np.zeros_like(theta)
        for g in gradients:
            s = rho * s + (1 - rho) * g**2
            delta = np.sqrt(d + eps) / np.sqrt(s + eps) * g
            d = rho * d + (1 - rho) * delta**2
            theta = theta - rate * (delta + weight_decay * theta)
            yield theta

    return run


SETTINGS = [dict(), dict(rho=0.5, eps=1e-3, weight_decay=0.1)]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    assert largest_error(adadelta(0.5, **setting), oracle(0.5, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    assert largest_error(adadelta(0.5, **setting), oracle(0.5, **setting), jnp.float64) < 1e-12


def updates_of(optimizer, size=1.0, steps=3):
    params, rng = jnp.ones((4, 3)), np.random.default_rng(0)
    state = optimizer.init(params)
    for _ in range(steps):
        g = jnp.asarray(size * rng.normal(size=(4, 3)), jnp.float32)
        updates, state = optimizer.update(g, state, params)
    return updates


def test_agrees_with_optax(standard_numerics):
    got, wanted = updates_of(adadelta(0.5, 0.8)), updates_of(optax.adadelta(0.5, 0.8))
    np.testing.assert_allclose(got, wanted, rtol=1e-4)


def test_the_decay_stays_out_of_the_means_where_optaxs_does_not(standard_numerics):
    params = jnp.ones(2)
    for factory, wanted in ((adadelta, -0.1), (optax.adadelta, -3e-3)):
        optimizer = factory(1.0, weight_decay=0.1)
        updates, _ = optimizer.update(jnp.zeros(2), optimizer.init(params), params)
        np.testing.assert_allclose(updates, wanted, rtol=0.1)


def test_the_steps_do_not_depend_on_the_unit_of_the_gradient():
    np.testing.assert_allclose(updates_of(adadelta(), 1e3), updates_of(adadelta(), 1e6), rtol=1e-4)


def test_the_default_rate_descends_where_optaxs_ascends(standard_numerics):
    one = jnp.ones(1)
    for factory, sign in ((adadelta, -1.0), (optax.adadelta, 1.0)):
        updates, _ = factory().update(one, factory().init(one), one)
        assert np.sign(updates) == sign
