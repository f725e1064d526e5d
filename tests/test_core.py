import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnopt
from fnopt import tree
from fnopt.hyperparameters import Decay, LearningRate, Positive
from fnopt.rule import Rule, inside


def params_of(dtype=jnp.float32):
    return {"w": jnp.ones((4, 3), dtype), "b": [jnp.zeros(3, dtype), jnp.ones((), dtype)]}


def like(params, value=0.5, dtype=None):
    return jax.tree.map(lambda p: jnp.full_like(p, value, dtype=dtype), params)


# The value


def test_it_is_a_pair():
    init, update = fnopt.adam(1e-3)
    optimizer = fnopt.adam(1e-3)
    assert isinstance(optimizer, fnopt.GradientTransformation)
    assert len(optimizer) == 2
    params = params_of()
    updates, _ = update(like(params), init(params), params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)


def test_equal_calls_are_equal_and_hash_alike():
    one, two = fnopt.adamw(1e-3, mask={"w": True}), fnopt.adamw(1e-3, mask={"w": True})
    assert one == two
    assert hash(one) == hash(two)
    assert (one != two) is False
    assert one != fnopt.adamw(1e-3)
    assert one != fnopt.adam(1e-3)
    assert fnopt.adam(1e-3) == fnopt.adam(learning_rate=1e-3, b1=0.9)
    assert fnopt.adam(fnopt.Tunable(1e-3)) == fnopt.adam(fnopt.Tunable(1e-3))
    assert fnopt.adam(jnp.float32(0.5)) == fnopt.adam(jnp.float32(0.5))
    rate = fnopt.schedules.cosine_decay_schedule
    assert fnopt.sgd(rate(0.1, 100)) == fnopt.sgd(rate(0.1, 100))
    assert fnopt.sgd(rate(0.1, 100)) != fnopt.sgd(rate(0.1, 101))


def test_an_equal_static_argument_does_not_compile_again():
    @jax.jit
    def count(params):
        return params

    def step(optimizer, params, gradients):
        return optimizer.update(gradients, optimizer.init(params), params)[0]

    jitted = jax.jit(step, static_argnums=0)
    params = params_of()
    jitted(fnopt.adam(1e-3), params, like(params))
    jitted(fnopt.adam(1e-3), params, like(params))
    assert jitted._cache_size() == 1


def test_repr_is_the_call():
    assert repr(fnopt.sgd(0.1)) == "sgd(learning_rate=0.1)"
    assert repr(fnopt.chain(fnopt.clip(1.0), fnopt.sgd(fnopt.Tunable(0.1)))) == (
        "chain(clip(max_delta=1.0), sgd(learning_rate=Tunable(value=0.1)))"
    )
    assert "wd=scale(step_size=2.0)" in repr(fnopt.named_chain(wd=fnopt.scale(2.0)))


def test_pickle_and_copy():
    rate = fnopt.schedules.warmup_cosine_decay_schedule(0.0, 1e-3, 10, 100)
    optimizer = fnopt.chain(fnopt.clip_by_global_norm(1.0), fnopt.adamw(rate))
    for again in (
        pickle.loads(pickle.dumps(optimizer)),
        copy.copy(optimizer),
        copy.deepcopy(optimizer),
    ):
        assert again == optimizer
        params = params_of()
        one = optimizer.update(like(params), optimizer.init(params), params)[0]
        two = again.update(like(params), again.init(params), params)[0]
        np.testing.assert_array_equal(one["w"], two["w"])


def test_a_pair_of_ones_own():
    def init(params):
        return ()

    def update(updates, state):
        return jax.tree.map(lambda u: -u, updates), state

    own = fnopt.GradientTransformation(init, update)
    assert own == fnopt.GradientTransformation(init, update)
    params = params_of(jnp.bfloat16)
    updates, _ = own.update(like(params), own.init(params), params)
    assert updates["w"].dtype == jnp.float32
    np.testing.assert_array_equal(updates["w"], -0.5)


# Dtypes and leaves


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
@pytest.mark.parametrize("gradient_dtype", [jnp.bfloat16, jnp.float32])
def test_state_and_updates_are_in_the_compute_dtype(dtype, gradient_dtype):
    params = params_of(dtype)
    optimizer = fnopt.adam(1e-3)
    state = optimizer.init(params)
    assert {x.dtype.name for x in jax.tree.leaves(fnopt.tree_get(state, "mu"))} == {"float32"}
    updates, state = optimizer.update(like(params, 0.5, gradient_dtype), state, params)
    assert updates["w"].dtype == jnp.float32
    assert fnopt.apply_updates(params, updates)["w"].dtype == dtype


def test_complex_and_double_leaves_in_one_tree(x64):
    params = {
        "c": jnp.ones(2, jnp.complex64),
        "z": jnp.ones(2, jnp.complex128),
        "d": jnp.ones(2, jnp.float64),
        "h": jnp.ones(2, jnp.bfloat16),
    }
    for rate in (0.1, lambda count: 0.1, fnopt.Tunable(0.1)):
        optimizer = fnopt.chain(fnopt.clip_by_global_norm(1.0), fnopt.adamw(rate, b1=rate))
        state = optimizer.init(params)
        updates, after = optimizer.update(params, state, params)
        names = {k: u.dtype.name for k, u in updates.items()}
        assert names == {"c": "complex64", "z": "complex128", "d": "float64", "h": "float32"}
        assert jax.tree.map(lambda x: x.dtype, after) == jax.tree.map(lambda x: x.dtype, state)
        nu = fnopt.tree_get(state, "nu")
        assert {k: v.dtype.name for k, v in nu.items()} == {
            "c": "float32",
            "z": "float64",
            "d": "float64",
            "h": "float32",
        }


def test_other_leaves_pass_untouched_and_have_no_state():
    key = jax.random.key(0)
    params = {"w": jnp.ones(2), "n": None, "i": jnp.arange(2), "t": True, "f": jnp.tanh, "k": key}
    zero = np.zeros(2, jax.dtypes.float0)
    updates = {"w": jnp.ones(2), "n": None, "i": zero, "t": None, "f": None, "k": None}
    optimizer = fnopt.adam(1e-3)
    state = optimizer.init(params)
    assert len(jax.tree.leaves(fnopt.tree_get(state, "mu"))) == 1
    new, _ = optimizer.update(updates, state, params)
    assert new["i"] is zero
    assert new["f"] is None
    moved = fnopt.apply_updates(params, new)
    assert moved["f"] is jnp.tanh
    assert moved["i"] is params["i"]
    assert moved["k"] is key
    assert moved["t"] is True


def test_apply_updates_adds_before_it_rounds():
    params = jnp.array(256.0, jnp.bfloat16)  # the neighbour above is 258
    moved = fnopt.apply_updates(params, jnp.array(1.5, jnp.float32))
    assert moved == 258.0
    assert fnopt.apply_updates({"a": params}, {"a": None})["a"] is params


@pytest.mark.parametrize("empty", [{}, [], {"a": None}, {"a": jnp.zeros((0, 3))}])
def test_empty_trees(empty):
    optimizer = fnopt.chain(fnopt.clip_by_global_norm(1.0), fnopt.adamw(1e-3))
    state = optimizer.init(empty)
    updates, state = optimizer.update(empty, state, empty)
    fnopt.apply_updates(empty, updates)
    assert fnopt.step_count(state) == 1


# Errors


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: fnopt.adam(-1.0), ValueError, "adam: learning_rate must be finite and at least 0"),
        (lambda: fnopt.adam(float("nan")), ValueError, "learning_rate"),
        (lambda: fnopt.adam(None), TypeError, "adam: learning_rate"),
        (lambda: fnopt.adamw(1e-3, weight_decay=jnp.float32), TypeError, "weight_decay"),
        (lambda: fnopt.adam("fast"), TypeError, "got 'fast'"),
        (lambda: fnopt.adam(True), TypeError, "got True"),
        (lambda: fnopt.adam(jnp.ones(3)), ValueError, "a scalar, got an array of shape (3,)"),
        (lambda: fnopt.adam(1e-3, b1=1.5), ValueError, "adam: b1 must be in [0, 1), got 1.5"),
        (lambda: fnopt.adam(1e-3, b1=fnopt.Tunable(2.0)), ValueError, "adam: b1"),
        (
            lambda: fnopt.rmsprop(1e-3, initial_scale=fnopt.Tunable(0.1)),
            TypeError,
            "rmsprop: initial_scale is read once, in init",
        ),
        (lambda: fnopt.clip(-1.0), ValueError, "clip: max_delta must be above 0, got -1"),
        (lambda: fnopt.adam(1e-3, beta1=0.9), TypeError, "adam: got an unexpected keyword"),
        (lambda: fnopt.chain(fnopt.adam), TypeError, "call the factory first"),
        (lambda: fnopt.chain(None), TypeError, "expected a transformation"),
    ],
)
def test_a_wrong_argument_is_named(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)


def test_wrong_trees_are_named():
    params = params_of()
    optimizer = fnopt.adamw(1e-3)
    state = optimizer.init(params)
    with pytest.raises(
        ValueError,
        match=r"updates\['w'\] has shape \(3,\), but params\['w'\] has "
        r"shape \(4, 3\)",
    ):
        optimizer.update({**params, "w": jnp.ones(3)}, state, params)
    with pytest.raises(
        ValueError,
        match=r"adamw: updates and params must have the same structure"
        r".*params\['w'\]",
    ):
        optimizer.update({"b": params["b"]}, state, params)
    with pytest.raises(ValueError, match="The order is update"):
        optimizer.update(state, params, params)
    with pytest.raises(ValueError, match="add_decayed_weights needs params"):
        optimizer.update(params, state)
    with pytest.raises(ValueError, match=r"updates\['w'\] is None"):
        optimizer.update({**params, "w": None}, state, params)
    with pytest.raises(ValueError, match="which is real"):
        optimizer.update({**params, "w": jnp.ones((4, 3), jnp.complex64)}, state, params)
    with pytest.raises(ValueError, match=r"updates\['w'\] has shape \(2, 4, 3\)"):
        fnopt.apply_updates(params, {**params, "w": jnp.ones((2, 4, 3))})


def test_a_state_of_other_params_is_named():
    params = params_of()
    optimizer = fnopt.adam(1e-3)
    other = optimizer.init({**params, "w": jnp.ones(3)})
    with pytest.raises(ValueError, match=r"state\['scale_by_adam'\].mu\['w'\] has shape \(3,\)"):
        optimizer.update(like(params), other, params)
    with jax.numpy_rank_promotion("allow"), pytest.raises(ValueError, match="state belong to"):
        optimizer.update(like(params), other, params)
    with pytest.raises(ValueError, match="must have the same structure"):
        optimizer.update(like(params), fnopt.sgd(0.1, 0.9).init(params), params)


@fnopt.gradient_transformation
def needs_value(learning_rate: LearningRate):
    def update(updates, state, params, *, value, other=None):
        return jax.tree.map(lambda u: -learning_rate * value * u, updates), state

    return lambda params: (), update


def test_extra_arguments():
    params = params_of()
    optimizer = fnopt.chain(fnopt.clip(1.0), needs_value(0.1))
    state = optimizer.init(params)
    updates, _ = optimizer.update(like(params), state, params, value=2.0, grad=None)
    np.testing.assert_allclose(updates["w"], -0.1)
    optimizer.update(like(params), state, params, value=2.0, other=1)
    with pytest.raises(TypeError, match=r"needs_value needs value=\.\.\."):
        optimizer.update(like(params), state, params)
    with pytest.raises(TypeError, match="unknown extra argument 'valeu'; known here: .*value"):
        optimizer.update(like(params), state, params, valeu=1.0, value=1.0)
    fnopt.adam(1e-3).update(like(params), fnopt.adam(1e-3).init(params), params, value=1.0)


# Hyperparameters in a rule of one's own


@fnopt.gradient_transformation
def heavy_ball(decay: Decay = 0.9, step: Positive = 1.0):
    def init(params):
        return fnopt.tree.zeros_like(params)

    def update(updates, state):
        state = fnopt.tree.map(lambda v, g: decay * v + step * g, state, updates)
        return state, state

    return init, update


def test_a_rule_is_rebuilt_with_the_values_of_the_moment():
    rule = heavy_ball(decay=lambda count: jnp.where(count > 0, 0.5, 0.0), step=fnopt.Tunable(2.0))
    params = jnp.zeros(2)
    state = rule.init(params)
    one, state = rule.update(jnp.ones(2), state)
    two, state = rule.update(jnp.ones(2), state)
    np.testing.assert_allclose(one, 2.0)
    np.testing.assert_allclose(two, 0.5 * 2.0 + 2.0)
    state = fnopt.set_hyperparameters(state, step=1.0)
    three, state = rule.update(jnp.ones(2), state)
    np.testing.assert_allclose(three, 0.5 * 3.0 + 1.0)
    assert fnopt.hyperparameters(state)["decay"] == 0.5


# Chains


def test_chain_names_its_members_and_leaves_the_stateless_out():
    optimizer = fnopt.chain(
        fnopt.clip(1.0), fnopt.scale_by_adam(), fnopt.scale_by_adam(), fnopt.sgd(0.1)
    )
    state = optimizer.init(jnp.ones(2))
    assert list(state) == ["scale_by_adam", "scale_by_adam_1", "sgd"]
    named = fnopt.named_chain(clip=fnopt.clip(1.0), rule=fnopt.adam(0.1)).init(jnp.ones(2))
    assert list(named) == ["rule"]
    pairs = fnopt.named_chain(("clip", fnopt.clip(1.0)), ("rule", fnopt.adam(0.1)))
    assert list(pairs.init(jnp.ones(2))) == ["rule"]
    with pytest.raises(ValueError, match="two members are named 'a'"):
        fnopt.named_chain(("a", fnopt.clip(1.0)), ("a", fnopt.clip(1.0)))


def test_a_chain_is_its_members_in_order():
    params = params_of()
    gradients = like(params, 3.0)
    one, two = fnopt.clip(1.0), fnopt.scale(-0.5)
    both = fnopt.chain(one, two)
    by_hand, _ = two.update(one.update(gradients, one.init(params))[0], two.init(params))
    together, _ = both.update(gradients, both.init(params), params)
    np.testing.assert_array_equal(by_hand["w"], together["w"])


def test_small_transformations():
    params = params_of()
    gradients = like(params, 3.0)

    def run(t):
        return t.update(gradients, t.init(params), params)[0]["w"]

    np.testing.assert_array_equal(run(fnopt.identity()), 3.0)
    np.testing.assert_array_equal(run(fnopt.set_to_zero()), 0.0)
    double = fnopt.stateless(lambda u, p: jax.tree.map(lambda a, b: a + b, u, p))
    np.testing.assert_array_equal(run(double), 4.0)
    np.testing.assert_array_equal(run(fnopt.stateless_with_tree_map(lambda u, p: u * p)), 3.0)


def test_a_foreign_member_keeps_its_name_and_its_state_the_dtype(standard_numerics):
    params = params_of(jnp.bfloat16)
    optimizer = fnopt.chain(optax.scale_by_adam(), fnopt.scale_by_learning_rate(0.1))
    state = optimizer.init(params)
    assert list(state) == ["scale_by_adam", "scale_by_learning_rate"]
    updates, after = optimizer.update(like(params, dtype=jnp.float32), state, params)
    assert updates["w"].dtype == jnp.float32
    assert jax.tree.map(lambda x: x.dtype, after) == jax.tree.map(lambda x: x.dtype, state)


def test_inside_gives_the_rule():
    assert isinstance(inside(fnopt.adam(1e-3)), Rule)
    assert inside(optax.adam(1e-3)).name == "adam" or inside(optax.adam(1e-3)).name == "chain"


def test_updates_leave_in_the_compute_dtype_whatever_the_rule_gives():
    def narrowed(updates, params):
        return jax.tree.map(lambda u: u.astype(jnp.bfloat16), updates)

    params = {"w": jnp.ones(3)}
    updates, _ = fnopt.stateless(narrowed).update(params, (), params)
    assert updates["w"].dtype == jnp.float32


def test_an_extra_argument_may_be_positional():
    def update(updates, state, params=None, factor=1.0):
        return jax.tree.map(lambda u: factor * u, updates), state

    tripled = fnopt.chain(fnopt.GradientTransformation(lambda params: (), update))
    updates, _ = tripled.update({"w": jnp.ones(3)}, {}, {"w": jnp.ones(3)}, factor=3.0)
    assert updates["w"][0] == 3.0


def test_factories_with_equal_arguments_differ():
    assert fnopt.identity() != fnopt.set_to_zero()
    assert fnopt.scale_by_sign() != fnopt.identity()


def test_a_count_at_its_end_stays_there():
    last = jnp.int32(2**31 - 1)
    assert tree.increment(last) == last
    assert tree.increment(last - 1) == last
