import jax.numpy as jnp
import numpy as np
import pytest

from fnopt.optimizers.ftrl import ftrl
from fnopt.testing.oracles import largest_error, leafwise


def oracle(rate, beta=1.0, l1=0.0, l2=0.0):
    """The paper's algorithm with its own z, started at the given parameters."""

    @leafwise
    def run(theta, gradients):
        n = np.zeros_like(theta)
        z = -theta * (beta / rate + l2) - l1 * np.sign(theta)
        for g in gradients:
            sigma = (np.sqrt(n + g**2) - np.sqrt(n)) / rate
            z = z + g - sigma * theta
            n = n + g**2
            inside = np.abs(z) <= l1
            solution = -(z - np.sign(z) * l1) / ((beta + np.sqrt(n)) / rate + l2)
            theta = np.where(inside, 0.0, solution)
            yield theta

    return run


SETTINGS = [dict(), dict(beta=0.5, l1=0.3, l2=0.2)]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    assert largest_error(ftrl(0.1, **setting), oracle(0.1, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    assert largest_error(ftrl(0.1, **setting), oracle(0.1, **setting), jnp.float64) < 1e-12


def test_from_zero_the_first_step_is_the_papers():
    params, g = jnp.zeros(3), jnp.array([2.0, -0.5, 0.0])
    optimizer = ftrl(0.1, l1=1.0)
    updates, _ = optimizer.update(g, optimizer.init(params), params)
    np.testing.assert_allclose(updates, [-0.1 * 1.0 / 3.0, 0.0, 0.0], rtol=1e-6)


def test_zero_gradients_and_a_zero_rate_keep_the_params():
    params = jnp.array([3.0, -1.0, 0.0])
    for rate, g in ((0.1, jnp.zeros(3)), (0.0, jnp.ones(3))):
        optimizer = ftrl(rate, l1=0.1, l2=0.1)
        updates, _ = optimizer.update(g, optimizer.init(params), params)
        np.testing.assert_allclose(updates, 0.0, atol=1e-6)
