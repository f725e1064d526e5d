import jax.numpy as jnp
import numpy as np
import pytest
from optax import contrib

from fnopt.optimizers.acprop import acprop
from fnopt.testing.oracles import largest_error, leafwise


def oracle(rate, b1=0.9, b2=0.999, eps=1e-16, eps_root=1e-16, weight_decay=0.0, of_old=False):
    @leafwise
    def run(theta, gradients):
        m, s = np.zeros_like(theta), np.zeros_like(theta)
        for t, g in enumerate(gradients, 1):
            u = g if t == 1 else g / (np.sqrt(s / (1 - b2 ** (t - 1))) + eps)
            theta = theta - rate * (u + weight_decay * theta)
            old, m = m, b1 * m + (1 - b1) * g
            s = b2 * s + (1 - b2) * (g - (old if of_old else m)) ** 2 + eps_root
            yield theta

    return run


SETTINGS = [
    dict(b2=0.9),
    dict(b1=0.8, b2=0.95, eps=1e-2, eps_root=1e-4, weight_decay=0.1),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    assert largest_error(acprop(0.002, **setting), oracle(0.002, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    assert largest_error(acprop(0.002, **setting), oracle(0.002, **setting), jnp.float64) < 1e-12


def test_optax_measures_from_the_mean_before(standard_numerics):
    setting = dict(b1=0.5, b2=0.9, eps=1e-4)
    peer = contrib.acprop(0.002, **setting)
    assert largest_error(peer, oracle(0.002, **setting, of_old=True)) < 1e-5
    assert largest_error(peer, oracle(0.002, **setting)) > 1e-3


def test_the_first_step_is_gradient_descent():
    optimizer = acprop(0.1)
    gradient = jnp.array([3.0, -0.5, 0.0])
    updates, state = optimizer.update(gradient, optimizer.init(gradient), gradient)
    np.testing.assert_allclose(updates, -0.1 * gradient, rtol=1e-6)
    updates, _ = optimizer.update(jnp.ones(3), state, gradient)
    np.testing.assert_allclose(updates[:2], [-0.1 / 2.7, -0.1 / 0.45], rtol=1e-5)


def test_without_a_mean_there_is_no_surprise():
    assert acprop(0.1, b1=0.0).init(jnp.zeros(2))["scale_by_acprop"].mu is None
