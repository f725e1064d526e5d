import jax.numpy as jnp
import numpy as np
import pytest

import fnopt
from fnopt.optimizers.adam_atan2 import adam_atan2
from fnopt.testing.oracles import largest_error, leafwise


def oracle(rate, b1=0.9, b2=0.999, a=4 / np.pi, b=1.0, weight_decay=0.0):
    @leafwise
    def run(theta, gradients):
        m, v = np.zeros_like(theta), np.zeros_like(theta)
        for t, g in enumerate(gradients, 1):
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * g**2
            step = a * np.arctan2(m / (1 - b1**t), b * np.sqrt(v / (1 - b2**t)))
            theta = theta - rate * (step + weight_decay * theta)
            yield theta

    return run


SETTINGS = [dict(), dict(b1=0.8, b2=0.95, a=1.27, b=2.0, weight_decay=0.1), dict(b1=0.0)]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    assert largest_error(adam_atan2(0.02, **setting), oracle(0.02, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    error = largest_error(adam_atan2(0.02, **setting), oracle(0.02, **setting), jnp.float64)
    assert error < 1e-12


def test_the_scale_of_the_gradient_does_not_matter():
    optimizer = adam_atan2(0.1)
    gradient = jnp.array([1e-15, 1.0, -1e15, 0.0])
    updates, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
    np.testing.assert_allclose(updates, [-0.1, -0.1, 0.1, 0.0], rtol=1e-5)
    assert fnopt.tree_get(adam_atan2(0.1, b1=0.0).init(gradient), "mu") is None


def test_a_complex_gradient_keeps_its_direction():
    optimizer = adam_atan2(0.1)
    gradient = jnp.array([3 + 4j, -2j, 0j])
    updates, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
    np.testing.assert_allclose(updates, [-0.06 - 0.08j, 0.1j, 0], rtol=1e-5, atol=1e-9)
