from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnopt
from fnopt.optimizers.adam import AdamState

PARAMS = {"w": jnp.ones((4, 2), jnp.bfloat16), "b": [jnp.zeros(2), None], "i": jnp.arange(2)}


def optimizer():
    return fnopt.chain(fnopt.clip_by_global_norm(1.0), fnopt.adamw(1e-3))


def moved(state, steps=3):
    grads = {"w": jnp.ones((4, 2)), "b": [jnp.ones(2), None], "i": None}
    for _ in range(steps):
        _, state = optimizer().update(grads, state, PARAMS)
    return state


def test_step_count():
    assert fnopt.step_count(moved(optimizer().init(PARAMS))) == 3
    with pytest.raises(ValueError, match="step_count: no transformation"):
        fnopt.step_count(fnopt.clip(1.0).init(PARAMS))


def test_find():
    state = optimizer().init(PARAMS)
    assert isinstance(fnopt.find(state, AdamState), AdamState)
    with pytest.raises(ValueError, match=r"0 states of class .*; the state holds AdamState"):
        fnopt.find(state, jax.ShapeDtypeStruct)


def test_tree_get():
    state = optimizer().init(PARAMS)
    assert fnopt.tree_get(state, "nu")["w"].shape == (4, 2)
    with pytest.raises(ValueError, match="known: .*mu"):
        fnopt.tree_get(state, "momentum")
    with pytest.raises(ValueError, match="2 fields named 'count'.*it is at adamw/scale_by_adam"):
        fnopt.tree_get(state, "count")


class AverageState(NamedTuple):
    average: Any

    def eval_params(self, params):
        return self.average


@fnopt.gradient_transformation
def remember():
    def init(params):
        return AverageState(params)

    return init, lambda updates, state: (updates, state)


def test_eval_params_through_nesting():
    deep = fnopt.chain(
        fnopt.clip(1.0), fnopt.named_chain(x=fnopt.chain(remember())), fnopt.sgd(1.0)
    )
    start = {"w": jnp.ones(3)}
    state = deep.init(start)
    assert fnopt.eval_params(state, {"w": jnp.zeros(3)})["w"].sum() == 3
    plain = fnopt.adam(1e-3).init(start)
    other = {"w": jnp.zeros(3)}
    assert fnopt.eval_params(plain, other) is other


# Checkpoints


def test_restore_is_the_inverse_of_named_arrays():
    state = moved(optimizer().init(PARAMS))
    arrays = {name: np.asarray(x) for name, x in fnopt.named_arrays(state).items()}
    for like in (optimizer().init(PARAMS), jax.eval_shape(optimizer().init, PARAMS)):
        again = fnopt.restore(like, arrays)
        assert jax.tree.structure(again) == jax.tree.structure(state)
        for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(state)):
            np.testing.assert_array_equal(a, b)


def test_adding_a_clip_moves_no_name():
    adam = fnopt.chain(fnopt.scale_by_adam(), fnopt.scale_by_learning_rate(1e-3))
    clipped = fnopt.chain(
        fnopt.clip(1.0), fnopt.scale_by_adam(), fnopt.scale_by_learning_rate(1e-3)
    )
    assert list(fnopt.named_arrays(adam.init(PARAMS))) == list(
        fnopt.named_arrays(clipped.init(PARAMS))
    )


def test_restore_lists_everything_that_does_not_fit():
    state = optimizer().init(PARAMS)
    arrays = dict(fnopt.named_arrays(state))
    del arrays["adamw/scale_by_adam/mu/w"]
    arrays["adamw/scale_by_adam/nu/w"] = jnp.ones(3)
    arrays["adamw/scale_by_adam/mu/b/0"] = jnp.ones(2, jnp.int32)
    arrays["stranger"] = jnp.ones(3)
    with pytest.raises(ValueError, match="restore") as caught:
        fnopt.restore(state, arrays)
    text = str(caught.value)
    assert "missing: adamw/scale_by_adam/mu/w" in text
    assert "unknown: stranger" in text
    assert "shape: adamw/scale_by_adam/nu/w is (3,), expected (4, 2)" in text
    assert "dtype: adamw/scale_by_adam/mu/b/0 is int32[2], expected float32[2]" in text


def test_the_outermost_count_is_told():
    inner_first = {"a": {"count": jnp.int32(1)}, "count": jnp.int32(3)}
    assert fnopt.step_count(inner_first) == 3
    assert fnopt.step_count({"count": jnp.int32(3), "z": {"count": jnp.int32(1)}}) == 3
