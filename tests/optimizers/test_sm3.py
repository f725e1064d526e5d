import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnopt
from fnopt.core import chain
from fnopt.optimizers.sm3 import scale_by_sm3, sm3
from fnopt.testing.oracles import largest_error, leafwise
from fnopt.transforms.scaling import scale_by_learning_rate


def oracle(rate, momentum=0.9, b2=1.0, eps=1e-8):
    @leafwise
    def run(theta, gradients):
        shape, n = theta.shape, max(theta.ndim, 1)
        mu = [np.zeros(shape[i : i + 1]) for i in range(n)]
        m = np.zeros_like(theta)
        for g in gradients:
            v, u = np.zeros_like(theta), np.zeros_like(theta)
            new = [np.zeros_like(a) for a in mu]
            for i in np.ndindex(shape):
                least = min(mu[a][i[a : a + 1]] for a in range(n))
                v[i] = b2 * least + (1.0 if b2 == 1 else 1 - b2) * g[i] ** 2
                u[i] = g[i] / np.sqrt(v[i] + eps)
                for a in range(n):
                    new[a][i[a : a + 1]] = max(new[a][i[a : a + 1]], v[i])
            mu = new
            m = momentum * m + (1 - momentum) * u
            theta = theta - rate * m
            yield theta

    return run


def by_rule(rate, momentum, b2, eps):
    return chain(scale_by_sm3(momentum, b2, eps), scale_by_learning_rate(rate))


def test_oracle_in_float32():
    assert largest_error(sm3(0.05), oracle(0.05)) < 1e-6
    assert largest_error(by_rule(0.05, 0.0, 0.9, 1e-3), oracle(0.05, 0.0, 0.9, 1e-3)) < 1e-6


def test_oracle_in_float64(x64):
    assert largest_error(sm3(0.05, 0.5), oracle(0.05, 0.5), jnp.float64) < 1e-12
    error = largest_error(by_rule(0.05, 0.0, 0.9, 1e-3), oracle(0.05, 0.0, 0.9, 1e-3), jnp.float64)
    assert error < 1e-12


def test_agrees_with_optax(standard_numerics):
    params, rng = jnp.ones((4, 3)), np.random.default_rng(0)
    ours, theirs = sm3(0.1), optax.sm3(0.1)
    a, b = ours.init(params), theirs.init(params)
    for _ in range(4):
        g = jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)
        got, a = ours.update(g, a, params)
        wanted, b = theirs.update(g, b, params)
        np.testing.assert_allclose(got, wanted, rtol=1e-4)


def test_the_state_is_a_vector_for_each_axis():
    params = {"cube": jnp.ones((2, 3, 4)), "gain": jnp.ones(()), "empty": jnp.ones((0, 3))}
    state = sm3(0.1, momentum=0.0).init(params)
    shapes = {k.split("axis_bounds/")[-1]: x.shape for k, x in fnopt.named_arrays(state).items()}
    assert shapes["cube/axis_0"] == (2, 1, 1)
    assert shapes["cube/axis_2"] == (1, 1, 4)
    assert shapes["gain/axis_0"] == ()
    updates, _ = sm3(0.1).update(params, sm3(0.1).init(params), params)
    assert updates["empty"].shape == (0, 3)


def test_a_scalar_has_an_accumulator_where_optax_fails(standard_numerics):
    gain = jnp.ones(())
    updates, _ = sm3(0.1).update(gain, sm3(0.1).init(gain), gain)
    np.testing.assert_allclose(updates, -0.01, rtol=1e-5)
    with pytest.raises(IndexError):
        optax.sm3(0.1).update(gain, optax.sm3(0.1).init(gain), gain)
