import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnopt
from fnopt.optimizers.novograd import novograd
from fnopt.testing.oracles import largest_error, leafwise


def oracle(rate, b1=0.9, b2=0.25, eps=1e-6, eps_root=0.0, weight_decay=0.0):
    @leafwise
    def run(theta, gradients):
        m, v = np.zeros_like(theta), None
        for g in gradients:
            square = np.sum(g**2)
            v = square if v is None else b2 * v + (1 - b2) * square
            m = b1 * m + g / (np.sqrt(v + eps_root) + eps) + weight_decay * theta
            theta = theta - rate * m
            yield theta

    return run


SETTINGS = [
    dict(),
    dict(b1=0.95, b2=0.98, eps=1e-3, eps_root=1e-2, weight_decay=0.1),
    dict(b1=0.0),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    assert largest_error(novograd(0.02, **setting), oracle(0.02, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    assert largest_error(novograd(0.02, **setting), oracle(0.02, **setting), jnp.float64) < 1e-12


@pytest.mark.parametrize("setting", SETTINGS[:2], ids=str)
def test_agrees_with_optax(setting, standard_numerics):
    assert largest_error(optax.novograd(0.02, **setting), oracle(0.02, **setting)) < 1e-5


def test_the_first_step_is_a_unit_vector_for_each_leaf():
    params = {"w": jnp.ones((3, 4)), "b": jnp.ones(3), "s": jnp.ones(())}
    optimizer = novograd(1.0)
    state = optimizer.init(params)
    assert [v.shape for v in fnopt.tree_get(state, "nu").values()] == [(1,), (), (1, 1)]
    gradients = {"w": jnp.full((3, 4), 1e12), "b": jnp.ones(3), "s": jnp.array(5.0)}
    updates, _ = optimizer.update(gradients, state)
    norms = [float(jnp.linalg.norm(jnp.ravel(u))) for u in updates.values()]
    np.testing.assert_allclose(norms, 1.0, rtol=1e-5)
