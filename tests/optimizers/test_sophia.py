import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import fnopt
from fnopt.optimizers.sophia import (
    gauss_newton_bartlett_estimator_diag_hessian,
    hutchinson_estimator_diag_hessian,
    sophia,
)
from fnopt.testing.oracles import largest_error, leafwise, trial


def quartic(params):
    """Its Hessian is diag(θ²), which Hutchinson's estimate finds exactly."""
    return sum(jnp.sum(p**4) for p in jax.tree.leaves(params)) / 12


class WithObjective:
    """An optimizer whose `update` is given the objective and a key."""

    def __init__(self, optimizer):
        self.optimizer, self.init = optimizer, optimizer.init

    def update(self, updates, state, params):
        key = jax.random.key(0)
        return self.optimizer.update(updates, state, params, obj_fn=quartic, key=key)


def oracle(
    rate,
    b1=0.965,
    b2=0.99,
    eps=1e-8,
    weight_decay=1e-4,
    gamma=0.01,
    clip_threshold=1.0,
    update_interval=10,
    bias_correction=False,
):
    @leafwise
    def run(theta, gradients):
        m, h = np.zeros_like(theta), np.zeros_like(theta)
        for t, g in enumerate(gradients, 1):
            m = b1 * m + (1 - b1) * g
            if (t - 1) % update_interval == 0:
                h = b2 * h + (1 - b2) * theta**2
            c = 1 - b1**t if bias_correction else 1.0
            u = m / c / np.maximum(gamma * h, eps)
            if clip_threshold is not None:
                u = np.clip(u, -clip_threshold, clip_threshold)
            theta = theta - rate * (u + weight_decay * theta)
            yield theta

    return run


SETTINGS = [
    dict(),
    dict(b1=0.8, b2=0.6, eps=0.1, gamma=1.0, clip_threshold=0.7, update_interval=3),
    dict(clip_threshold=None, eps=0.5, weight_decay=0.3, bias_correction=True),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    optimizer = WithObjective(sophia(0.01, **setting))
    assert largest_error(optimizer, oracle(0.01, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    optimizer = WithObjective(sophia(0.01, **setting))
    assert largest_error(optimizer, oracle(0.01, **setting), jnp.float64) < 1e-12


def final(optimizer, params, gradients, apply, **extra_args):
    def step(carry, g):
        params, state = carry
        updates, state = optimizer.update(g, state, params, obj_fn=quartic, **extra_args)
        return (apply(params, updates), state), None

    every = jax.tree.map(lambda *gs: np.stack(gs), *gradients)
    run = lambda params, gs: jax.lax.scan(step, (params, optimizer.init(params)), gs)[0][0]
    return jax.jit(run)(params, every)


def test_optax_takes_its_first_steps_without_the_hessian(standard_numerics):
    params, gradients = jax.tree.map(jnp.float32, trial(steps=4, zero_step=0))
    setting = dict(b2=0.5, gamma=1.0, eps=0.1, clip_threshold=5.0)
    ours = sophia(0.1, **setting, bias_correction=True)
    ours = final(ours, params, gradients[:1], fnopt.apply_updates, key=jax.random.key(0))
    theirs = final(contrib.sophia(0.1, **setting), params, gradients[:1], optax.apply_updates)
    blind = contrib.sophia(0.1, **(setting | dict(gamma=0.0)))
    blind = final(blind, params, gradients[:1], optax.apply_updates)
    np.testing.assert_allclose(theirs["matrix"], blind["matrix"])
    assert np.abs(ours["matrix"] - theirs["matrix"]).max() > 1e-2
    # without a Hessian both are the same momentum
    setting["gamma"] = 0.0
    ours = sophia(0.1, **setting, bias_correction=True)
    ours = final(ours, params, gradients, fnopt.apply_updates, key=jax.random.key(0))
    theirs = final(contrib.sophia(0.1, **setting), params, gradients, optax.apply_updates)
    np.testing.assert_allclose(ours["matrix"], theirs["matrix"], rtol=1e-4, atol=1e-5)


def mean_estimate(estimator, params, **extra_args):
    def one(key):
        return estimator.update(params, estimator.init(params), params, key=key, **extra_args)[0]

    draws = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 4000))
    return jax.tree.map(lambda x: np.mean(x, axis=0), draws)


def test_hutchinson_is_unbiased():
    matrix = jnp.array([[2.0, 1.0, 0.0], [1.0, -3.0, 0.5], [0.0, 0.5, 4.0]])
    estimator = hutchinson_estimator_diag_hessian()
    mean = mean_estimate(estimator, jnp.ones(3), obj_fn=lambda x: 0.5 * x @ matrix @ x)
    np.testing.assert_allclose(mean, jnp.diag(matrix), atol=0.1)


def test_gauss_newton_bartlett_is_unbiased():
    inputs = np.float32(np.random.default_rng(1).normal(size=(5, 2)))
    weights = np.float32(np.random.default_rng(2).normal(size=(2, 3)))

    def loss(w):
        # of a linear model the Gauss-Newton matrix is the Hessian, whatever the labels
        return -jnp.mean(jax.nn.log_softmax(inputs @ w)[:, 0])

    hessian = jax.jit(jax.hessian(loss))(weights).reshape(6, 6)
    estimator = gauss_newton_bartlett_estimator_diag_hessian()
    mean = mean_estimate(estimator, weights, logits_fn=lambda w: inputs @ w)
    np.testing.assert_allclose(mean.ravel(), jnp.diag(hessian), rtol=0.15, atol=0.005)


def test_the_randomness_is_the_users():
    params = jnp.ones(3)
    optimizer = sophia(0.1)
    state = optimizer.init(params)
    with pytest.raises(TypeError, match="needs key"):
        optimizer.update(params, state, params, obj_fn=quartic)
    with pytest.raises(TypeError, match="needs obj_fn"):
        optimizer.update(params, state, params, key=jax.random.key(0))
    with pytest.raises(TypeError, match="unknown extra argument 'objfn'"):
        optimizer.update(params, state, params, objfn=quartic)
    seeded = sophia(0.1, hessian_diagonal_fn=hutchinson_estimator_diag_hessian(0))
    seeded.update(params, seeded.init(params), params, obj_fn=quartic)
