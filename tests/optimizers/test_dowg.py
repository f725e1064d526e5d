import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import fnopt
from fnopt.optimizers.dowg import dowg
from fnopt.testing.oracles import largest_error, trial


def oracle(rate=1.0, init_estim_sq_dist=None, eps=1e-4, weight_decay=0.0):
    def run(start, gradients):
        x = {k: np.array(p) for k, p in start.items()}
        distance = eps if init_estim_sq_dist is None else init_estim_sq_dist
        weighted = 0.0
        for gs in gradients:
            gs = {k: g + weight_decay * x[k] for k, g in gs.items()}
            distance = max(distance, sum(np.sum((x[k] - start[k]) ** 2) for k in x))
            weighted += distance * sum(np.sum(g**2) for g in gs.values())
            found = distance / (np.sqrt(weighted) + eps)
            x = {k: x[k] - rate * found * g for k, g in gs.items()}
            yield dict(x)

    return run


SETTINGS = [dict(), dict(init_estim_sq_dist=0.5, eps=0.1, weight_decay=0.1)]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    assert largest_error(dowg(0.5, **setting), oracle(0.5, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    assert largest_error(dowg(0.5, **setting), oracle(0.5, **setting), jnp.float64) < 1e-12


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_agrees_with_optax(setting, standard_numerics):
    params, gradients = jax.tree.map(jnp.float32, trial())
    ours, theirs = dowg(**setting), contrib.dowg(**setting)
    x, s = params, ours.init(params)
    y, z = params, theirs.init(params)
    for g in gradients:
        u, s = ours.update(g, s, x)
        x = fnopt.apply_updates(x, u)
        u, z = theirs.update(g, z, y)
        y = optax.apply_updates(y, u)
    for k in params:
        np.testing.assert_allclose(x[k], y[k], rtol=1e-4)


def test_a_valley_is_descended_without_a_rate():
    params = jnp.array([3.0, -2.0])
    optimizer = dowg()

    @jax.jit
    def run(params):
        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(params * jnp.array([1.0, 10.0]), state, params)
            return (fnopt.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), length=300)[0][0]

    assert np.abs(run(params)).max() < 0.05


EARLY = dowg(0.5)


def test_an_optimizer_built_before_double_precision_is_as_exact(x64):
    assert largest_error(EARLY, oracle(0.5), jnp.float64) < 1e-12
