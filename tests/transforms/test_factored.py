import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnopt
from fnopt.testing.oracles import largest_error, leafwise
from fnopt.transforms.factored import Factored, scale_by_factored_rms


def oracle(
    rate, factored=True, decay_rate=0.8, step_offset=0, min_dim_size_to_factor=128, epsilon=1e-30
):
    @leafwise
    def run(theta, gradients):
        row = col = v = 0.0
        axes = np.argsort(theta.shape, kind="stable")[-2:]
        small = theta.ndim < 2 or min(theta.shape[a] for a in axes) < min_dim_size_to_factor
        for count, g in enumerate(gradients):
            beta = 1 - max(count + 1 - step_offset, 1.0) ** -decay_rate
            squares = g**2 + epsilon
            if small or not factored:
                v = beta * v + (1 - beta) * squares
            else:
                row = beta * row + (1 - beta) * squares.mean(axes[1], keepdims=True)
                col = beta * col + (1 - beta) * squares.mean(axes[0], keepdims=True)
                v = row * col / row.mean(axes[0], keepdims=True)
            theta = theta - rate * g / np.sqrt(v)
            yield theta

    return run


SETTINGS = [
    dict(),
    dict(min_dim_size_to_factor=2, decay_rate=0.5, epsilon=1e-3),
    dict(min_dim_size_to_factor=3, step_offset=4),
    dict(factored=False, min_dim_size_to_factor=2),
]


def by_rule(rate, setting):
    return fnopt.chain(scale_by_factored_rms(**setting), fnopt.scale_by_learning_rate(rate))


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    assert largest_error(by_rule(0.02, setting), oracle(0.02, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    error = largest_error(by_rule(0.02, setting), oracle(0.02, **setting), jnp.float64)
    assert error < 1e-12


@pytest.mark.parametrize("factored", [True, False])
def test_agrees_with_optax(factored, standard_numerics):
    setting = dict(factored=factored, decay_rate=0.7, min_dim_size_to_factor=3)
    pair = [f(**setting) for f in (scale_by_factored_rms, optax.scale_by_factored_rms)]
    rng = np.random.default_rng(0)
    params = {"w": jnp.ones((4, 3)), "cube": jnp.ones((3, 2, 5)), "b": jnp.ones(3)}
    states = [o.init(params) for o in pair]
    for _ in range(3):
        g = {k: jnp.asarray(rng.normal(size=p.shape), jnp.float32) for k, p in params.items()}
        (got, a), (wanted, b) = [o.update(g, s, params) for o, s in zip(pair, states)]
        states = [a, b]
        for k in params:
            np.testing.assert_allclose(got[k], wanted[k], rtol=1e-4)


def test_edges():
    rule = scale_by_factored_rms(min_dim_size_to_factor=0)
    params = {
        "empty": jnp.zeros((0, 3)),
        "w": jnp.zeros((2, 2)),
        "c": jnp.zeros((2, 2), jnp.complex64),
    }
    for gradient in (params, jax.tree.map(lambda p: p + 1e20, params)):
        updates, state = rule.update(gradient, rule.init(params))
        assert all(jnp.isfinite(x).all() for x in jax.tree.leaves((updates, state)))
    assert state.v_row["c"].dtype == jnp.float32


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.complex64])
def test_the_rms_computed_again_is_that_of_what_is_used(dtype, standard_numerics):
    x = jnp.arange(6.0).reshape(2, 3).astype(dtype)
    row, col = jnp.array([[1.0], [2.0]]), jnp.array([[1.0, 2.0, 3.0]])
    for v in (Factored(row, col, None), Factored(None, None, row * col)):
        wanted = jnp.sqrt(jnp.mean(jnp.abs(v.rescale(x)) ** 2))
        np.testing.assert_allclose(v.rms_of_rescaled(x), wanted, rtol=1e-5)


def test_an_offset_does_not_give_nan_where_optaxs_does(standard_numerics):
    g = jnp.ones(3)
    for factory, finite in ((scale_by_factored_rms, True), (optax.scale_by_factored_rms, False)):
        rule = factory(step_offset=1)
        updates, _ = rule.update(g, rule.init(g), g)
        assert jnp.isfinite(updates).all() == finite
