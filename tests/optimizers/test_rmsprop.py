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
