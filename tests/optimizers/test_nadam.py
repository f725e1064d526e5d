import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnopt
from fnopt.optimizers.nadam import nadam, nadamw
from fnopt.testing.oracles import largest_error, leafwise


def oracle(rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, momentum_decay=None, weight_decay=0.0):
    psi = momentum_decay

    def momentum(t):
        return b1 if psi is None else b1 * (1 - 0.5 * 0.96 ** (t * psi))

    @leafwise
    def run(theta, gradients):
        m, v, product = np.zeros_like(theta), np.zeros_like(theta), 1.0
        for t, g in enumerate(gradients, 1):
            now, later = momentum(t), momentum(t + 1)
            product *= now
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * g**2
            m_hat = later * m / (1 - product * later) + (1 - now) * g / (1 - product)
            step = m_hat / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)
            theta = theta - rate * (step + weight_decay * theta)
            yield theta

    return run


WARM = dict(b1=0.8, b2=0.95, eps=1e-3, eps_root=1e-4, momentum_decay=0.5)
CASES = [
    (nadam(0.02), oracle(0.02)),
    (nadam(0.02, momentum_decay=4e-3), oracle(0.02, momentum_decay=4e-3)),
    (nadamw(0.02, weight_decay=0.1, **WARM), oracle(0.02, weight_decay=0.1, **WARM)),
    (nadam(0.02, b1=0.0, momentum_decay=4e-3), oracle(0.02, b1=0.0, momentum_decay=4e-3)),
]


@pytest.mark.parametrize(("optimizer", "wanted"), CASES)
def test_oracle_in_float32(optimizer, wanted):
    assert largest_error(optimizer, wanted) < 1e-6


@pytest.mark.parametrize(("optimizer", "wanted"), CASES)
def test_oracle_in_float64(optimizer, wanted, x64):
    assert largest_error(optimizer, wanted, jnp.float64) < 1e-12


def test_agrees_with_optax(standard_numerics):
    assert largest_error(optax.nadam(0.02), oracle(0.02)) < 1e-5
    peer = optax.nadamw(0.02, b1=0.8, weight_decay=0.1)
    assert largest_error(peer, oracle(0.02, b1=0.8, weight_decay=0.1)) < 1e-5


def test_without_the_look_ahead_it_is_adam():
    plain = [nadam(0.1, nesterov=False), fnopt.adam(0.1)]
    gradient = jnp.array([1.0, -2.0])
    one, two = (o.update(gradient, o.init(gradient))[0] for o in plain)
    np.testing.assert_array_equal(one, two)
    with pytest.raises(ValueError, match="momentum_decay"):
        nadam(0.1, nesterov=False, momentum_decay=4e-3)
