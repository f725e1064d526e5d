import jax.numpy as jnp
import numpy as np
import pytest
from optax import contrib

from fnopt.bench import trees
from fnopt.bench.counts import count
from fnopt.optimizers.adopt import adopt
from fnopt.testing.oracles import largest_error, leafwise


def oracle(
    rate, b1=0.9, b2=0.9999, eps=1e-6, nesterov=False, use_clipping=True, weight_decay=0.0
):  # fmt: skip
    @leafwise
    def run(theta, gradients):
        m, v = np.zeros_like(theta), gradients[0] ** 2
        yield theta
        for t, g in enumerate(gradients[1:], 1):
            n = g / np.maximum(np.sqrt(v), eps)
            if use_clipping:
                n = np.clip(n, -(t**0.25), t**0.25)
            m = b1 * m + (1 - b1) * n
            u = b1 * m + (1 - b1) * n if nesterov else m
            theta = theta - rate * (u + weight_decay * theta)
            v = b2 * v + (1 - b2) * g**2
            yield theta

    return run


SETTINGS = [
    dict(),
    dict(b1=0.8, b2=0.7, eps=0.3, nesterov=True, weight_decay=0.1),
    dict(b1=0.0, b2=0.9, eps=0.3, use_clipping=False),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    assert largest_error(adopt(0.02, **setting), oracle(0.02, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    assert largest_error(adopt(0.02, **setting), oracle(0.02, **setting), jnp.float64) < 1e-12


@pytest.mark.parametrize("setting", [dict(), dict(b2=0.7, nesterov=True)], ids=str)
def test_agrees_with_optax(setting, standard_numerics):
    assert largest_error(contrib.adopt(0.02, **setting), oracle(0.02, **setting)) < 1e-5


def test_the_bound_is_the_callers():
    optimizer = adopt(1.0, b1=0.0, clip_value_fn=lambda t: 0.5 + 0.0 * t)
    params = jnp.zeros(2)
    state = optimizer.init(params)
    for g in ([1.0, 1.0], [0.1, -9.0]):
        updates, state = optimizer.update(jnp.array(g), state, params)
    np.testing.assert_allclose(updates, [-0.1, 0.5], rtol=1e-6)


def test_an_infinite_gradient_is_seen_through_the_clipping():
    optimizer = adopt(1.0)
    state = optimizer.init(jnp.zeros(1))
    for g in (1.0, jnp.inf):
        updates, state = optimizer.update(jnp.full(1, g), state)
    assert not jnp.isfinite(updates).any()


def test_no_copy_of_the_second_moment_is_kept():
    cost = count(adopt(1e-3), trees.transformer(layers=1, width=64))
    assert cost.bytes < 40.5
    assert cost.temporary < 0.1
