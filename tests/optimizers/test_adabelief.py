import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fnopt.optimizers.adabelief import adabelief
from fnopt.testing.oracles import largest_error, leafwise


def oracle(rate, b1=0.9, b2=0.999, eps=1e-16, eps_root=1e-16, nesterov=False):
    @leafwise
    def run(theta, gradients):
        m, s = np.zeros_like(theta), np.zeros_like(theta)
        for t, g in enumerate(gradients, 1):
            m = b1 * m + (1 - b1) * g
            s = b2 * s + (1 - b2) * (g - m) ** 2 + eps_root
            m_hat = m / (1 - b1**t)
            if nesterov:
                m_hat = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
            theta = theta - rate * m_hat / (np.sqrt(s / (1 - b2**t)) + eps)
            yield theta

    return run


SETTINGS = [dict(), dict(b1=0.8, b2=0.95, eps=1e-3, eps_root=1e-4, nesterov=True)]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    assert largest_error(adabelief(0.02, **setting), oracle(0.02, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    error = largest_error(adabelief(0.02, **setting), oracle(0.02, **setting), jnp.float64)
    assert error < 1e-12


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_agrees_with_optax(setting, standard_numerics):
    assert largest_error(optax.adabelief(0.02, **setting), oracle(0.02, **setting)) < 1e-5


def test_steady_gradients_take_longer_steps_than_noisy_ones():
    optimizer = adabelief(0.1, b2=0.9)
    params = jnp.zeros(2)
    state = optimizer.init(params)
    for t in range(40):
        gradient = jnp.array([1.0, 1.0 + (-1.0) ** t])
        updates, state = optimizer.update(gradient, state, params)
    assert abs(updates[0]) > 5 * abs(updates[1])


def test_without_a_mean_nothing_surprises():
    assert adabelief(0.1, b1=0.0).init(jnp.zeros(2))["scale_by_belief"].mu is None
    error = largest_error(adabelief(1e-6, b1=0.0, eps=1e-4), oracle(1e-6, b1=0.0, eps=1e-4))
    assert error < 1e-6
