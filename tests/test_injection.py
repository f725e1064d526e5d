"""`inject_hyperparams` under its familiar name."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnopt
from fnopt import Tunable, inject_hyperparams

PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}
GRADS = {"w": jnp.full((2, 3), 0.5), "b": jnp.ones(3)}


def test_every_number_becomes_tunable():
    optimizer = inject_hyperparams(fnopt.adam)(1e-3, b1=0.8)
    kinds = {"b1": Tunable(0.8), "b2": Tunable(0.999), "eps": Tunable(1e-8)}
    assert optimizer == fnopt.adam(Tunable(1e-3), **kinds, eps_root=Tunable(0.0))
    known = fnopt.hyperparameters(optimizer.init(PARAMS))
    assert set(known) == {"learning_rate", "b1", "b2", "eps", "eps_root"}
    np.testing.assert_allclose(known["b1"], 0.8)


def test_a_change_takes_effect_without_a_second_compile():
    optimizer = inject_hyperparams(fnopt.sgd)(0.1)
    traced = []

    @jax.jit
    def update(grads, state, params):
        traced.append(grads)
        return optimizer.update(grads, state, params)

    _, state = update(GRADS, optimizer.init(PARAMS), PARAMS)
    changed = fnopt.set_hyperparameters(state, learning_rate=0.3)
    np.testing.assert_allclose(update(GRADS, changed, PARAMS)[0]["b"], -0.3)
    np.testing.assert_allclose(update(GRADS, state, PARAMS)[0]["b"], -0.1)
    assert len(traced) == 1


def test_schedules_and_what_is_no_number_stay():
    schedule = fnopt.linear_schedule(1.0, 0.0, 10)
    optimizer = inject_hyperparams(fnopt.sgd)(schedule, momentum=0.9, nesterov=True)
    assert optimizer == fnopt.sgd(schedule, Tunable(0.9), nesterov=True)
    assert inject_hyperparams(fnopt.sgd)(0.1) == fnopt.sgd(Tunable(0.1))  # momentum is None
    read_once = inject_hyperparams(fnopt.adagrad)(0.1, initial_accumulator_value=0.5)
    assert "initial_accumulator_value" not in fnopt.hyperparameters(read_once.init(PARAMS))


def test_static_arguments_stay_numbers():
    for static in ("b1", ["b1"], ("b1",)):
        optimizer = inject_hyperparams(fnopt.adam, static)(1e-3, b1=0.0)
        assert fnopt.tree_get(optimizer.init(PARAMS), "mu") is None
    with pytest.raises(ValueError, match="adam has no argument 'beta1'; it has learning_rate"):
        inject_hyperparams(fnopt.adam, "beta1")


def test_a_mistake_is_the_factorys_own():
    with pytest.raises(ValueError, match=r"adam: b1 must be in \[0, 1\), got 1.5"):
        inject_hyperparams(fnopt.adam)(1e-3, b1=1.5)
    with pytest.raises(TypeError, match="adam: got an unexpected keyword"):
        inject_hyperparams(fnopt.adam)(1e-3, beta1=0.5)


def test_a_foreign_factory_has_a_clear_answer(standard_numerics):
    with pytest.raises(TypeError, match="adam does not tell .* put optax.inject_hyperparams"):
        inject_hyperparams(optax.adam)
    optimizer = fnopt.chain(fnopt.clip(1.0), optax.inject_hyperparams(optax.sgd)(0.1))
    updates, _ = optimizer.update(GRADS, optimizer.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["b"], -0.1)
