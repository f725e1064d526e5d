import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnopt
from fnopt.training.data import load_digits

PARAMS = {"w": np.ones(3, np.float32), "b": np.float32(0)}


def gradient(value):
    return {"w": np.float32([0.1, value, 0.1]), "b": np.float32(0.1)}


def run(optimizer, gradients, params=PARAMS, **extras):
    @jax.jit
    def step(g, state, params, **given):
        updates, state = optimizer.update(g, state, params, **given)
        return updates, state, fnopt.apply_updates(params, updates)

    params = jax.tree.map(jnp.asarray, params)
    state = optimizer.init(params)
    for i, g in enumerate(gradients):
        given = {name: values[i] for name, values in extras.items()}
        updates, state, params = step(g, state, params, **given)
        yield params, state, updates


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize("rule", [fnopt.adam(0.1), optax.adam(0.1)], ids=["fnopt", "optax"])
def test_what_is_rejected_is_never_written(rule, bad, standard_numerics):
    good = [gradient(0.1), gradient(0.2)]
    clean = list(run(fnopt.guard(rule), good))[-1]
    steps = list(run(fnopt.guard(rule), [good[0], gradient(bad), good[1]]))
    assert not any(u.any() for u in steps[1][2].values())
    jax.tree.map(np.testing.assert_array_equal, steps[1][1].inner, steps[0][1].inner)
    jax.tree.map(np.testing.assert_array_equal, steps[2][0], clean[0])
    assert [int(s.rejected) for _, s, _ in steps] == [0, 1, 1]
    assert [int(s.consecutive) for _, s, _ in steps] == [0, 1, 0]
    assert int(steps[-1][1].count) == 2


def test_a_rule_that_breaks_by_itself_is_caught():
    root = fnopt.stateless_with_tree_map(lambda u, p: jnp.sqrt(u))
    updates = next(run(fnopt.guard(root), [gradient(-1.0)]))[2]
    assert not updates["w"].any()

    @fnopt.gradient_transformation
    def overflow():
        def update(updates, state):
            return updates, jax.tree.map(lambda s, u: s * 1e30 + u, state, updates)

        return lambda params: jax.tree.map(lambda p: jnp.full_like(p, 1e10), params), update

    _, state, _ = next(run(fnopt.guard(overflow()), [gradient(0.1)]))
    assert state.rejected == 1
    np.testing.assert_array_equal(state.inner["w"], np.float32(1e10))


def test_spikes_of_the_gradient_and_of_the_loss():
    rng = np.random.default_rng(0)
    sizes = rng.normal(1.0, 0.1, 60)
    sizes[40], sizes[50] = 3.0, 1.0
    losses = rng.normal(2.0, 0.1, 60)
    losses[50] = 4.0
    gradients = [{"w": np.full(3, s, np.float32), "b": np.float32(0)} for s in sizes]
    optimizer = fnopt.guard(fnopt.sgd(0.01), spike=6.0)
    values = jnp.asarray(losses, jnp.float32)
    rejected = [int(s.rejected) for _, s, _ in run(optimizer, gradients, value=values)]
    assert np.flatnonzero(np.diff(rejected)).tolist() == [39, 49]
    without = list(run(optimizer, gradients))[-1][1]
    assert without.rejected == 1


def test_on_limit():
    bad, good = gradient(jnp.nan), gradient(0.1)
    halting = fnopt.guard(fnopt.sgd(0.1), max_consecutive=2)
    states = [s for _, s, _ in run(halting, [bad, bad, good, bad, bad, bad, good])]
    assert [bool(s.halted) for s in states] == [False] * 5 + [True] * 2
    assert int(states[-1].count) == 1
    accepting = fnopt.guard(fnopt.sgd(0.1), max_consecutive=2, on_limit="accept")
    params, state, _ = list(run(accepting, [bad, bad, bad]))[-1]
    assert jnp.isnan(params["w"][1])
    assert (int(state.forced), int(state.rejected)) == (1, 2)
    resetting = fnopt.guard(fnopt.trace(0.9), max_consecutive=2, on_limit="reset")
    states = [s for _, s, _ in run(resetting, [good, bad, bad, bad])]
    assert [bool(fnopt.tree_get(s, "trace")["b"] == 0) for s in states] == [False] * 3 + [True]
    with pytest.raises(ValueError, match="on_limit must be one of halt, accept, reset"):
        fnopt.guard(fnopt.sgd(0.1), on_limit="stop")


def test_apply_if_finite_says_when_it_gives_in(standard_numerics):
    optimizer = fnopt.apply_if_finite(fnopt.sgd(0.1), 1)
    states = [s for _, s, _ in run(optimizer, [gradient(jnp.inf)] * 3)]
    assert [int(s.forced) for s in states] == [0, 1, 1]
    peer = optax.apply_if_finite(optax.sgd(0.1), 1)
    theirs = [s for _, s, _ in run(peer, [gradient(jnp.inf)] * 2)]
    assert not np.isfinite(list(run(peer, [gradient(jnp.inf)] * 2))[-1][0]["w"]).all()
    assert len(theirs) == 2


def test_dynamic_loss_scale():
    optimizer = fnopt.dynamic_loss_scale(fnopt.sgd(1.0), initial_scale=8.0, growth_interval=2)
    scaled = [gradient(0.1), gradient(jnp.inf), gradient(0.1), gradient(0.1), gradient(0.1)]
    steps = list(run(optimizer, scaled))
    assert [float(fnopt.loss_scale(s)) for _, s, _ in steps] == [8, 4, 4, 8, 8]
    np.testing.assert_allclose(steps[0][2]["b"], -0.1 / 8, rtol=1e-6)
    np.testing.assert_allclose(steps[2][2]["b"], -0.1 / 4, rtol=1e-6)
    assert not steps[1][2]["w"].any()
    assert int(steps[-1][1].rejected) == 1


def test_float16_gradients_that_would_vanish():
    params = {"w": jnp.ones(3, jnp.float16)}
    x = jnp.full(3, 1e-4, jnp.float16)

    def loss(params, scale):
        return jnp.sum((params["w"] * x) * jnp.float16(1e-4) * scale.astype(jnp.float16))

    optimizer = fnopt.dynamic_loss_scale(fnopt.sgd(1.0), initial_scale=2.0**10)
    state = optimizer.init(params)
    g = jax.grad(loss)(params, fnopt.loss_scale(state))
    updates, _ = optimizer.update(g, state, params)
    np.testing.assert_allclose(updates["w"], -1e-8, rtol=0.02)


def poisoned(rng, gradients, kind):
    leaves, treedef = jax.tree.flatten(gradients)
    i = rng.integers(len(leaves))
    leaf = np.array(leaves[i])
    entry = rng.integers(leaf.size)
    if kind == "bit flip":
        bits = leaf.reshape(-1).view(np.uint32)
        bits[entry] ^= np.uint32(1) << np.uint32(30)
    else:
        leaf.reshape(-1)[entry] = float(kind)
    leaves[i] = jnp.asarray(leaf)
    return jax.tree.unflatten(treedef, leaves)


def test_poisoned_digits_end_where_the_clean_run_does():
    data = load_digits()
    x, y = jnp.asarray(data.x_train), jnp.asarray(data.y_train)
    test_x, test_y = jnp.asarray(data.x_test), jnp.asarray(data.y_test)
    start = fnopt.mlp.init(jax.random.key(0), (x.shape[1], 32, 10))
    grad = jax.jit(jax.value_and_grad(fnopt.mlp.loss))

    def accuracy(optimizer, poison):
        rng, params = np.random.default_rng(0), start
        state, step = optimizer.init(params), jax.jit(optimizer.update)
        for _ in range(400):
            rows = rng.integers(0, len(x), 64)
            value, gradients = grad(params, x[rows], y[rows])
            if poison and rng.random() < 0.15:
                kind = rng.choice(["nan", "inf", "1e20", "bit flip"])
                gradients = poisoned(rng, gradients, kind)
            updates, state = step(gradients, state, params, value=value)
            params = fnopt.apply_updates(params, updates)
        right = jnp.argmax(fnopt.mlp.apply(params, test_x), axis=-1) == test_y
        return float(right.mean()), state

    adam = fnopt.adam(3e-3)
    clean, _ = accuracy(adam, False)
    guarded, state = accuracy(fnopt.guard(adam, spike=8.0), True)
    assert clean > 0.93
    assert guarded > clean - 0.01
    assert int(state.rejected) > 20
    broken, _ = accuracy(adam, True)
    assert broken < 0.5


def test_a_rejected_step_leaves_the_mean_of_norms():
    optimizer = fnopt.guard(fnopt.sgd(0.1), spike=2.0)
    params = {"w": jnp.ones(3)}
    state = optimizer.init(params)
    for _ in range(30):
        _, state = optimizer.update({"w": jnp.ones(3)}, state, params)
    _, after = optimizer.update({"w": jnp.full(3, 1e3)}, state, params)
    assert after.rejected == state.rejected + 1
    for was, now in zip(state.norms, after.norms):
        np.testing.assert_array_equal(was, now)
