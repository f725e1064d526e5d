import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fnopt.bench import trees
from fnopt.bench.counts import count
from fnopt.optimizers.lamb import lamb
from fnopt.testing.oracles import largest_error, leafwise


def oracle(rate, b1=0.9, b2=0.999, eps=1e-6, eps_root=0.0, weight_decay=0.0):
    @leafwise
    def run(theta, gradients):
        m, v = np.zeros_like(theta), np.zeros_like(theta)
        for t, g in enumerate(gradients, 1):
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * g**2
            r = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t) + eps_root) + eps) + weight_decay * theta
            norms = np.linalg.norm(theta), np.linalg.norm(r)
            theta = theta - rate * r * (norms[0] / norms[1] if all(norms) else 1.0)
            yield theta

    return run


SETTINGS = [dict(), dict(b1=0.8, b2=0.95, eps=1e-3, weight_decay=0.1), dict(b1=0.0, eps_root=1e-4)]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    assert largest_error(lamb(0.02, **setting), oracle(0.02, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    assert largest_error(lamb(0.02, **setting), oracle(0.02, **setting), jnp.float64) < 1e-12


def test_agrees_with_optax(standard_numerics):
    mask = {"w": True, "b": False}
    pair = [f(0.02, weight_decay=0.1, mask=mask) for f in (lamb, optax.lamb)]
    params = {"w": jnp.arange(12.0).reshape(4, 3), "b": jnp.zeros(3)}
    rng = np.random.default_rng(0)
    states = [o.init(params) for o in pair]
    for _ in range(3):
        g = {k: jnp.asarray(rng.normal(size=p.shape), jnp.float32) for k, p in params.items()}
        got = [o.update(g, s, params) for o, s in zip(pair, states)]
        states = [s for _, s in got]
        for k in params:
            np.testing.assert_allclose(got[0][0][k], got[1][0][k], rtol=1e-4, atol=1e-5)


def test_a_step_is_the_rate_times_the_norm_of_the_weights():
    params = jnp.array([3.0, 4.0])
    for size in (1e-15, 1.0, 1e15):
        optimizer = lamb(0.01, eps=0.0)
        updates, _ = optimizer.update(size * jnp.ones(2), optimizer.init(params), params)
        np.testing.assert_allclose(jnp.linalg.norm(updates), 0.05, rtol=1e-5)


def test_the_direction_is_not_stored():
    cost = count(lamb(1e-3, weight_decay=0.1), trees.transformer(layers=1, width=64))
    assert cost.bytes < 58
    assert cost.temporary < 1
