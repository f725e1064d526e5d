import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import fnopt
from fnopt.optimizers.dog import dog, scale_by_distance_over_gradients
from fnopt.testing.oracles import largest_error, leafwise, trial


def size(x):
    return np.sqrt(sum(np.sum(v**2) for v in x.values()))


def oracle(rate=1.0, init_step=("heuristic", 1e-6), eps=1e-8, weight_decay=0.0):
    kind, value = init_step

    def run(start, gradients):
        x = {k: np.array(p) for k, p in start.items()}
        farthest = {"heuristic": value * (1 + size(x)), "distance": value, "learning_rate": 0.0}[
            kind
        ]
        squares = 0.0
        for t, gs in enumerate(gradients):
            gs = {k: g + weight_decay * x[k] for k, g in gs.items()}
            farthest = max(farthest, size({k: x[k] - start[k] for k in x}))
            squares += size(gs) ** 2
            found = farthest / np.sqrt(squares + eps)
            if kind == "learning_rate" and t == 0:
                found = value
            x = {k: x[k] - rate * found * g for k, g in gs.items()}
            yield dict(x)

    return run


SETTINGS = [
    dict(init_step=("heuristic", 0.1)),
    dict(init_step=("distance", 0.5), eps=0.1, weight_decay=0.1),
    dict(init_step=("learning_rate", 0.01)),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    assert largest_error(dog(0.5, **setting), oracle(0.5, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    assert largest_error(dog(0.5, **setting), oracle(0.5, **setting), jnp.float64) < 1e-12


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_agrees_with_optax(setting, standard_numerics):
    params, gradients = jax.tree.map(jnp.float32, trial())
    ours, theirs = dog(**setting), contrib.dog(**setting)
    x, s = params, ours.init(params)
    y, z = params, theirs.init(params)
    for g in gradients:
        u, s = ours.update(g, s, x)
        x = fnopt.apply_updates(x, u)
        u, z = theirs.update(g, z, y)
        y = optax.apply_updates(y, u)
    for k in params:
        np.testing.assert_allclose(x[k], y[k], rtol=1e-4)


def test_an_unknown_first_step_is_an_error():
    with pytest.raises(ValueError, match="init_step"):
        dog(init_step=("guess", 1.0))


EARLY = dog(0.5, init_step=("heuristic", 0.1))


def test_an_optimizer_built_before_double_precision_is_as_exact(x64):
    wanted = oracle(0.5, init_step=("heuristic", 0.1))
    assert largest_error(EARLY, wanted, jnp.float64) < 1e-12


def leaf_oracle(reps_rel=1e-6, eps=1e-8, global_scale=1.0):
    @leafwise
    def run(theta, gradients):
        start, squares = theta, 0.0
        farthest = reps_rel * (1 + np.sqrt(np.sum(start**2)))
        for g in gradients:
            farthest = max(farthest, np.sqrt(np.sum((theta - start) ** 2)))
            squares += np.sum(g**2)
            theta = theta + global_scale * farthest / np.sqrt(squares + eps) * g
            yield theta

    return run


LEAF_SETTINGS = [
    dict(reps_rel=0.1, global_scale=-1.0),
    dict(reps_rel=0.02, eps=0.5, global_scale=-0.5),
]


@pytest.mark.parametrize("setting", LEAF_SETTINGS, ids=str)
def test_a_rate_for_each_leaf_by_the_oracle(setting):
    rule = scale_by_distance_over_gradients(**setting)
    assert largest_error(rule, leaf_oracle(**setting)) < 1e-6


@pytest.mark.parametrize("setting", LEAF_SETTINGS, ids=str)
def test_a_rate_for_each_leaf_by_the_oracle_in_float64(setting, x64):
    rule = scale_by_distance_over_gradients(**setting)
    assert largest_error(rule, leaf_oracle(**setting), jnp.float64) < 1e-12


def test_a_rate_for_each_leaf_agrees_with_optax_where_it_keeps_the_shape(standard_numerics):
    params, gradients = jax.tree.map(jnp.float32, trial())
    setting = dict(reps_rel=0.1, global_scale=-1.0)
    ours = scale_by_distance_over_gradients(**setting)
    theirs = optax.scale_by_distance_over_gradients(**setting)
    x, y, s, z = params, params, ours.init(params), theirs.init(params)
    for g in gradients:
        u, s = ours.update(g, s, x)
        v, z = theirs.update(g, z, y)
        assert v["scalar"].shape == (1,)  # of a scalar optax makes a vector
        x, y = fnopt.apply_updates(x, u), optax.apply_updates(y, v)
    for k in params:
        np.testing.assert_allclose(np.ravel(x[k]), np.ravel(y[k]), rtol=1e-4)
