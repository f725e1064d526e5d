import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnopt
from fnopt.optimizers.sign_sgd import sign_sgd, signum
from fnopt.testing.oracles import largest_error, leafwise


def oracle(rate, beta=0.9):
    @leafwise
    def run(theta, gradients):
        m = np.zeros_like(theta)
        for g in gradients:
            m = beta * m + (1 - beta) * g
            theta = theta - rate * np.sign(m)
            yield theta

    return run


SETTINGS = [dict(), dict(beta=0.5), dict(beta=0.0)]


def test_sign_sgd_in_float32():
    for rate in (0.02, 0.1):
        assert largest_error(sign_sgd(rate), oracle(rate, beta=0.0)) < 1e-6


def test_sign_sgd_in_float64(x64):
    for rate in (0.02, 0.1):
        assert largest_error(sign_sgd(rate), oracle(rate, beta=0.0), jnp.float64) < 1e-12


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    assert largest_error(signum(0.02, **setting), oracle(0.02, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    assert largest_error(signum(0.02, **setting), oracle(0.02, **setting), jnp.float64) < 1e-12


def test_agrees_with_optax(standard_numerics):
    params = jnp.ones((4, 3))
    rng = np.random.default_rng(0)
    for ours, theirs in [
        (sign_sgd(0.1), optax.sign_sgd(0.1)),
        (signum(0.1, 0.7), optax.signum(0.1, 0.7)),
    ]:
        a, b = ours.init(params), theirs.init(params)
        for _ in range(5):
            g = jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)
            got, a = ours.update(g, a, params)
            wanted, b = theirs.update(g, b, params)
            np.testing.assert_allclose(got, wanted, rtol=1e-4)


def test_a_static_zero_drops_its_buffer():
    assert fnopt.tree_get(signum(1e-3, 0.0).init(jnp.ones(3)), "mu") is None


def test_zero_stays():
    updates, _ = sign_sgd(1.0).update(g := jnp.array([0.0, 1e-37]), sign_sgd(1.0).init(g))
    np.testing.assert_array_equal(updates, [0.0, -1.0])
    assert fnopt.step_count(sign_sgd(1.0).init(g)) == 0
