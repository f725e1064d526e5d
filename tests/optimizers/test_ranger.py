from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest

import fnopt
from fnopt.optimizers.ranger import ranger
from fnopt.testing.oracles import largest_error, leafwise
from fnopt.wrappers.lookahead import return_to_slow_weights


def oracle(
    rate, b1=0.95, b2=0.999, eps=1e-5, threshold=5.0, sync_period=6, slow_step_size=0.5,
    weight_decay=0.0,
):  # fmt: skip
    @leafwise
    def run(theta, gradients):
        m, v, slow = np.zeros_like(theta), np.zeros_like(theta), theta
        limit = float(2 / (1 - Fraction(b2)) - 1)
        for t, g in enumerate(gradients, 1):
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * g**2
            power = Fraction(b2) ** t  # exact: the formula cancels where β₂ᵗ is near 1
            rho = float(2 / (1 - Fraction(b2)) - 1 - 2 * t * power / (1 - power))
            u = m / (1 - b1**t)
            if rho >= threshold:
                r = (rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho)
                u = u * np.sqrt(r * (1 - b2**t)) / (np.sqrt(v) + eps)
            theta = theta - rate * (u + weight_decay * theta)
            if t % sync_period == 0:
                slow = slow + slow_step_size * (theta - slow)
                theta = slow
            yield theta

    return run


SETTINGS = [
    dict(),
    dict(b1=0.8, b2=0.9, eps=1e-2, sync_period=4, slow_step_size=0.8, weight_decay=0.1),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    assert largest_error(ranger(0.02, **setting), oracle(0.02, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    error = largest_error(ranger(0.02, **setting), oracle(0.02, **setting), jnp.float64)
    assert error < 1e-12


def test_the_slow_weights_are_what_to_evaluate():
    optimizer = fnopt.chain(fnopt.sgd(1.0), return_to_slow_weights(2, 0.5))
    params = {"w": jnp.zeros(2, jnp.bfloat16), "n": jnp.array(3)}
    state = optimizer.init(params)
    gradient = {"w": jnp.full(2, -1.0, jnp.bfloat16), "n": jnp.array(0)}
    seen = []
    for _ in range(3):
        updates, state = optimizer.update(gradient, state, params)
        params = fnopt.apply_updates(params, updates)
        seen.append((float(params["w"][0]), float(fnopt.eval_params(state, params)["w"][0])))
    assert seen == [(1.0, 0.0), (1.0, 1.0), (2.0, 1.0)]
    averaged = fnopt.eval_params(state, params)
    assert averaged["w"].dtype == jnp.bfloat16
    assert averaged["n"] == 3


def test_the_period_is_at_least_one():
    with pytest.raises(ValueError, match="sync_period"):
        ranger(1e-3, sync_period=0)
