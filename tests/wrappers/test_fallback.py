import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnopt
from fnopt.wrappers.fallback import matrix_or_fallback

PARAMS = {"embed": jnp.ones((6, 4)), "layer": {"w": jnp.ones((4, 4)), "b": jnp.ones(4)}}


def test_each_leaf_has_the_one_that_it_is_for():
    optimizer = matrix_or_fallback("double", fnopt.scale(-2.0), fnopt.scale(-1.0))
    updates, _ = optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS)
    assert float(updates["layer"]["w"][0, 0]) == -2.0
    assert float(updates["layer"]["b"][0]) == float(updates["embed"][0, 0]) == -1.0
    words = [line.split()[2:4] for line in str(fnopt.summary(optimizer, PARAMS)).split("\n")[1:4]]
    assert words == [["fallback:", "scale"], ["fallback:", "scale"], ["double:", "scale"]]


def test_rates_have_names_of_their_own():
    state = fnopt.muon(0.02).init(PARAMS)
    assert set(fnopt.hyperparameters(state)) == {"learning_rate", "fallback_learning_rate"}
    rates = [fnopt.Tunable(rate) for rate in (0.02, 1e-3)]
    optimizer = fnopt.muon(rates[0], fallback=fnopt.adam(rates[1]))
    state = optimizer.init(PARAMS)
    found = fnopt.hyperparameters(state)
    assert set(found) == {"muon/learning_rate", "fallback/learning_rate"}
    state = fnopt.set_hyperparameters(state, **{"fallback/learning_rate": 0.0})
    updates, _ = optimizer.update(PARAMS, state, PARAMS)
    np.testing.assert_array_equal(updates["embed"], 0)
    assert bool(jnp.any(updates["layer"]["w"] != 0))


@pytest.mark.parametrize("only", ["embed", "layer"])
def test_one_of_the_two_may_have_no_leaf(only):
    params = {only: PARAMS[only]} if only == "embed" else {"w": jnp.ones((3, 3))}
    optimizer = fnopt.muon(0.02)
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)


def test_masks_of_the_whole_tree_reach_the_matrices():
    mask = {"embed": True, "layer": {"w": False, "b": True}}
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    for given in (mask, fnopt.no_decay_on_vectors):
        optimizer = fnopt.muon(1.0, weight_decay=0.5, weight_decay_mask=given)
        updates, _ = optimizer.update(zeros, optimizer.init(PARAMS), PARAMS)
        wanted = 0.0 if given is mask else -0.5
        np.testing.assert_array_equal(updates["layer"]["w"], wanted)
        np.testing.assert_array_equal(updates["layer"]["b"], 0)


def test_another_fallback_takes_the_place_of_adamw():
    optimizer = fnopt.muon(0.02, mu_dtype="bfloat16", fallback=fnopt.lion(1e-3))
    state = optimizer.init(PARAMS)
    alone = {"embed": PARAMS["embed"], "layer": {"w": None, "b": PARAMS["layer"]["b"]}}
    wanted, _ = fnopt.lion(1e-3).update(alone, fnopt.lion(1e-3).init(alone), alone)
    for bf16 in (False, True):
        gradients = jax.tree.map(lambda p: p.astype(jnp.bfloat16) if bf16 else p, PARAMS)
        updates, new = jax.jit(optimizer.update)(gradients, state, PARAMS)
        np.testing.assert_allclose(updates["embed"], wanted["embed"])
        np.testing.assert_allclose(updates["layer"]["b"], wanted["layer"]["b"])
        assert jax.tree.structure(new) == jax.tree.structure(state)
        assert [x.dtype for x in jax.tree.leaves(new)] == [x.dtype for x in jax.tree.leaves(state)]
