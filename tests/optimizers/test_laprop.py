import jax.numpy as jnp
import numpy as np
import pytest

import fnopt
from fnopt.optimizers.laprop import laprop
from fnopt.testing.oracles import largest_error, leafwise


def oracle(rate, b1=0.9, b2=0.999, eps=1e-15, weight_decay=0.0):
    @leafwise
    def run(theta, gradients):
        m, v = np.zeros_like(theta), np.zeros_like(theta)
        for t, g in enumerate(gradients, 1):
            v = b2 * v + (1 - b2) * g**2
            m = b1 * m + (1 - b1) * g / (np.sqrt(v / (1 - b2**t)) + eps)
            theta = theta - rate * (m / (1 - b1**t) + weight_decay * theta)
            yield theta

    return run


SETTINGS = [dict(), dict(b1=0.8, b2=0.5, eps=1e-3, weight_decay=0.1), dict(b1=0.0)]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    assert largest_error(laprop(0.02, **setting), oracle(0.02, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    assert largest_error(laprop(0.02, **setting), oracle(0.02, **setting), jnp.float64) < 1e-12


def test_without_a_memory_of_squares_it_is_the_momentum_of_signs():
    optimizer = laprop(1.0, b1=0.5, b2=0.0)
    params = jnp.zeros(3)
    state = optimizer.init(params)
    for g in ([1e-9, 2.0, 3.0], [1e-9, -2.0, 0.0]):
        updates, state = optimizer.update(jnp.array(g), state, params)
    np.testing.assert_allclose(updates, [-1.0, 1 / 3, -1 / 3], rtol=1e-5)


def test_a_static_zero_drops_its_buffer():
    assert fnopt.tree_get(laprop(1e-3, b1=0.0).init(jnp.ones(3)), "mu") is None
