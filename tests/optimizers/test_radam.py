from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fnopt.optimizers.radam import degrees_of_freedom, radam, scale_by_radam
from fnopt.testing.oracles import largest_error, leafwise


def oracle(rate, b1=0.9, b2=0.999, eps=1e-8, threshold=5.0, nesterov=False):
    @leafwise
    def run(theta, gradients):
        m, v = np.zeros_like(theta), np.zeros_like(theta)
        limit = float(2 / (1 - Fraction(b2)) - 1)
        for t, g in enumerate(gradients, 1):
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * g**2
            m_hat = m / (1 - b1**t)
            if nesterov:
                m_hat = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
            power = Fraction(b2) ** t  # exact: the formula cancels where β₂ᵗ is near 1
            rho = float(2 / (1 - Fraction(b2)) - 1 - 2 * t * power / (1 - power))
            if rho >= threshold:
                r = np.sqrt((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho))
                theta = theta - rate * r * np.sqrt(1 - b2**t) * m_hat / (np.sqrt(v) + eps)
            else:
                theta = theta - rate * m_hat
            yield theta

    return run


SETTINGS = [
    dict(),
    dict(b1=0.8, b2=0.9, eps=1e-2, threshold=7.0, nesterov=True),
    dict(b1=0.0, b2=0.5),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    assert largest_error(radam(0.02, **setting), oracle(0.02, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    error = largest_error(radam(0.02, **setting), oracle(0.02, **setting), jnp.float64)
    assert error < 1e-12


def test_agrees_with_optax(standard_numerics):
    assert largest_error(optax.radam(0.02), oracle(0.02)) < 1e-4


def test_optax_has_epsilon_beside_the_corrected_root(standard_numerics):
    setting = dict(b2=0.9, eps=0.1)
    assert largest_error(radam(0.02, **setting), oracle(0.02, **setting)) < 1e-6
    assert largest_error(optax.radam(0.02, **setting), oracle(0.02, **setting)) > 1e-4


def test_optax_loses_rho_where_b2_is_near_one(standard_numerics):
    """In float32 its 2tβ₂ᵗ/(1−β₂ᵗ) cancels: too long steps, and too early."""
    setting = dict(b2=0.99999)
    assert largest_error(radam(0.02, **setting), oracle(0.02, **setting)) < 1e-6
    sizes = []
    for optimizer in (radam(1.0, b1=0.0, **setting), optax.radam(1.0, b1=0.0, **setting)):
        params = jnp.ones(1)
        state = optimizer.init(params)
        for _ in range(6):
            updates, state = optimizer.update(params, state, params)
        sizes.append(-float(updates[0]))
    assert sizes[1] > 10 * sizes[0]


def test_degrees_of_freedom_are_exact_where_the_formula_cancels():
    for b2 in (0.9, 0.999, 0.9999):
        for t in (1, 2, 6, 40, 5000):
            b, power = Fraction(b2), Fraction(b2) ** t
            limit = 2 / (1 - b) - 1
            wanted = float(limit - 2 * t * power / (1 - power))
            now, end = degrees_of_freedom(b2, jnp.int32(t))
            assert float(now) == pytest.approx(wanted, rel=1e-6)
            assert float(end) == pytest.approx(float(limit), rel=1e-6)


def test_five_steps_of_momentum_then_adam():
    rule = scale_by_radam(b1=0.0)
    gradient = jnp.array([100.0, 0.01])
    state = rule.init(gradient)
    sizes = []
    for _ in range(7):
        updates, state = rule.update(gradient, state)
        sizes.append(float(updates[0] / updates[1]))
    np.testing.assert_allclose(sizes[:5], 1e4, rtol=1e-5)
    np.testing.assert_allclose(sizes[5:], 1.0, rtol=1e-4)
