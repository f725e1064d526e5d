"""`make_train_step`: the hand-written step is its oracle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnopt
from fnopt import mlp
from fnopt.training import TrainState, make_train_step
from fnopt.training.step import of_layers

X = np.random.RandomState(0).normal(size=(12, 5)).astype(np.float32)
Y = np.arange(12, dtype=np.int32) % 3


def loss_fn(params, batch):
    return mlp.loss(params, *batch)


def start(dtype=jnp.float32):
    return mlp.init(jax.random.key(0), (5, 4, 3), dtype=dtype)


def assert_equal_trees(a, b, **tolerance):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(
            np.asarray(x, np.float64), np.asarray(y, np.float64), **tolerance
        )


def test_a_step_is_the_step_written_by_hand():
    optimizer = fnopt.adam(1e-2)
    init, step = make_train_step(loss_fn, optimizer)
    state = init(start())
    params, opt_state = start(), optimizer.init(start())

    @jax.jit
    def by_hand(params, opt_state):
        loss, grads = jax.value_and_grad(loss_fn)(params, (X, Y))
        updates, opt_state = optimizer.update(grads, opt_state, params)
        norms = fnopt.global_norm(grads), fnopt.global_norm(updates)
        return fnopt.apply_updates(params, updates), opt_state, loss, *norms

    for i in range(3):
        state, metrics = step(state, (X, Y))
        params, opt_state, loss, grad_norm, update_norm = by_hand(params, opt_state)
        assert int(state.step) == i + 1
        np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
        np.testing.assert_allclose(metrics["grad_norm"], grad_norm, rtol=1e-5)
        np.testing.assert_allclose(metrics["update_norm"], update_norm, rtol=1e-5)
        np.testing.assert_allclose(metrics["learning_rate"], 1e-2, rtol=1e-6)
        assert set(metrics) == {"loss", "grad_norm", "update_norm", "learning_rate"}
    assert_equal_trees(state.params, params, rtol=1e-4, atol=1e-6)
    assert_equal_trees(state.optimizer_state, opt_state, rtol=1e-4, atol=1e-6)


def test_the_state_is_donated_and_the_callers_params_are_not():
    params = start()
    init, step = make_train_step(loss_fn, fnopt.adam(1e-2))
    state = init(params)
    step(state, (X, Y))
    moments = state.optimizer_state["scale_by_adam"]
    assert all(x.is_deleted() for x in jax.tree.leaves((state.params, state.step, moments)))
    assert np.isfinite(float(jnp.sum(params[0]["w"])))


def test_it_compiles_once():
    init, step = make_train_step(loss_fn, fnopt.adam(fnopt.Tunable(1e-2)))
    state = init(jax.tree.map(np.asarray, start()))
    for _ in range(3):
        state, _ = step(state, (X, Y))
    assert step._cache_size() == 1


def test_a_schedules_rate_is_the_one_used():
    rate = fnopt.schedules.linear_schedule(1.0, 0.0, 10)
    init, step = make_train_step(loss_fn, fnopt.sgd(rate))
    state = init(start())
    rates = []
    for _ in range(3):
        state, metrics = step(state, (X, Y))
        rates.append(float(metrics["learning_rate"]))
    np.testing.assert_allclose(rates, [1.0, 0.9, 0.8], rtol=1e-6)


def test_two_learning_rates_are_not_shown_as_one():
    optimizer = fnopt.named_chain(a=fnopt.sgd(0.1), b=fnopt.sgd(0.2))
    init, step = make_train_step(loss_fn, optimizer)
    assert "learning_rate" not in step(init(start()), (X, Y))[1]


def test_aux_is_in_the_metrics():
    def with_aux(params, batch):
        return loss_fn(params, batch), {"logits": mlp.apply(params, batch[0])}

    init, step = make_train_step(with_aux, fnopt.sgd(0.1), has_aux=True)
    _, metrics = step(init(start()), (X, Y))
    assert metrics["aux"]["logits"].shape == (12, 3)


@pytest.mark.parametrize("loss", [loss_fn, None])
def test_gradients_written_by_hand_take_the_place_of_autodiff(loss):
    def backprop(params, batch):
        return mlp.backprop(params, *batch)

    init, step = make_train_step(loss, fnopt.sgd(0.1), gradients=backprop)
    ours, metrics = step(init(start()), (X, Y))
    init, step = make_train_step(loss_fn, fnopt.sgd(0.1))
    theirs, expected = step(init(start()), (X, Y))
    assert_equal_trees(ours.params, theirs.params, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=1e-6)


def test_gradients_may_come_with_aux():
    def gradients(params, batch):
        loss, grads = mlp.backprop(params, *batch)
        return (loss, {"twice": 2 * loss}), grads

    init, step = make_train_step(None, fnopt.sgd(0.1), has_aux=True, gradients=gradients)
    _, metrics = step(init(start()), (X, Y))
    np.testing.assert_allclose(metrics["aux"]["twice"], 2 * metrics["loss"])


@pytest.mark.parametrize("has_aux", [False, True])
def test_the_update_is_given_the_value_the_gradient_and_the_function(has_aux):
    @fnopt.gradient_transformation
    def needs_all():
        def update(updates, state, params, *, value, grad, value_fn):
            same = jax.tree.map(lambda u, g: u - g, updates, grad)
            again = value_fn(params) - value
            return jax.tree.map(lambda x: x + again, same), state

        return lambda params: (), update

    def loss(params, batch):
        value = loss_fn(params, batch)
        return (value, {}) if has_aux else value

    init, step = make_train_step(loss, needs_all(), has_aux=has_aux)
    state, _ = step(init(start()), (X, Y))
    assert_equal_trees(state.params, start(), atol=1e-6)


@pytest.mark.parametrize(
    "optimizer",
    [
        fnopt.sophia(0.1, update_interval=2),
        fnopt.chain(fnopt.clip(0.1), fnopt.adahessian(0.1)),
        fnopt.momo(1.0),
        fnopt.polyak_sgd(0.5),
    ],
    ids=lambda optimizer: optimizer.name,
)
def test_what_an_optimizer_reads_is_given(optimizer):
    key = jax.random.key(7)
    init, step = make_train_step(loss_fn, optimizer, key=key)
    state = init(start())
    params, opt_state = start(), optimizer.init(start())

    @jax.jit
    def by_hand(params, opt_state, i):
        value, grads = jax.value_and_grad(loss_fn)(params, (X, Y))
        own = jax.random.fold_in(key, i)
        extras = {"value": value}
        if optimizer.name == "sophia":
            extras |= {"key": own, "obj_fn": lambda p: loss_fn(p, (X, Y))}
        if optimizer.name == "chain":
            diagonal = fnopt.hutchinson(lambda p: loss_fn(p, (X, Y)), params, own)
            extras |= {"hessian": diagonal}
        updates, opt_state = optimizer.update(grads, opt_state, params, **extras)
        return fnopt.apply_updates(params, updates), opt_state

    for i in range(4):
        state, _ = step(state, (X, Y))
        params, opt_state = by_hand(params, opt_state, i)
    assert_equal_trees(state.params, params, rtol=1e-4, atol=1e-5)
    assert step._cache_size() == 1


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [(fnopt.sophia(0.1), "needs key="), (fnopt.adahessian(0.1), "needs hessian=")],
    ids=["sophia", "adahessian"],
)
def test_what_needs_a_key_says_so(optimizer, message):
    init, step = make_train_step(loss_fn, optimizer)
    with pytest.raises(TypeError, match=message):
        step(init(start()), (X, Y))


def test_single_examples_gradients_are_clipped_one_by_one():
    clip, params = 0.3, start()
    init, step = make_train_step(loss_fn, fnopt.dpsgd(0.5, clip, 0.0, seed=0))
    state, metrics = step(init(params), (X, Y))
    clipped, gradient_of = [], jax.jit(jax.grad(loss_fn))
    for x, y in zip(X, Y):
        gradient = jax.tree.map(np.asarray, gradient_of(params, (x[None], y[None])))
        norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(gradient)))
        factor = min(1.0, clip / float(norm))
        clipped.append(jax.tree.map(lambda g, f=factor: np.float32(f) * g, gradient))
    expected = jax.tree.map(
        lambda p, *g: np.asarray(p) - np.float32(0.5 / len(g)) * sum(g), params, *clipped
    )
    assert_equal_trees(state.params, expected, rtol=1e-5, atol=1e-6)
    whole, gradient = jax.value_and_grad(loss_fn)(params, (X, Y))
    np.testing.assert_allclose(metrics["loss"], whole, rtol=1e-6)
    np.testing.assert_allclose(metrics["grad_norm"], fnopt.global_norm(gradient), rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_single_examples_unclipped_are_the_batch(dtype):
    def backprop(params, batch):
        loss, gradients = mlp.backprop(params, *batch)
        return (loss, {"loss": loss}), gradients

    init, step = make_train_step(
        None, fnopt.dpsgd(0.5, 1e9, 0.0, seed=0), has_aux=True, gradients=backprop
    )
    state, metrics = step(init(start(dtype)), (X, Y))
    plain_init, plain_step = make_train_step(loss_fn, fnopt.sgd(0.5))
    other, _ = plain_step(plain_init(start(dtype)), (X, Y))
    rtol, atol = (1e-5, 1e-6) if dtype == jnp.float32 else (1e-2, 1e-3)
    assert_equal_trees(state.params, other.params, rtol=rtol, atol=atol)
    np.testing.assert_allclose(metrics["aux"]["loss"], metrics["loss"], rtol=1e-6)


def test_the_unjitted_step_scans():
    init, step = pair = make_train_step(loss_fn, fnopt.momentum(0.1))
    state = init(start())
    for _ in range(4):
        state, _ = step(state, (X, Y))

    @jax.jit
    def scanned(state):
        return jax.lax.scan(lambda s, _: pair.unjitted(s, (X, Y)), state, length=4)

    other, metrics = scanned(init(start()))
    assert isinstance(other, TrainState)
    assert metrics["loss"].shape == (4,)
    assert_equal_trees(other.params, state.params, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["adam", "sgd", "adamw", "lookahead", "schedule_free", "polyak", "chain", "plateau"]
)
def test_optax_works_too(name, standard_numerics):
    import optax
    import optax.contrib

    optimizer = {
        "adam": lambda: optax.adam(1e-2),
        "sgd": lambda: optax.sgd(optax.linear_schedule(0.1, 0.0, 5), momentum=0.9),
        "adamw": lambda: optax.adamw(1e-2),
        "lookahead": lambda: optax.chain(optax.ema(0.9), optax.sgd(0.1)),
        "schedule_free": lambda: optax.contrib.schedule_free_adamw(1e-2),
        "polyak": lambda: optax.polyak_sgd(),
        "chain": lambda: fnopt.chain(fnopt.clip_by_global_norm(1.0), optax.adam(1e-2)),
        "plateau": lambda: optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau()),
    }[name]()
    init, step = make_train_step(loss_fn, optimizer)
    state = init(start())
    losses = []
    for _ in range(5):
        state, metrics = step(state, (X, Y))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0]
    assert step._cache_size() == 1


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_dtypes_stay(dtype):
    init, step = make_train_step(loss_fn, fnopt.adamw(1e-2))
    state = init(start(dtype))
    before = jax.tree.map(lambda x: (x.shape, x.dtype), state)
    for _ in range(2):
        state, metrics = step(state, (X, Y))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == before
    assert metrics["loss"].dtype == jnp.float32


def test_double_precision(x64):
    init, step = make_train_step(loss_fn, fnopt.adam(1e-2))
    state, metrics = step(init(start(jnp.float64)), (X.astype(np.float64), Y))
    assert state.params[0]["w"].dtype == jnp.float64
    assert metrics["loss"].dtype == jnp.float64


def test_leaves_that_are_not_trained_stay():
    params = {"w": jnp.ones(3), "n": jnp.arange(2), "nothing": None}

    def loss(params, batch):
        return jnp.sum(params["w"] ** 2) * batch

    init, step = make_train_step(loss, fnopt.sgd(0.1))
    state, metrics = step(init(params), jnp.float32(1))
    np.testing.assert_array_equal(state.params["n"], [0, 1])
    assert state.params["nothing"] is None
    np.testing.assert_allclose(state.params["w"], 0.8 * np.ones(3), rtol=1e-6)
    np.testing.assert_allclose(metrics["grad_norm"], 2 * np.sqrt(3), rtol=1e-6)


def test_mistakes_are_named():
    with pytest.raises(TypeError, match="transformation"):
        make_train_step(loss_fn, "adam")
    with pytest.raises(TypeError, match="loss_fn or gradients"):
        make_train_step(None, fnopt.sgd(0.1))
    init, step = make_train_step(
        lambda p, b: jnp.sum(p["w"], keepdims=True),
        fnopt.sgd(0.1),
        gradients=lambda p, b: (jnp.ones(2), p),
    )
    with pytest.raises(TypeError, match="scalar"):
        step(init({"w": jnp.ones(3)}), None)


def test_numbers_of_each_layer():
    grads = {"w": jnp.array([3.0, 4.0]), "zero": jnp.zeros(2), "none": None}
    updates = {"w": jnp.array([0.0, 0.5]), "zero": jnp.zeros(2), "none": None}
    params = {"w": jnp.array([6.0, 8.0]), "zero": jnp.zeros(2), "none": None}
    found = of_layers(grads, updates, params)
    wanted = {"grad_norm": 5.0, "update_norm": 0.5, "update_ratio": 0.05, "effective_rate": 0.1}
    for metric, value in wanted.items():
        np.testing.assert_allclose(found[f"{metric}/w"], value, rtol=1e-6)
        assert found[f"{metric}/zero"] == 0
    assert len(found) == 8
