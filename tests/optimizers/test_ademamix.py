import jax.numpy as jnp
import numpy as np
import pytest
from optax import contrib

import fnopt
from fnopt.optimizers.ademamix import ademamix, alpha_warmup_schedule, b3_warmup_schedule
from fnopt.testing.oracles import largest_error, leafwise


def oracle(
    rate, b1=0.9, b2=0.999, b3=0.9999, alpha=5.0, eps=1e-8, eps_root=0.0, weight_decay=0.0,
    warmup=None,
):  # fmt: skip
    def half_life(b):
        return np.log(0.5) / np.log(b) - 1

    @leafwise
    def run(theta, gradients):
        m1, m2, v = (np.zeros_like(theta) for _ in range(3))
        for t, g in enumerate(gradients, 1):
            a, slow = alpha, b3
            if warmup is not None and t < warmup:
                a = alpha * t / warmup
                life = (1 - t / warmup) * half_life(0.9) + t / warmup * half_life(b3)
                slow = 0.5 ** (1 / (life + 1))
            m1 = b1 * m1 + (1 - b1) * g
            m2 = slow * m2 + (1 - slow) * g
            v = b2 * v + (1 - b2) * g**2
            top = m1 / (1 - b1**t) + a * m2
            step = top / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)
            theta = theta - rate * (step + weight_decay * theta)
            yield theta

    return run


OTHER = dict(b1=0.8, b2=0.9, b3=0.95, alpha=2.0, eps=1e-3, eps_root=1e-4, weight_decay=0.1)
SETTINGS = [dict(), OTHER, dict(b1=0.0)]


@pytest.mark.parametrize("setting", SETTINGS, ids=["default", "other", "b1=0"])
def test_oracle_in_float32(setting):
    assert largest_error(ademamix(0.02, **setting), oracle(0.02, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=["default", "other", "b1=0"])
def test_oracle_in_float64(setting, x64):
    error = largest_error(ademamix(0.02, **setting), oracle(0.02, **setting), jnp.float64)
    assert error < 1e-12


def test_agrees_with_optax(standard_numerics):
    assert largest_error(contrib.ademamix(0.02, **OTHER), oracle(0.02, **OTHER)) < 1e-5


def test_warmups_are_the_papers(x64):
    warm = ademamix(0.02, alpha=alpha_warmup_schedule(5.0, 20), b3=b3_warmup_schedule(0.9999, 20))
    assert largest_error(warm, oracle(0.02, warmup=20), jnp.float64) < 1e-12


def test_warmups_at_both_ends():
    alpha, b3 = alpha_warmup_schedule(6.0, 3), b3_warmup_schedule(0.99, 1000)
    np.testing.assert_allclose([alpha(t) for t in (0, 1, 2, 9)], [2.0, 4.0, 6.0, 6.0], rtol=1e-6)
    np.testing.assert_allclose([b3(0), b3(999), b3(5000)], [0.9, 0.99, 0.99], atol=2e-3)
    halves = [np.log(0.5) / np.log(float(b3(t))) for t in (249, 499, 749)]
    np.testing.assert_allclose(np.diff(halves), halves[1] - halves[0], rtol=1e-3)
    assert b3 == b3_warmup_schedule(0.99, 1000)
    with pytest.raises(ValueError, match="warmup_steps"):
        b3_warmup_schedule(0.99, 0)


def test_a_static_zero_drops_its_buffer():
    assert fnopt.tree_get(ademamix(1e-3, b1=0.0).init(jnp.ones(3)), "mu") is None
