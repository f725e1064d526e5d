"""fnopt in Flax linen's TrainState, Flax nnx's Optimizer and an Equinox loop."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from flax.training.train_state import TrainState

import fnopt

pytestmark = pytest.mark.usefixtures("standard_numerics")

X = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
Y = X @ np.arange(4, dtype=np.float32) + np.float32(1)


def optimizer():
    return fnopt.chain(fnopt.clip_by_global_norm(1.0), fnopt.adamw(0.05))


def mse(prediction):
    return jnp.mean((prediction.squeeze(-1) - Y) ** 2)


def test_linen_train_state():
    model = linen.Dense(1)
    state = TrainState.create(
        apply_fn=model.apply, params=model.init(jax.random.key(1), X)["params"], tx=optimizer()
    ).replace(step=jnp.zeros((), jnp.int32))  # flax starts with a Python int

    @jax.jit
    def step(state):
        loss, grads = jax.value_and_grad(lambda p: mse(state.apply_fn({"params": p}, X)))(
            state.params
        )
        return state.apply_gradients(grads=grads), loss

    losses = []
    for _ in range(30):
        state, loss = step(state)
        losses.append(float(loss))
    assert losses[-1] < 0.3 * losses[0]
    assert step._cache_size() == 1
    # equal by value: a state built by an equal call meets the same compiled step
    again = TrainState.create(apply_fn=model.apply, params=state.params, tx=optimizer())
    assert again.tx == state.tx


def test_nnx_optimizer():
    model = nnx.Linear(4, 1, rngs=nnx.Rngs(0))
    keeper = nnx.Optimizer(model, optimizer(), wrt=nnx.Param)

    @nnx.jit
    def step(model, keeper):
        loss, grads = nnx.value_and_grad(lambda m: mse(m(X)))(model)
        keeper.update(model, grads)
        return loss

    losses = [float(step(model, keeper)) for _ in range(30)]
    assert losses[-1] < 0.3 * losses[0]


def test_equinox_loop():
    model = eqx.nn.MLP(4, 1, 8, 1, activation=jax.nn.tanh, key=jax.random.key(2))
    rule = optimizer()
    state = rule.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(model, state):
        loss, grads = eqx.filter_value_and_grad(lambda m: mse(jax.vmap(m)(X)))(model)
        params = eqx.filter(model, eqx.is_inexact_array)
        updates, state = rule.update(grads, state, params)
        return eqx.apply_updates(model, updates), state, loss

    losses = []
    for _ in range(40):
        model, state, loss = step(model, state)
        losses.append(float(loss))
    assert losses[-1] < 0.3 * losses[0]


def test_a_whole_equinox_model_needs_no_filter():
    """Callables, None and integers in the tree are split off by the boundary."""
    model = eqx.nn.MLP(4, 1, 8, 1, activation=jax.nn.tanh, key=jax.random.key(2))
    rule = optimizer()
    state = rule.init(model)
    loss, grads = eqx.filter_value_and_grad(lambda m: mse(jax.vmap(m)(X)))(model)
    updates, state = rule.update(grads, state, model)
    moved = fnopt.apply_updates(model, updates)
    assert moved.activation is model.activation
    assert mse(jax.vmap(moved)(X)) < loss
    np.testing.assert_array_equal(fnopt.step_count(state), 1)
