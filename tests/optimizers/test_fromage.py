import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fnopt.bench import trees
from fnopt.bench.counts import count
from fnopt.optimizers.fromage import fromage
from fnopt.testing.oracles import largest_error, leafwise


def oracle(rate, min_norm=1e-6):
    @leafwise
    def run(theta, gradients):
        for g in gradients:
            p, u = max(np.linalg.norm(theta), min_norm), max(np.linalg.norm(g), min_norm)
            ratio = p / u if p and u else 1.0
            theta = (theta - rate * ratio * g) / np.sqrt(1 + rate**2)
            yield theta

    return run


SETTINGS = [dict(), dict(min_norm=3.0), dict(min_norm=0.0)]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    assert largest_error(fromage(0.05, **setting), oracle(0.05, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    assert largest_error(fromage(0.05, **setting), oracle(0.05, **setting), jnp.float64) < 1e-12


def test_agrees_with_optax(standard_numerics):
    params, g = (
        jnp.arange(12.0).reshape(4, 3),
        jnp.asarray(np.random.default_rng(0).normal(size=(4, 3))),
    )
    got, wanted = (
        o.update(g, o.init(params), params)[0] for o in (fromage(0.1), optax.fromage(0.1))
    )
    np.testing.assert_allclose(got, wanted, rtol=1e-4)


def test_a_step_at_right_angles_keeps_the_norm():
    params, g = jnp.array([3.0, 4.0]), jnp.array([4.0, -3.0])
    optimizer = fromage(0.1)
    updates, _ = optimizer.update(g, optimizer.init(params), params)
    np.testing.assert_allclose(jnp.linalg.norm(params + updates), 5.0, rtol=1e-6)


def test_nothing_is_stored():
    cost = count(fromage(1e-3), trees.transformer(layers=1, width=64))
    assert cost.bytes < 21
    assert cost.temporary < 0.2


EARLY = fromage(0.05)


def test_an_optimizer_built_before_double_precision_is_as_exact(x64):
    assert largest_error(EARLY, oracle(0.05), jnp.float64) < 1e-12
