import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fnopt.transforms.factored import Factored, scale_by_factored_rms


@pytest.mark.parametrize("factored", [True, False])
def test_agrees_with_optax(factored, standard_numerics):
    setting = dict(factored=factored, decay_rate=0.7, min_dim_size_to_factor=3)
    pair = [f(**setting) for f in (scale_by_factored_rms, optax.scale_by_factored_rms)]
    rng = np.random.default_rng(0)
    params = {"w": jnp.ones((4, 3)), "cube": jnp.ones((3, 2, 5)), "b": jnp.ones(3)}
    states = [o.init(params) for o in pair]
    for _ in range(3):
        g = {k: jnp.asarray(rng.normal(size=p.shape), jnp.float32) for k, p in params.items()}
        (got, a), (wanted, b) = [o.update(g, s, params) for o, s in zip(pair, states)]
        states = [a, b]
        for k in params:
            np.testing.assert_allclose(got[k], wanted[k], rtol=1e-4)


def test_edges():
    rule = scale_by_factored_rms(min_dim_size_to_factor=0)
    params = {
        "empty": jnp.zeros((0, 3)),
        "w": jnp.zeros((2, 2)),
        "c": jnp.zeros((2, 2), jnp.complex64),
    }
    for gradient in (params, jax.tree.map(lambda p: p + 1e20, params)):
        updates, state = rule.update(gradient, rule.init(params))
        assert all(jnp.isfinite(x).all() for x in jax.tree.leaves((updates, state)))
    assert state.v_row["c"].dtype == jnp.float32


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.complex64])
def test_the_rms_computed_again_is_that_of_what_is_used(dtype, standard_numerics):
    x = jnp.arange(6.0).reshape(2, 3).astype(dtype)
    row, col = jnp.array([[1.0], [2.0]]), jnp.array([[1.0, 2.0, 3.0]])
    for v in (Factored(row, col, None), Factored(None, None, row * col)):
        wanted = jnp.sqrt(jnp.mean(jnp.abs(v.rescale(x)) ** 2))
        np.testing.assert_allclose(v.rms_of_rescaled(x), wanted, rtol=1e-5)
