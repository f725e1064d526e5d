import jax.numpy as jnp
import numpy as np
import pytest
from optax import contrib

from fnopt.optimizers.simplified_ademamix import simplified_ademamix
from fnopt.testing.oracles import largest_error, leafwise


def oracle(rate, b1=0.99, b2=0.95, alpha=0.0, eps=1e-8, eps_root=0.0, weight_decay=0.0):
    @leafwise
    def run(theta, gradients):
        m, v = np.zeros_like(theta), np.zeros_like(theta)
        for t, g in enumerate(gradients, 1):
            m = b1 * m + g
            v = b2 * v + (1 - b2) * g**2
            step = (m + alpha * g) / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)
            theta = theta - rate * (step + weight_decay * theta)
            yield theta

    return run


SETTINGS = [
    dict(),
    dict(b1=0.8, b2=0.9, alpha=3.0, eps=1e-3, eps_root=1e-4, weight_decay=0.1),
    dict(b1=0.0, alpha=1.0),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    error = largest_error(simplified_ademamix(0.002, **setting), oracle(0.002, **setting))
    assert error < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    optimizer = simplified_ademamix(0.002, **setting)
    assert largest_error(optimizer, oracle(0.002, **setting), jnp.float64) < 1e-12


@pytest.mark.parametrize("setting", SETTINGS[:2], ids=str)
def test_agrees_with_optax(setting, standard_numerics):
    peer = contrib.simplified_ademamix(0.002, **setting)
    assert largest_error(peer, oracle(0.002, **setting)) < 1e-5


def test_the_sum_grows_to_many_gradients():
    optimizer = simplified_ademamix(1.0, b1=0.9)
    state = optimizer.init(jnp.zeros(1))
    for _ in range(200):
        updates, state = optimizer.update(jnp.ones(1), state, jnp.zeros(1))
    np.testing.assert_allclose(updates, -10.0, rtol=1e-4)
