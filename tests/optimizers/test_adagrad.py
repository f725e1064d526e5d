import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnopt
from fnopt.testing.oracles import largest_error, leafwise


def oracle(rate, initial_accumulator_value=0.1, eps=1e-7):
    @leafwise
    def run(theta, gradients):
        s = np.full_like(theta, initial_accumulator_value)
        for g in gradients:
            s = s + g**2
            theta = theta - rate * g / (np.sqrt(s) + eps)
            yield theta

    return run


SETTINGS = [dict(), dict(initial_accumulator_value=0.0, eps=1e-3)]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    assert largest_error(fnopt.adagrad(0.1, **setting), oracle(0.1, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    assert largest_error(fnopt.adagrad(0.1, **setting), oracle(0.1, **setting), jnp.float64) < 1e-12


def test_optax_has_epsilon_inside_the_root(standard_numerics):
    gradient = jnp.full(1, 1e-4)
    for factory, wanted in ((fnopt.adagrad, 1 / (1 + 1e-3)), (optax.adagrad, 1 / 11**0.5)):
        optimizer = factory(1.0, initial_accumulator_value=0.0)
        updates, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
        np.testing.assert_allclose(updates, -wanted, rtol=1e-4)
