import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fnopt.bench import trees
from fnopt.bench.counts import count
from fnopt.optimizers.adan import adan
from fnopt.testing.oracles import largest_error, leafwise


def oracle(
    rate, b1=0.98, b2=0.92, b3=0.99, eps=1e-8, eps_root=0.0, weight_decay=0.0, proximal=True,
    ahead=None,
):  # fmt: skip
    ahead = b2 if ahead is None else ahead

    @leafwise
    def run(theta, gradients):
        m, v, n = (np.zeros_like(theta) for _ in range(3))
        old = gradients[0]
        for t, g in enumerate(gradients, 1):
            d, old = g - old, g
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * d
            n = b3 * n + (1 - b3) * (g + ahead * d) ** 2
            u = m / (1 - b1**t) + ahead * v / (1 - b2**t)
            u = u / (np.sqrt(n / (1 - b3**t) + eps_root) + eps)
            if proximal:
                theta = (theta - rate * u) / (1 + rate * weight_decay)
            else:
                theta = (1 - rate * weight_decay) * theta - rate * u
            yield theta

    return run


SETTINGS = [
    dict(),
    dict(b1=0.9, b2=0.7, b3=0.8, eps=1e-3, eps_root=1e-4, weight_decay=0.3),
    dict(weight_decay=0.3, proximal=False),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    assert largest_error(adan(0.02, **setting), oracle(0.02, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    assert largest_error(adan(0.02, **setting), oracle(0.02, **setting), jnp.float64) < 1e-12


def test_optax_weighs_the_look_ahead_with_one_minus_b2(standard_numerics):
    setting = dict(eps_root=1e-8)
    assert largest_error(optax.adan(0.02), oracle(0.02, **setting, ahead=0.08)) < 1e-5
    assert largest_error(optax.adan(0.02), oracle(0.02, **setting)) > 1e-2


def test_masked_leaves_do_not_decay():
    params = {"w": jnp.ones(2), "b": jnp.ones(2)}
    zeros = {"w": jnp.zeros(2), "b": jnp.zeros(2)}
    optimizer = adan(0.1, weight_decay=1.0, mask={"w": True, "b": False})
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    np.testing.assert_allclose(updates["w"], 1 / 1.1 - 1, rtol=1e-6)
    np.testing.assert_array_equal(updates["b"], 0.0)


def test_nothing_is_stored_on_the_way():
    for weight_decay in (0.0, 0.1):
        cost = count(adan(1e-3, weight_decay=weight_decay), trees.transformer(layers=1, width=64))
        assert cost.bytes < 72.5
        assert cost.temporary < 0.1


def test_the_decay_is_implicit_where_optaxs_is_not(standard_numerics):
    params, zeros = jnp.ones(2), jnp.zeros(2)
    cases = [
        (adan(0.5, weight_decay=1.0), 1 / 1.5 - 1),
        (adan(0.5, weight_decay=1.0, proximal=False), -0.5),
        (optax.adan(0.5, weight_decay=1.0), -0.5),
    ]
    for optimizer, wanted in cases:
        updates, _ = optimizer.update(zeros, optimizer.init(params), params)
        np.testing.assert_allclose(updates, wanted, rtol=1e-6)
