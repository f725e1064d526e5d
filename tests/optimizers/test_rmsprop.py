import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnopt
from fnopt.testing.oracles import largest_error, leafwise


def oracle(
    rate,
    decay=0.9,
    eps=1e-8,
    initial_scale=0.0,
    eps_in_sqrt=True,
    centered=False,
    momentum=0.0,
    nesterov=False,
    bias_correction=False,
):
    @leafwise
    def run(theta, gradients):
        s, a, v = np.full_like(theta, initial_scale), 0 * theta, 0 * theta
        for t, g in enumerate(gradients, 1):
            s = decay * s + (1 - decay) * g**2
            a = decay * a + (1 - decay) * g
            c = 1 - decay**t if bias_correction else 1.0
            variance = np.maximum(s / c - (a / c) ** 2, 0.0) if centered else s / c
            u = g / (np.sqrt(variance + eps) if eps_in_sqrt else np.sqrt(variance) + eps)
            v = momentum * v + u
            theta = theta - rate * (momentum * v + u if nesterov else v)
            yield theta

    return run


SETTINGS = [
    dict(),
    dict(decay=0.99, eps=1e-4, eps_in_sqrt=False, initial_scale=0.5),
    dict(centered=True, eps=1e-2),
    dict(momentum=0.9, eps=1e-3),
    dict(momentum=0.7, nesterov=True, bias_correction=True, eps=0.1, centered=True, decay=0.8),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    # s − a² of few gradients is a small difference of large numbers: ε is chosen well above it
    assert largest_error(fnopt.rmsprop(0.02, **setting), oracle(0.02, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    error = largest_error(fnopt.rmsprop(0.02, **setting), oracle(0.02, **setting), jnp.float64)
    assert error < 1e-12


def test_optax_gathers_the_momentum_after_the_rate(standard_numerics):
    def last(factory, rate):
        optimizer = factory(rate, momentum=0.9)
        state = optimizer.init(jnp.zeros(1))
        for _ in range(3):
            updates, state = optimizer.update(jnp.ones(1), state)
        return float(updates[0])

    falling = lambda count: 0.1 * 0.1 ** jnp.asarray(count, jnp.float32)
    assert last(optax.rmsprop, 0.1) == pytest.approx(last(fnopt.rmsprop, 0.1), rel=1e-4)
    assert last(optax.rmsprop, falling) < 10 * last(fnopt.rmsprop, falling)


def test_a_variance_of_zero_is_finite_where_optax_makes_nan(standard_numerics):
    """s − a² of equal gradients may round below zero."""
    gradient = jnp.array([1.0, 3.0, 1000.0, 0.1])
    for factory, finite in ((fnopt.rmsprop, True), (optax.rmsprop, False)):
        optimizer = factory(0.1, centered=True, bias_correction=True)

        @jax.jit
        def run(state, optimizer=optimizer):
            step = lambda state, _: optimizer.update(gradient, state)[::-1]
            return jax.lax.scan(step, state, length=300)[1]

        assert bool(jnp.isfinite(run(optimizer.init(gradient))).all()) == finite


def test_stddev_is_the_centered_rule_and_optaxs(standard_numerics):
    rng = np.random.default_rng(0)
    gradients = [jnp.asarray(rng.normal(size=(4, 3)), jnp.float32) for _ in range(4)]
    setting = dict(decay=0.8, eps=0.1, initial_scale=0.5, eps_in_sqrt=False)
    rules = [
        fnopt.scale_by_stddev(**setting),
        fnopt.scale_by_rms(**setting, centered=True),
        optax.scale_by_stddev(**setting),
    ]
    states = [rule.init(gradients[0]) for rule in rules]
    for g in gradients:
        results = [rule.update(g, state) for rule, state in zip(rules, states)]
        states = [state for _, state in results]
        got, same, wanted = (u for u, _ in results)
        np.testing.assert_array_equal(got, same)
        np.testing.assert_allclose(got, wanted, rtol=1e-5)
