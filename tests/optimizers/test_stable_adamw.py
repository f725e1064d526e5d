import jax.numpy as jnp
import numpy as np
import pytest

import fnopt
from fnopt.optimizers.stable_adamw import scale_by_stable_adam, stable_adamw
from fnopt.testing.oracles import largest_error, leafwise


def oracle(rate, b1=0.9, b2=0.99, eps=1e-8, weight_decay=1e-2):
    @leafwise
    def run(theta, gradients):
        m, v = np.zeros_like(theta), np.zeros_like(theta)
        for t, g in enumerate(gradients, 1):
            d1 = (b1**t - b1) / (b1**t - 1)
            d2 = (b2**t - b2) / (b2**t - 1)
            m = d1 * m + (1 - d1) * g
            v = d2 * v + (1 - d2) * g**2
            rms = np.sqrt(np.mean(g**2 / np.maximum(v, eps**2)))
            short = rate / max(1, rms)
            theta = theta - short * weight_decay * theta - short * m / (np.sqrt(v) + eps)
            yield theta

    return run


SETTINGS = [
    dict(),
    dict(b1=0.8, b2=0.7, eps=1e-1, weight_decay=0.3),
    dict(b1=0.0, weight_decay=0.0),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    assert largest_error(stable_adamw(0.02, **setting), oracle(0.02, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    error = largest_error(stable_adamw(0.02, **setting), oracle(0.02, **setting), jnp.float64)
    assert error < 1e-12


def test_a_burst_is_clipped_leaf_by_leaf():
    rule = scale_by_stable_adam(b1=0.0, b2=0.9999)
    ones = {"calm": jnp.ones(4), "burst": jnp.ones(4)}
    state = rule.init(ones)
    for _ in range(5):
        _, state = rule.update(ones, state)
    updates, _ = rule.update(ones | {"burst": jnp.full(4, 100.0)}, state)
    np.testing.assert_allclose(updates["calm"], 1.0, rtol=1e-4)
    np.testing.assert_allclose(updates["burst"], 1.0, rtol=1e-4)


def test_the_mask_and_the_need_of_params():
    params = {"w": jnp.ones(2), "b": jnp.ones(2)}
    zeros = {"w": jnp.zeros(2), "b": jnp.zeros(2)}
    optimizer = stable_adamw(0.1, weight_decay=1.0, mask={"w": True, "b": False})
    state = optimizer.init(params)
    updates, _ = optimizer.update(zeros, state, params)
    np.testing.assert_allclose(updates["w"], -0.1, rtol=1e-6)
    np.testing.assert_array_equal(updates["b"], 0.0)
    with pytest.raises(ValueError, match="needs params"):
        optimizer.update(zeros, state)
    assert fnopt.tree_get(stable_adamw(0.1, b1=0.0).init(params), "mu") is None
