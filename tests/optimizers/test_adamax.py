import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fnopt.optimizers.adamax import adamax, adamaxw
from fnopt.testing.oracles import largest_error, leafwise


def oracle(rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0):
    @leafwise
    def run(theta, gradients):
        m, s = np.zeros_like(theta), np.zeros_like(theta)
        for t, g in enumerate(gradients, 1):
            m = b1 * m + (1 - b1) * g
            s = np.maximum(b2 * s, np.abs(g) + eps)
            theta = theta - rate * (m / (1 - b1**t) / s + weight_decay * theta)
            yield theta

    return run


OTHER = dict(b1=0.8, b2=0.7, eps=1e-2)
CASES = [
    (adamax(0.02), oracle(0.02)),
    (adamaxw(0.02, **OTHER, weight_decay=0.1), oracle(0.02, **OTHER, weight_decay=0.1)),
    (adamax(0.02, b1=0.0), oracle(0.02, b1=0.0)),
]


@pytest.mark.parametrize(("optimizer", "wanted"), CASES)
def test_oracle_in_float32(optimizer, wanted):
    assert largest_error(optimizer, wanted) < 1e-6


@pytest.mark.parametrize(("optimizer", "wanted"), CASES)
def test_oracle_in_float64(optimizer, wanted, x64):
    assert largest_error(optimizer, wanted, jnp.float64) < 1e-12


def test_agrees_with_optax(standard_numerics):
    assert largest_error(optax.adamax(0.02, **OTHER), oracle(0.02, **OTHER)) < 1e-5
    wanted = oracle(0.02, **OTHER, weight_decay=0.1)
    assert largest_error(optax.adamaxw(0.02, **OTHER, weight_decay=0.1), wanted) < 1e-5


def test_without_epsilon_a_gradient_of_zero_is_no_step():
    optimizer = adamax(0.1, eps=0.0)
    gradient = jnp.array([0.0, 1e-30, 3.0])
    updates, _ = optimizer.update(gradient, optimizer.init(gradient))
    np.testing.assert_allclose(updates, [0.0, -0.1, -0.1], rtol=1e-5)
