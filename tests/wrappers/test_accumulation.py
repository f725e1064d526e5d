import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnopt
from fnopt.bench import trees
from fnopt.bench.counts import count
from fnopt.testing.oracles import trial


def descend(optimizer, micro_batches, weights=None, steps=None):
    """The params after each call; `weights` are given to `update`."""
    params, gradients = trial(steps=micro_batches)
    params = {k: jnp.asarray(p, jnp.float32) for k, p in params.items()}
    state, step = optimizer.init(params), jax.jit(optimizer.update)
    for i, gradient in enumerate(gradients):
        extras = {} if weights is None else {"weight": weights[i]}
        gradient = {k: jnp.asarray(g, jnp.float32) for k, g in gradient.items()}
        updates, state = step(gradient, state, params, **extras)
        params = fnopt.apply_updates(params, updates)
        yield params, state, updates


def large_batches(optimizer, micro_batches, k, weights=None):
    """The same steps from means that are taken outside."""
    params, gradients = trial(steps=micro_batches)
    params = {n: jnp.asarray(p, jnp.float32) for n, p in params.items()}
    weights = np.ones(micro_batches) if weights is None else np.asarray(weights)
    state = optimizer.init(params)
    for start in range(0, micro_batches, k):
        w = weights[start : start + k]
        mean = {
            n: jnp.asarray(
                sum(a * g[n] for a, g in zip(w, gradients[start : start + k])) / w.sum(),
                jnp.float32,
            )
            for n in params
        }
        updates, state = optimizer.update(mean, state, params)
        params = fnopt.apply_updates(params, updates)
    return params


OPTIMIZERS = [
    fnopt.adamw(0.1, weight_decay=0.1),
    fnopt.chain(fnopt.clip_by_global_norm(0.5), fnopt.sgd(fnopt.linear_schedule(1.0, 0.0, 5))),
    fnopt.adafactor(0.1),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: o.name)
@pytest.mark.parametrize("weights", [None, [1.0, 3.0, 2.0, 0.0] * 5], ids=["plain", "weighted"])
def test_it_equals_the_large_batch(optimizer, weights):
    small = list(descend(fnopt.accumulate(optimizer, 4, weight=weights is not None), 20, weights))
    wanted = large_batches(optimizer, 20, 4, weights)
    for k, p in wanted.items():
        np.testing.assert_allclose(small[-1][0][k], p, rtol=1e-6, atol=1e-6)
    still = [not any(u.any() for u in updates.values()) for _, _, updates in small]
    assert still == [True, True, True, False] * 5
    assert fnopt.tree_get(small[-1][1], "mini_step") == 0
    assert small[-1][1].count == 5


def test_multi_steps_agrees_with_optax(standard_numerics):
    peer = optax.MultiSteps(optax.adam(0.1), 3).gradient_transformation()
    ours = list(descend(fnopt.MultiSteps(fnopt.adam(0.1), 3), 9))[-1][0]
    theirs = list(descend(peer, 9))[-1][0]
    for k, p in theirs.items():
        np.testing.assert_allclose(ours[k], p, rtol=1e-5, atol=5e-6)
    total = list(descend(fnopt.MultiSteps(optax.sgd(0.1), 3, use_grad_mean=False), 3))[-1][0]
    mean = list(descend(fnopt.MultiSteps(fnopt.sgd(0.3), 3), 3))[-1][0]
    for k, p in mean.items():
        np.testing.assert_allclose(total[k], p, rtol=1e-5, atol=1e-6)


def test_k_as_a_function_of_the_steps_made():
    growing = fnopt.accumulate(fnopt.sgd(0.1), lambda count: jnp.where(count < 2, 1, 3))
    updated = [bool(fnopt.has_updated(state)) for _, state, _ in descend(growing, 8)]
    assert updated == [True, True, False, False, True, False, False, True]


def test_one_costs_nothing():
    optimizer = fnopt.adamw(0.1)
    tree = trees.transformer(layers=1, width=16)
    assert count(fnopt.accumulate(optimizer, 1), tree)[:3] == count(optimizer, tree)[:3]


def test_at_most_one_copy_of_the_params_is_temporary(standard_numerics):
    found = count(fnopt.accumulate(fnopt.adamw(0.1), 4), trees.transformer(layers=2))
    peer = optax.MultiSteps(optax.adamw(0.1), 4).gradient_transformation()
    theirs = count(peer, trees.transformer(layers=2), optax.apply_updates)
    assert found.temporary <= 4.1 < theirs.temporary
    assert found.bytes <= 64.1 < theirs.bytes


def test_flush_steps_on_what_is_gathered():
    optimizer = fnopt.chain(fnopt.accumulate(fnopt.sgd(1.0), 4))
    params = {"w": jnp.zeros(2), "n": 3}
    state = optimizer.init(params)
    nothing, same = fnopt.flush(optimizer, state, params)
    assert not nothing["w"].any()
    assert fnopt.tree_get(same, "gathered")["w"].tolist() == [0, 0]
    for g in (1.0, 3.0):
        _, state = optimizer.update({"w": jnp.full(2, g), "n": 3}, state, params)
    updates, state = fnopt.flush(optimizer, state, params)
    np.testing.assert_array_equal(updates["w"], -2.0)
    assert fnopt.has_updated(state)
    again, _ = fnopt.flush(optimizer, state, params)
    assert not again["w"].any()
    with pytest.raises(TypeError, match="unknown extra argument 'flush'"):
        fnopt.flush(fnopt.sgd(1.0), fnopt.sgd(1.0).init(params), params)


def test_skipped_micro_batches_leave_no_trace():
    optimizer = fnopt.MultiSteps(fnopt.sgd(1.0), 2, should_skip_update_fn=fnopt.skip_not_finite)
    params = jnp.zeros(2)
    state, step = optimizer.init(params), jax.jit(optimizer.update)
    for g, update, number in ((1.0, 0, 0), (jnp.nan, 0, 2), (3.0, -2, 0), (5.0, 0, 0)):
        updates, state = step(jnp.full(2, g), state, params)
        np.testing.assert_array_equal(updates, update)
        assert fnopt.tree_get(state, "num_not_finite") == number
    large = functools.partial(fnopt.skip_large_updates, max_squared_norm=4.0)
    optimizer = fnopt.MultiSteps(fnopt.sgd(1.0), 1 + 1, should_skip_update_fn=large)
    state = optimizer.init(params)
    for g, skipped in ((1.0, False), (2.0, True), (jnp.nan, True)):
        _, state = optimizer.update(jnp.full(2, g), state, params)
        assert bool(fnopt.tree_get(state, "should_skip")) == skipped


def test_mistakes_are_named():
    for every in (0, -1):
        with pytest.raises(ValueError, match="every must be at least 1"):
            fnopt.accumulate(fnopt.sgd(1.0), every)
    with pytest.raises(TypeError, match="every must be an int or a function"):
        fnopt.accumulate(fnopt.sgd(1.0), 2.5)
    weighted = fnopt.accumulate(fnopt.sgd(1.0), 2, weight=True)
    with pytest.raises(TypeError, match="accumulate needs weight="):
        weighted.update(jnp.ones(2), weighted.init(jnp.ones(2)))


def test_extra_arguments_reach_the_optimizer():
    optimizer = fnopt.accumulate(fnopt.polyak_sgd(), 2)
    params = jnp.full(2, 2.0)
    state = optimizer.init(params)
    for value in (3.0, 0.5):
        updates, state = optimizer.update(params, state, params, value=value)
    np.testing.assert_allclose(updates, -params * 0.5 / 8, rtol=1e-6)
