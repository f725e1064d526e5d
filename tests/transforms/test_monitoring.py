"""Measurements in the state: their values step by step, and a structure fixed from init on."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnopt

PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3), "epoch": 3, "none": None}


def gradients(step):
    rng = np.random.default_rng(step)
    return PARAMS | {"w": jnp.float32(rng.normal(size=(2, 3))), "b": jnp.full(3, step / 10)}


def norm_of(step):
    g = gradients(step)
    return np.sqrt(sum(np.sum(np.float64(g[k]) ** 2) for k in "wb"))


def is_long(updates):
    return fnopt.global_norm(updates) > 2.2


def largest(updates):
    return jax.tree.map(lambda u: jnp.max(jnp.abs(u)), updates)


def test_a_snapshot_is_of_the_updates_where_it_stands():
    optimizer = fnopt.chain(
        fnopt.snapshot("before", fnopt.global_norm),
        fnopt.clip_by_global_norm(0.5),
        fnopt.snapshot("after", fnopt.global_norm),
        fnopt.snapshot("largest", largest),
    )
    state = optimizer.init(PARAMS)
    assert fnopt.tree_get(state, "before") == 0
    for step in range(3):
        updates, state = optimizer.update(gradients(step), state, PARAMS)
        np.testing.assert_allclose(fnopt.tree_get(state, "before"), norm_of(step), rtol=1e-6)
        np.testing.assert_allclose(fnopt.tree_get(state, "after"), 0.5, rtol=1e-6)
        found = fnopt.tree_get(state, "largest")
        np.testing.assert_allclose(found["w"], np.abs(updates["w"]).max())
        assert found["epoch"] is None


@pytest.mark.parametrize("debias", [True, False])
def test_a_monitor_averages(debias):
    share = fnopt.measure_with_ema(is_long, 0.9, debias)
    monitor = fnopt.monitor({"norm": fnopt.global_norm, "share": share})
    optimizer = fnopt.chain(monitor, fnopt.adam(1e-3))
    state, average = optimizer.init(PARAMS), 0.0
    update = jax.jit(optimizer.update)
    steps = range(1, 22)
    assert 0 < sum(norm_of(step) > 2.2 for step in steps) < len(steps)
    for step in steps:
        _, state = update(gradients(step), state, PARAMS)
        average = 0.9 * average + 0.1 * (norm_of(step) > 2.2)
        wanted = average / (1 - 0.9**step) if debias else average
        np.testing.assert_allclose(fnopt.tree_get(state, "share"), wanted, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(fnopt.tree_get(state, "norm"), norm_of(step), rtol=1e-6)
    assert update._cache_size() == 1


def test_the_updates_pass_unchanged():
    monitor = fnopt.monitor({"norm": fnopt.global_norm})
    updates, _ = monitor.update(gradients(1), monitor.init(PARAMS))
    assert jax.tree.all(jax.tree.map(lambda a, b: jnp.array_equal(a, b), updates, gradients(1)))


def test_the_structure_is_fixed_where_optaxs_changes(standard_numerics):
    params = {"w": jnp.ones(3)}

    def structures(monitor):
        state = monitor.init(params)
        return jax.tree.structure(state), jax.tree.structure(monitor.update(params, state)[1])

    before, after = structures(fnopt.monitor({"norm": fnopt.global_norm}))
    assert before == after
    before, after = structures(optax.monitor({"norm": optax.tree.norm}))
    assert before != after, "optax is mended: say so in the docstring"


def test_optaxs_measure_may_be_monitored(standard_numerics):
    theirs = optax.measure_with_ema(optax.tree.norm, 0.9)  # of a bool its state changes dtype
    ours = fnopt.measure_with_ema(fnopt.global_norm, 0.9)
    monitor = fnopt.monitor({"theirs": theirs, "ours": ours})
    state = monitor.init(PARAMS)
    for step in range(4):
        _, state = monitor.update(gradients(step), state)
        one, two = fnopt.tree_get(state, "ours"), fnopt.tree_get(state, "theirs")
        np.testing.assert_allclose(one, two, rtol=1e-5)


def test_a_measure_that_needs_an_extra_argument_names_it():
    measure = fnopt.scale_by_polyak()
    with pytest.raises(TypeError, match="scale_by_polyak needs value"):
        fnopt.monitor({"step": measure}).init(PARAMS)


def test_measures_are_values():
    one, two = (fnopt.measure_with_ema(is_long, 0.9) for _ in range(2))
    assert one == two == pickle.loads(pickle.dumps(one)) == copy.copy(one)
    assert one != fnopt.measure_with_ema(is_long, 0.8)
    assert repr(one) == "measure_with_ema(measure=is_long, decay=0.9, debias=True)"
    assert fnopt.monitor({"a": one}) == fnopt.monitor({"a": two})
    assert repr(fnopt.monitor({"a": is_long, "b": one})) == (
        "monitor(measures={'a': is_long, 'b': measure_with_ema(measure=is_long, decay=0.9, "
        "debias=True)})"
    )


def test_a_decay_out_of_range():
    with pytest.raises(ValueError, match=r"measure_with_ema: decay must be in \[0, 1\), got 1"):
        fnopt.measure_with_ema(is_long, 1.0)
