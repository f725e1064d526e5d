import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnopt
from fnopt.optimizers.optimistic_gradient_descent import optimistic_gradient_descent
from fnopt.testing.oracles import largest_error, leafwise


def oracle(rate, alpha=1.0, beta=1.0):
    @leafwise
    def run(theta, gradients):
        last = gradients[0]
        for g in gradients:
            theta = theta - rate * ((alpha + beta) * g - beta * last)
            last = g
            yield theta

    return run


SETTINGS = [dict(), dict(alpha=0.7, beta=0.4), dict(beta=0.0)]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-6), ("float64", 1e-12)])
def test_oracle(setting, dtype, bound, request):
    if dtype == "float64":
        request.getfixturevalue("x64")
    optimizer = optimistic_gradient_descent(0.02, **setting)
    assert largest_error(optimizer, oracle(0.02, **setting), dtype) < bound


def test_agrees_with_optax(standard_numerics):
    params, rng = jnp.ones(3), np.random.default_rng(0)
    pair = [
        f(0.1, 0.7, 0.4) for f in (optimistic_gradient_descent, optax.optimistic_gradient_descent)
    ]
    states = [o.init(params) for o in pair]
    for _ in range(3):
        g = jnp.asarray(rng.normal(size=3), jnp.float32)
        (got, a), (wanted, b) = [o.update(g, s, params) for o, s in zip(pair, states)]
        states = [a, b]
        np.testing.assert_allclose(got, wanted, rtol=1e-4)


def test_it_converges_in_a_game_where_descent_does_not():
    def play(optimizer):
        params = {"x": jnp.ones(()), "y": jnp.ones(())}
        state = optimizer.init(params)
        for _ in range(200):  # min over x, max over y of xy
            gradient = {"x": params["y"], "y": -params["x"]}
            updates, state = optimizer.update(gradient, state, params)
            params = fnopt.apply_updates(params, updates)
        return float(jnp.hypot(params["x"], params["y"]))

    assert play(optimistic_gradient_descent(0.3)) < 0.1
    assert play(optimistic_gradient_descent(0.3, beta=0.0)) > 10
