import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fnopt.apply import apply_updates
from fnopt.optimizers.optimistic_adam_v2 import optimistic_adam_v2
from fnopt.testing.oracles import largest_error, leafwise


def oracle(rate, alpha=1.0, beta=1.0, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, nesterov=True):
    @leafwise
    def run(theta, gradients):
        m, v, last = np.zeros_like(theta), np.zeros_like(theta), None
        for t, g in enumerate(gradients, 1):
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * g**2
            m_hat = m / (1 - b1**t)
            if nesterov:
                m_hat = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
            r = m_hat / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)
            last = r if last is None else last
            theta = theta - rate * ((alpha + beta) * r - beta * last)
            last = r
            yield theta

    return run


SETTINGS = [
    dict(nesterov=False),
    dict(alpha=0.5, beta=2.0, b1=0.8, b2=0.95, eps=1e-3, eps_root=1e-4),
    dict(b1=0.0, beta=0.0),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    error = largest_error(optimistic_adam_v2(0.01, **setting), oracle(0.01, **setting))
    assert error < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    optimizer = optimistic_adam_v2(0.01, **setting)
    assert largest_error(optimizer, oracle(0.01, **setting), jnp.float64) < 1e-12


@pytest.mark.parametrize("setting", SETTINGS[:2], ids=str)
def test_agrees_with_optax(setting, standard_numerics):
    peer = optax.optimistic_adam_v2(0.01, **setting)
    assert largest_error(peer, oracle(0.01, **setting)) < 1e-5


def test_a_game_ends_at_its_equilibrium():
    optimizer = optimistic_adam_v2(1.0, alpha=1e-2)
    params = {"x": jnp.array(1.0), "y": jnp.array(2.0)}

    def step(carry, _):
        params, state = carry
        gradients = {"x": params["y"], "y": -params["x"]}
        updates, state = optimizer.update(gradients, state, params)
        return (apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), length=1025)
    assert np.hypot(params["x"], params["y"]) < 0.01
