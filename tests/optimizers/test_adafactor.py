import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnopt
from fnopt.bench import trees
from fnopt.bench.counts import count
from fnopt.optimizers.adafactor import adafactor
from fnopt.testing.oracles import largest_error, leafwise


def oracle(
    rate,
    decay_rate=0.8,
    decay_offset=0,
    clipping_threshold=1.0,
    momentum=0.0,
    weight_decay_rate=0.0,
    min_dim_size_to_factor=128,
    multiply_by_parameter_scale=True,
    eps=1e-30,
):
    @leafwise
    def run(theta, gradients):
        m = v = row = col = np.zeros(())
        least = min_dim_size_to_factor
        factored = theta.ndim > 1 and sorted(theta.shape)[-2] >= least
        for t, g in enumerate(gradients, 1):
            beta = 1 - max(t - decay_offset, 1.0) ** -decay_rate
            squares = g**2 + eps
            if factored:
                d1, d0 = np.argsort(theta.shape, kind="stable")[-2:]
                row = beta * row + (1 - beta) * squares.mean(d0, keepdims=True)
                col = beta * col + (1 - beta) * squares.mean(d1, keepdims=True)
                v = row * col / row.mean(d1, keepdims=True)
            else:
                v = beta * v + (1 - beta) * squares
            u = g / np.sqrt(v)
            u = u / max(1, np.sqrt((u**2).mean()) / clipping_threshold)
            if multiply_by_parameter_scale:
                u = u * max(1e-3, np.sqrt((theta**2).mean()))
            m = momentum * m + (1 - momentum) * u
            eta = min(1e-2, t**-0.5) if rate is None else rate
            theta = theta - eta * (m + weight_decay_rate * theta)
            yield theta

    return run


SETTINGS = [
    dict(min_dim_size_to_factor=2),
    dict(min_dim_size_to_factor=3, momentum=0.9, weight_decay_rate=0.1, clipping_threshold=0.5),
    dict(decay_rate=0.5, decay_offset=3, multiply_by_parameter_scale=False),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    assert largest_error(adafactor(0.02, **setting), oracle(0.02, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    error = largest_error(adafactor(0.02, **setting), oracle(0.02, **setting), jnp.float64)
    assert error < 1e-12


def test_without_a_rate_it_is_the_papers(x64):
    assert largest_error(adafactor(), oracle(None), jnp.float64) < 1e-12


def run(optimizer, steps=3):
    params = {"w": jnp.arange(1.0, 13.0).reshape(4, 3), "b": jnp.ones(3)}
    rng = np.random.default_rng(0)
    state = optimizer.init(params)
    for _ in range(steps):
        g = {k: jnp.asarray(rng.normal(size=p.shape), jnp.float32) for k, p in params.items()}
        updates, state = optimizer.update(g, state, params)
    return updates


@pytest.mark.parametrize("setting", [dict(), dict(momentum=0.9, decay_rate=0.7)], ids=str)
def test_agrees_with_optax(setting, standard_numerics):
    setting = dict(setting, min_dim_size_to_factor=3)
    got, wanted = run(adafactor(0.1, **setting)), run(optax.adafactor(0.1, **setting))
    for k in got:
        np.testing.assert_allclose(got[k], wanted[k], rtol=1e-4)


def test_the_decay_is_scaled_by_the_rate_where_optaxs_is_not(standard_numerics):
    for factory, wanted in ((adafactor, 1e-3), (optax.adafactor, 0.1)):
        optimizer, params = factory(1e-2, weight_decay_rate=0.1), jnp.ones(3)
        updates, _ = optimizer.update(jnp.zeros(3), optimizer.init(params), params)
        np.testing.assert_allclose(updates, -wanted, rtol=1e-5)


def test_a_decay_offset_does_not_give_nan_where_optaxs_does(standard_numerics):
    assert jnp.isfinite(run(adafactor(0.1, decay_offset=2), 1)["w"]).all()
    assert jnp.isnan(run(optax.adafactor(0.1, decay_offset=1), 1)["w"]).all()


def test_the_state_of_a_factored_leaf():
    params = {"w": jnp.ones((2, 4, 3)), "b": jnp.ones(3)}
    state = adafactor(1e-3, min_dim_size_to_factor=3).init(params)
    shapes = {k: x.shape for k, x in fnopt.named_arrays(state).items() if x.ndim}
    assert sorted(shapes.values()) == [(2, 1, 3), (2, 4, 1), (3,)]
    assert fnopt.tree_get(state, "mu") is None


def test_nothing_of_full_size_is_stored():
    tree = {"w": jax.ShapeDtypeStruct((256, 256), jnp.float32)}
    cost = count(adafactor(1e-3), tree)
    assert cost.bytes < 32
    assert cost.temporary < 0.3
    assert count(adafactor(1e-3), trees.transformer(1, 64)).temporary < 0.3


def test_the_rate_is_multiplied_in_after_the_momentum_where_optaxs_is_before(standard_numerics):
    def last(factory):
        optimizer = factory(lambda count: 0.1 * 0.1**count, momentum=0.9)
        state = optimizer.init(jnp.ones(1))
        for _ in range(2):
            updates, state = optimizer.update(jnp.ones(1), state, jnp.ones(1))
        return updates

    np.testing.assert_allclose(last(adafactor), -0.01 * (0.09 + 0.1), rtol=1e-5)
    np.testing.assert_allclose(last(optax.adafactor), -(0.009 + 0.001), rtol=1e-5)


def test_without_a_rate_optaxs_is_one(standard_numerics):
    for factory, wanted in ((adafactor, -1e-2), (optax.adafactor, -1.0)):
        updates, _ = factory().update(jnp.ones(1), factory().init(jnp.ones(1)), jnp.ones(1))
        np.testing.assert_allclose(updates, wanted, rtol=1e-5)
