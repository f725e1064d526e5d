import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnopt
from fnopt.optimizers.amsgrad import amsgrad
from fnopt.testing.oracles import largest_error, leafwise


def oracle(rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, corrected="before", max_first=True):
    @leafwise
    def run(theta, gradients):
        m, v, s = (np.zeros_like(theta) for _ in range(3))
        for t, g in enumerate(gradients, 1):
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * g**2
            if corrected == "never":
                s = np.maximum(s, v)
                m_hat, s_hat = m, s
            elif max_first:
                s = np.maximum(s, v)
                m_hat, s_hat = m / (1 - b1**t), s / (1 - b2**t)
            else:
                s = np.maximum(s, v / (1 - b2**t))
                m_hat, s_hat = m / (1 - b1**t), s
            theta = theta - rate * m_hat / (np.sqrt(s_hat + eps_root) + eps)
            yield theta

    return run


OTHER = dict(b1=0.8, b2=0.7, eps=1e-3, eps_root=1e-4)
PAPER = dict(bias_correction_mu=False, bias_correction_nu=False)
CASES = [
    (amsgrad(0.02), oracle(0.02)),
    (amsgrad(0.02, **OTHER), oracle(0.02, **OTHER)),
    (amsgrad(0.02, **OTHER, **PAPER), oracle(0.02, **OTHER, corrected="never")),
    (amsgrad(0.02, b2=0.7, max_of_corrected=True), oracle(0.02, b2=0.7, max_first=False)),
    (amsgrad(0.02, b1=0.0), oracle(0.02, b1=0.0)),
]


@pytest.mark.parametrize(("optimizer", "wanted"), CASES)
def test_oracle_in_float32(optimizer, wanted):
    assert largest_error(optimizer, wanted) < 1e-6


@pytest.mark.parametrize(("optimizer", "wanted"), CASES)
def test_oracle_in_float64(optimizer, wanted, x64):
    assert largest_error(optimizer, wanted, jnp.float64) < 1e-12


def test_optax_takes_the_maximum_after_the_correction(standard_numerics):
    peer = optax.amsgrad(0.02, b2=0.7)
    assert largest_error(peer, oracle(0.02, b2=0.7, max_first=False)) < 1e-5
    assert largest_error(peer, oracle(0.02, b2=0.7)) > 1e-3
    paper = optax.amsgrad(0.02, b2=0.7, **PAPER)
    assert largest_error(paper, oracle(0.02, b2=0.7, corrected="never")) < 1e-5


def test_a_large_gradient_is_remembered():
    optimizer = amsgrad(1.0, b1=0.0, b2=0.5, **PAPER)
    params = jnp.zeros(1)
    state = optimizer.init(params)
    assert fnopt.tree_get(state, "mu") is None
    for g in [8.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]:
        updates, state = optimizer.update(jnp.full(1, g), state, params)
    np.testing.assert_allclose(updates, -1 / np.sqrt(0.5 * 64), rtol=1e-6)
