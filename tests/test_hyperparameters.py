import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnopt
from fnopt import Tunable

PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}
GRADS = {"w": jnp.full((2, 3), 0.5), "b": jnp.ones(3)}


def test_the_rate_is_always_readable():
    state = fnopt.adam(1e-3).init(PARAMS)
    np.testing.assert_allclose(fnopt.hyperparameters(state)["learning_rate"], 1e-3, rtol=1e-6)


def test_constant_and_scheduled_rates_share_a_treedef():
    constant = fnopt.adam(1e-3).init(PARAMS)
    scheduled = fnopt.adam(fnopt.schedules.cosine_decay_schedule(1e-3, 10)).init(PARAMS)
    assert jax.tree.structure(constant) == jax.tree.structure(scheduled)


def test_the_schedule_sees_the_updates_made_before():
    optimizer = fnopt.sgd(lambda count: 1.0 / (1 + count.astype(jnp.float32)))
    state = optimizer.init(PARAMS)
    seen = []
    for _ in range(3):
        updates, state = optimizer.update(GRADS, state, PARAMS)
        seen.append(float(fnopt.hyperparameters(state)["learning_rate"]))
        np.testing.assert_allclose(updates["b"], -seen[-1])
    np.testing.assert_allclose(seen, [1.0, 0.5, 1 / 3], rtol=1e-6)
    assert fnopt.step_count(state) == 3


def test_a_tunable_changes_without_a_second_compile():
    optimizer = fnopt.chain(
        fnopt.clip_by_global_norm(Tunable(10.0)),
        fnopt.adamw(Tunable(0.1), b1=Tunable(0.9), weight_decay=Tunable(0.0)),
    )
    step = jax.jit(lambda s: optimizer.update(GRADS, s, PARAMS))
    state = optimizer.init(PARAMS)
    one, state = step(state)
    state = fnopt.set_hyperparameters(state, learning_rate=0.2, max_norm=20.0)
    two, state = step(state)
    assert step._cache_size() == 1
    assert fnopt.hyperparameters(state).keys() == {
        "learning_rate",
        "b1",
        "weight_decay",
        "max_norm",
    }
    np.testing.assert_allclose(two["b"], 2 * one["b"], rtol=2e-2)
    assert set(fnopt.hyperparameters(state)) == {"max_norm", "learning_rate", "b1", "weight_decay"}


def test_a_change_that_could_not_take_effect_is_an_error():
    state = fnopt.adam(1e-3).init(PARAMS)
    with pytest.raises(ValueError, match="fixed by a number or a schedule"):
        fnopt.set_hyperparameters(state, learning_rate=1e-4)
    with pytest.raises(ValueError, match="no 'b1' in this state; known here: learning_rate"):
        fnopt.set_hyperparameters(state, b1=0.5)
    state = fnopt.adam(Tunable(1e-3)).init(PARAMS)
    with pytest.raises(ValueError, match="must not be NaN"):
        fnopt.set_hyperparameters(state, learning_rate=float("nan"))
    with pytest.raises(ValueError, match="has shape"):
        fnopt.set_hyperparameters(state, learning_rate=jnp.ones(3))


def test_a_name_that_occurs_twice_is_told_apart_by_its_place():
    optimizer = fnopt.named_chain(one=fnopt.scale(Tunable(2.0)), two=fnopt.scale(Tunable(3.0)))
    state = optimizer.init(PARAMS)
    assert set(fnopt.hyperparameters(state)) == {"one/step_size", "two/step_size"}
    with pytest.raises(ValueError, match="it occurs several times"):
        fnopt.set_hyperparameters(state, step_size=1.0)
    state = fnopt.set_hyperparameters(state, **{"two/step_size": 5.0})
    updates, _ = optimizer.update(GRADS, state)
    np.testing.assert_allclose(updates["b"], 10.0)


def test_never_rounded_to_the_params_dtype():
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    optimizer = fnopt.adam(1e-3, b2=Tunable(0.999), eps=Tunable(1e-8))
    state = optimizer.init(params)
    assert fnopt.hyperparameters(state)["b2"].dtype == jnp.float32
    updates, _ = optimizer.update(GRADS, state, params)
    np.testing.assert_allclose(updates["b"], -1e-3, rtol=1e-4)


def test_a_population_under_vmap():
    optimizer = fnopt.sgd(Tunable(0.0), momentum=0.9)
    rates = jnp.array([0.1, 0.2, 0.4])

    def start(rate):
        return fnopt.set_hyperparameters(optimizer.init(PARAMS), learning_rate=rate)

    states = jax.vmap(start)(rates)
    step = jax.vmap(lambda s: optimizer.update(GRADS, s, PARAMS))
    updates, states = step(states)
    np.testing.assert_allclose(updates["b"][:, 0], -rates)
    states = fnopt.set_hyperparameters(states, learning_rate=2 * rates)
    updates, states = step(states)
    np.testing.assert_allclose(updates["b"][:, 0], -2 * rates * 1.9, rtol=1e-6)


def test_derivatives_with_respect_to_hyperparameters():
    optimizer = fnopt.sgd(Tunable(0.1))

    def moved(rate):
        state = fnopt.set_hyperparameters(optimizer.init(PARAMS), learning_rate=rate)
        return optimizer.update(GRADS, state, PARAMS)[0]["b"].sum()

    np.testing.assert_allclose(jax.grad(moved)(0.1), -3.0)
    np.testing.assert_allclose(
        jax.grad(lambda r: fnopt.sgd(r).update(GRADS, fnopt.sgd(r).init(PARAMS))[0]["b"].sum())(
            0.1
        ),
        -3.0,
    )


def test_a_schedule_must_return_a_scalar():
    with pytest.raises(ValueError, match="must return a scalar"):
        fnopt.sgd(lambda count: jnp.ones(2)).init(PARAMS)


def test_the_name_is_the_one_that_the_user_gave():
    """`sgd(momentum=...)` hands it to `trace(decay=...)`; the state still says momentum."""
    optimizer = fnopt.rmsprop(0.1, decay=Tunable(0.9), momentum=Tunable(0.5))
    state = optimizer.init(PARAMS)
    assert set(fnopt.hyperparameters(state)) == {"learning_rate", "decay", "momentum"}
    state = fnopt.set_hyperparameters(state, momentum=0.0)
    other = fnopt.rmsprop(0.1)
    for _ in range(3):
        ours, state = optimizer.update(GRADS, state, PARAMS)
    plain = other.init(PARAMS)
    for _ in range(3):
        theirs, plain = other.update(GRADS, plain, PARAMS)
    np.testing.assert_allclose(ours["b"], theirs["b"], rtol=1e-5)
    assert repr(optimizer).startswith("rmsprop(learning_rate=0.1, decay=Tunable(value=0.9)")


def test_values_in_the_state_have_the_default_float_dtype(x64):
    state = fnopt.adam(fnopt.Tunable(0.1)).init({"w": np.ones(2, np.float32)})
    rate = fnopt.hyperparameters(state)["learning_rate"]
    assert rate.dtype == np.float64
    assert rate == 0.1


def test_a_changed_value_stays_on_its_mesh():
    mesh = jax.make_mesh((8,), ("data",))
    place = jax.sharding.NamedSharding(mesh, jax.P("data"))
    params = {"w": jax.device_put(np.ones(8, np.float32), place)}
    state = fnopt.adam(fnopt.Tunable(0.1)).init(params)
    before = fnopt.hyperparameters(state)["learning_rate"]
    state = fnopt.set_hyperparameters(state, learning_rate=0.2)
    after = fnopt.hyperparameters(state)["learning_rate"]
    assert after.sharding == before.sharding
    assert after.committed == before.committed
    assert after.devices() == set(jax.devices())
