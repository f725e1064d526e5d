import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnopt
from fnopt.optimizers.rprop import rprop
from fnopt.testing.oracles import largest_error, leafwise


def oracle(
    rate,
    eta_minus=0.5,
    eta_plus=1.2,
    min_step_size=1e-6,
    max_step_size=50.0,
    backtracking=False,
):
    @leafwise
    def run(theta, gradients):
        theta = np.array(theta)
        size, last = np.full_like(theta, rate), np.zeros_like(theta)
        moved = np.zeros_like(theta)
        for g in gradients:
            new = np.array(theta)
            for i in np.ndindex(theta.shape):
                product, sign = g[i] * last[i], np.sign(g[i])
                if product > 0:
                    size[i] = min(size[i] * eta_plus, max_step_size)
                elif product < 0:
                    size[i] = max(size[i] * eta_minus, min_step_size)
                    sign = 0.0
                step = -sign * size[i]
                if product < 0 and backtracking:
                    step = -moved[i]
                moved[i], last[i] = step, sign
                new[i] = theta[i] + step
            theta = new
            yield theta

    return run


SETTINGS = [
    dict(),
    dict(eta_minus=0.3, eta_plus=1.5, min_step_size=5e-3, max_step_size=0.03),
    dict(backtracking=True),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    assert largest_error(rprop(0.02, **setting), oracle(0.02, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    assert largest_error(rprop(0.02, **setting), oracle(0.02, **setting), jnp.float64) < 1e-12


def test_optax_is_one_update_late(standard_numerics):
    params, rng = jnp.ones((4, 3)), np.random.default_rng(0)
    ours, theirs = rprop(0.1), optax.rprop(0.1)
    a, b = ours.init(params), theirs.init(params)
    last = jnp.zeros_like(params)
    for _ in range(5):
        g = jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)
        got, a = ours.update(g, a, params)
        late, b = theirs.update(g, b, params)
        sign_turned = (got == 0) & (late == 0)
        np.testing.assert_allclose(late, jnp.where(sign_turned, 0.0, last), atol=1e-6)
        last = got


def test_a_schedule_scales_every_step():
    params = jnp.ones(2)
    optimizer = rprop(lambda count: 0.1 / (1.0 + count.astype(jnp.float32)))
    state = optimizer.init(params)
    updates, state = optimizer.update(jnp.ones(2), state, params)
    np.testing.assert_allclose(updates, -0.1, rtol=1e-6)
    updates, state = optimizer.update(jnp.ones(2), state, params)
    np.testing.assert_allclose(updates, -0.05 * 1.2, rtol=1e-6)
    np.testing.assert_allclose(fnopt.hyperparameters(state)["learning_rate"], 0.05)


def test_tiny_gradients_count():
    params, g = jnp.ones(2), jnp.full(2, 1e-30)
    optimizer = rprop(0.1)
    _, state = optimizer.update(g, optimizer.init(params), params)
    updates, _ = optimizer.update(g, state, params)
    np.testing.assert_allclose(updates, -0.12, rtol=1e-6)
