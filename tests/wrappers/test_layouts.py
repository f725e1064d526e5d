import jax
import jax.numpy as jnp
import numpy as np
import optax

import fnopt

PARAMS = {"w": jnp.ones((4, 3)), "b": jnp.full(3, 2.0), "g": jnp.float32(3.0), "n": 7}


def updates_of(optimizer, params=PARAMS, steps=3):
    state, step = optimizer.init(params), optimizer.update
    for i in range(steps):
        gradients = jax.tree.map(lambda p: (0.1 + i) * p if hasattr(p, "dtype") else p, params)
        updates, state = step(gradients, state, params)
    return updates, state


def test_flat_steps_of_an_elementwise_rule_are_the_same():
    wanted, _ = updates_of(fnopt.adam(0.1))
    got, state = updates_of(fnopt.flatten(fnopt.adam(0.1)))
    for k in "wbg":
        np.testing.assert_allclose(got[k], wanted[k], rtol=1e-6)
        assert got[k].shape == wanted[k].shape
    assert got["n"] == 7
    assert fnopt.tree_get(state, "mu")["float32"].shape == (16,)
    ours, _ = updates_of(fnopt.flatten(optax.trace(0.9)))
    alone, _ = updates_of(fnopt.chain(optax.trace(0.9)))
    np.testing.assert_allclose(ours["w"], alone["w"], rtol=1e-6)


def test_each_dtype_has_a_vector_of_its_own(x64):
    params = {
        "a": jnp.ones(2, jnp.float32),
        "b": jnp.ones(3, jnp.float64),
        "c": jnp.ones(2, jnp.complex64),
    }
    updates, state = updates_of(fnopt.flatten(fnopt.trace(0.9)), params)
    shapes = {k: v.shape for k, v in fnopt.tree_get(state, "trace").items()}
    assert shapes == {"float32": (2,), "float64": (3,), "complex64": (2,)}
    assert {k: u.dtype.name for k, u in updates.items()} == {
        "a": "float32", "b": "float64", "c": "complex64",
    }  # fmt: skip


def test_parts_of_complex_leaves_have_their_own_moments():
    params = {"z": jnp.array([1.0 + 100.0j, 0.5 - 2.0j], jnp.complex64), "x": jnp.ones(2)}
    updates, state = updates_of(fnopt.split_real_and_imaginary(fnopt.adam(0.1)), params)
    parts = {"r": jnp.real(params["z"]), "i": jnp.imag(params["z"]), "x": params["x"]}
    wanted, _ = updates_of(fnopt.adam(0.1), parts)
    np.testing.assert_allclose(updates["z"], jax.lax.complex(wanted["r"], wanted["i"]), rtol=1e-5)
    np.testing.assert_allclose(updates["x"], wanted["x"], rtol=1e-6)
    assert sorted(fnopt.tree_get(state, "nu")["z"]) == ["imaginary", "real"]
    whole, _ = updates_of(fnopt.adam(0.1), params)
    assert not np.allclose(whole["z"], updates["z"], rtol=0.1)
