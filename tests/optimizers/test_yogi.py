import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnopt
from fnopt.optimizers.yogi import scale_by_yogi, yogi
from fnopt.testing.oracles import largest_error, leafwise


def oracle(rate, b1=0.9, b2=0.999, eps=1e-3, bias_correction=True, start=1e-6, eps_root=0.0):
    @leafwise
    def run(theta, gradients):
        m, v = np.zeros_like(theta), np.full_like(theta, start)
        for t, g in enumerate(gradients, 1):
            m = b1 * m + (1 - b1) * g
            v = v - (1 - b2) * np.sign(v - g**2) * g**2
            c1, c2 = (1 - b1**t, 1 - b2**t) if bias_correction else (1.0, 1.0)
            theta = theta - rate * m / c1 / (np.sqrt(v / c2 + eps_root) + eps)
            yield theta

    return run


def with_start(rate, start, eps_root, **setting):
    rule = scale_by_yogi(**setting, initial_accumulator_value=start, eps_root=eps_root)
    return fnopt.chain(rule, fnopt.scale_by_learning_rate(rate))


OTHER = dict(b1=0.8, b2=0.7, start=1.0, eps_root=0.1)
CASES = [
    (yogi(0.02), oracle(0.02)),
    (yogi(0.02, b2=0.9, bias_correction=False), oracle(0.02, b2=0.9, bias_correction=False)),
    (with_start(0.02, **OTHER), oracle(0.02, **OTHER)),
    (yogi(0.02, b1=0.0), oracle(0.02, b1=0.0)),
]


@pytest.mark.parametrize(("optimizer", "wanted"), CASES)
def test_oracle_in_float32(optimizer, wanted):
    assert largest_error(optimizer, wanted) < 1e-6


@pytest.mark.parametrize(("optimizer", "wanted"), CASES)
def test_oracle_in_float64(optimizer, wanted, x64):
    assert largest_error(optimizer, wanted, jnp.float64) < 1e-12


def test_agrees_with_optax_but_for_where_its_mean_starts(standard_numerics):
    assert largest_error(optax.yogi(0.02), oracle(0.02)) < 1e-4
    zeros = jnp.zeros(2)
    for factory, moves in ((yogi, False), (optax.yogi, True)):
        optimizer = factory(0.1)
        updates, _ = optimizer.update(zeros, optimizer.init(zeros), zeros)
        assert np.any(updates) == moves


def test_the_second_moment_falls_slowly_after_a_large_gradient():
    rule = scale_by_yogi(b2=0.9)
    state = rule.init(jnp.zeros(1))
    for g in [10.0, 0.1, 0.1, 0.1]:
        _, state = rule.update(jnp.full(1, g), state)
    np.testing.assert_allclose(state.nu, 10.0 - 3 * 0.1 * 0.01, rtol=1e-5)
