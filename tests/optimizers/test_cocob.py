import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import fnopt
from fnopt.optimizers.cocob import cocob
from fnopt.testing.oracles import largest_error, leafwise, trial


def oracle(rate=1.0, alpha=100.0, eps=1e-8, weight_decay=0.0):
    @leafwise
    def run(theta, gradients):
        start = np.array(theta)
        most = np.full_like(theta, eps)
        total, reward, c = (np.zeros_like(theta) for _ in range(3))
        for g in gradients:
            g = rate * (g + weight_decay * theta)
            most = np.maximum(most, np.abs(g))
            total = total + np.abs(g)
            reward = np.maximum(reward - g * (theta - start), 0)
            c = c - g
            beta = c / (most * np.maximum(total + most, alpha * most))
            theta = start + beta * (most + reward)
            yield theta

    return run


SETTINGS = [dict(), dict(alpha=2.0, eps=0.3, weight_decay=0.1)]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    assert largest_error(cocob(0.7, **setting), oracle(0.7, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    assert largest_error(cocob(0.7, **setting), oracle(0.7, **setting), jnp.float64) < 1e-12


def test_agrees_with_optax(standard_numerics):
    params, gradients = jax.tree.map(jnp.float32, trial())
    ours, theirs = cocob(alpha=5.0), contrib.cocob(alpha=5.0)
    x, s = params, ours.init(params)
    y, z = params, theirs.init(params)
    for g in gradients:
        u, s = ours.update(g, s, x)
        x = fnopt.apply_updates(x, u)
        u, z = theirs.update(g, z, y)
        y = optax.apply_updates(y, u)
    for k in params:
        np.testing.assert_allclose(x[k], y[k], rtol=1e-4, atol=1e-6)


def test_the_scale_of_the_gradients_drops_out():
    params, gradients = jax.tree.map(jnp.float32, trial(steps=5))
    results = []
    for factor in (1.0, 1024.0):
        x, s = params, cocob().init(params)
        for g in gradients:
            u, s = cocob().update(jax.tree.map(lambda g: factor * g, g), s, x)
            x = fnopt.apply_updates(x, u)
        results.append(x["matrix"])
    np.testing.assert_allclose(*results, rtol=1e-6)
