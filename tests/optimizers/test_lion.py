import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnopt
from fnopt.bench import trees
from fnopt.bench.counts import count
from fnopt.optimizers.lion import lion, scale_by_lion
from fnopt.testing.oracles import largest_error, leafwise


def oracle(rate, b1=0.9, b2=0.99, weight_decay=1e-3):
    @leafwise
    def run(theta, gradients):
        m = np.zeros_like(theta)
        for g in gradients:
            u = np.sign(b1 * m + (1 - b1) * g)
            m = b2 * m + (1 - b2) * g
            theta = theta - rate * (u + weight_decay * theta)
            yield theta

    return run


SETTINGS = [dict(), dict(b1=0.8, b2=0.5, weight_decay=0.1), dict(b1=0.0)]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    assert largest_error(lion(0.02, **setting), oracle(0.02, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    assert largest_error(lion(0.02, **setting), oracle(0.02, **setting), jnp.float64) < 1e-12


def test_agrees_with_optax(standard_numerics):
    pair = [lion(0.02, 0.8, 0.95), optax.lion(0.02, 0.8, 0.95)]
    rng = np.random.default_rng(0)
    params = [jnp.ones((4, 3))] * 2
    states = [o.init(p) for o, p in zip(pair, params)]
    for _ in range(10):
        g = jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)
        for i, o in enumerate(pair):
            updates, states[i] = o.update(g, states[i], params[i])
            params[i] = params[i] + updates
    np.testing.assert_allclose(params[0], params[1], rtol=1e-4)


def test_every_entry_moves_by_the_rate_and_zero_stays():
    gradient = jnp.array([1e-30, -1e20, 0.0])
    rule = scale_by_lion()
    updates, state = rule.update(gradient, rule.init(gradient))
    np.testing.assert_array_equal(updates, [1.0, -1.0, 0.0])
    assert jnp.isfinite(state.mu).all()


def test_a_static_zero_drops_its_buffer():
    assert fnopt.tree_get(lion(1e-3, b1=0.0).init(jnp.ones(3)), "mu") is None


def test_no_copy_of_the_average_is_kept():
    cost = count(lion(1e-3), trees.transformer(layers=1, width=64))
    assert cost.bytes < 28.5
    assert cost.temporary < 0.1
