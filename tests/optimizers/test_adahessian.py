from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnopt
from fnopt.optimizers.adahessian import adahessian, hutchinson, random_signs
from fnopt.testing.oracles import largest_error, leafwise


def diagonal(g):
    return 2 * g * g - 0.5 * g  # some function of the gradient, so that the oracle knows it too


def oracle(
    rate, b1=0.9, b2=0.999, eps=1e-4, hessian_power=1.0, weight_decay=0.0, spatial_averaging=True
):
    @leafwise
    def run(theta, gradients):
        m, v = np.zeros_like(theta), np.zeros_like(theta)
        for t, g in enumerate(gradients, 1):
            d = np.abs(diagonal(g))
            if spatial_averaging and d.ndim > 1:
                d = np.broadcast_to(d.mean(axis=0, keepdims=True), d.shape)
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * d**2
            root = np.sqrt(v / (1 - b2**t)) ** hessian_power
            theta = theta - rate * (m / (1 - b1**t) / (root + eps) + weight_decay * theta)
            yield theta

    return run


def fed(optimizer):
    def update(gradients, state, params):
        hessian = jax.tree.map(diagonal, gradients)
        return optimizer.update(gradients, state, params, hessian=hessian)

    return SimpleNamespace(init=optimizer.init, update=update)


SETTINGS = [
    dict(),
    dict(b1=0.8, b2=0.95, eps=1e-2, hessian_power=0.5, weight_decay=0.1, spatial_averaging=False),
    dict(b1=0.0),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=["default", "other", "b1=0"])
def test_oracle_in_float32(setting):
    assert largest_error(fed(adahessian(0.02, **setting)), oracle(0.02, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=["default", "other", "b1=0"])
def test_oracle_in_float64(setting, x64):
    error = largest_error(fed(adahessian(0.02, **setting)), oracle(0.02, **setting), jnp.float64)
    assert error < 1e-12


def test_hutchinson_estimates_the_diagonal():
    scales = jnp.array([1.0, 4.0, 0.25])
    params = {"x": jnp.ones(3), "n": jnp.array(2), "none": None}

    def loss(p):
        return jnp.sum(scales * p["x"] ** 2) + p["x"][0] * p["x"][1]

    keys = jax.random.split(jax.random.key(0), 400)
    draws = jax.vmap(lambda key: hutchinson(loss, params, key)["x"])(keys)
    np.testing.assert_allclose(draws.mean(0), 2 * scales, atol=0.2)
    assert hutchinson(loss, params, keys[0])["n"] is None


def test_random_signs_are_fair_and_independent():
    like = [jnp.zeros(s, jnp.bfloat16) for s in [(), (0, 3), (5,), (7, 9), (2, 3, 8)]]
    keys = jax.random.split(jax.random.key(0), 2000)
    signs = jax.vmap(lambda key: random_signs(key, like))(keys)
    assert [x.shape for x in signs] == [(2000, *x.shape) for x in like]
    flat = np.concatenate([np.asarray(x, np.float32).reshape(2000, -1) for x in signs], axis=1)
    assert flat.shape[1] == 117
    assert (np.abs(flat) == 1).all()
    assert np.abs(flat.mean(axis=0)).max() < 0.12
    assert np.abs(flat.T @ flat / 2000 - np.eye(117)).max() < 0.12


def test_a_convolution_is_averaged_over_its_window():
    params = {"line": jnp.ones((5, 2, 4)), "square": jnp.ones((3, 3, 2, 4))}
    nu = fnopt.tree_get(adahessian(0.1).init(params), "nu")
    assert {k: v.shape for k, v in nu.items()} == {"line": (1, 2, 4), "square": (1, 1, 2, 4)}


def test_it_needs_a_hessian_like_the_updates():
    params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
    optimizer = adahessian(0.1)
    state = optimizer.init(params)
    assert fnopt.tree_get(state, "nu")["w"].shape == (1, 3)
    with pytest.raises(TypeError, match="needs hessian="):
        optimizer.update(params, state, params)
    with pytest.raises(ValueError, match="hessian"):
        optimizer.update(params, state, params, hessian={"w": params["w"]})


def test_a_badly_conditioned_parabola():
    scales = jnp.array([100.0, 1.0, 0.01])

    def loss(x):
        return 0.5 * jnp.sum(scales * x * x)

    optimizer, x = adahessian(0.1, b1=0.0, b2=0.9), jnp.ones(3)
    state = optimizer.init(x)
    for i in range(60):
        hessian = hutchinson(loss, x, jax.random.key(i))
        updates, state = optimizer.update(jax.grad(loss)(x), state, x, hessian=hessian)
        x = fnopt.apply_updates(x, updates)
    np.testing.assert_allclose(x, 0.9**60, rtol=0.7)
