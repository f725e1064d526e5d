import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnopt
from fnopt.optimizers.schedule_free import schedule_free_adamw, schedule_free_sgd
from fnopt.testing.oracles import largest_error, leafwise


def sgd_oracle(rate, warmup_steps=None, b1=0.9, weight_decay=0.0, weight_lr_power=2.0):
    @leafwise
    def run(y, gradients):
        x = z = y
        total = largest = 0.0
        for t, g in enumerate(gradients, 1):
            gamma = rate * (1.0 if warmup_steps is None else min(1.0, t / warmup_steps))
            largest = max(largest, gamma)
            w = largest**weight_lr_power
            total += w
            z = z - gamma * (g + weight_decay * y)
            x = (1 - w / total) * x + w / total * z
            y = b1 * x + (1 - b1) * z
            yield y

    return run


def adamw_oracle(
    rate, warmup_steps=None, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0, weight_lr_power=2.0
):
    """In place, as the authors' code: y and z alone, and x never."""

    @leafwise
    def run(y, gradients):
        z, v = y, np.zeros_like(y)
        total = largest = 0.0
        for t, g in enumerate(gradients, 1):
            gamma = rate * (1.0 if warmup_steps is None else min(1.0, t / warmup_steps))
            largest = max(largest, gamma)
            w = largest**weight_lr_power
            total += w
            c = w / total
            v = b2 * v + (1 - b2) * g * g
            u = g / (np.sqrt(v / (1 - b2**t)) + eps) + weight_decay * y
            y = y + c * (z - y) + gamma * (b1 * (1 - c) - 1) * u
            z = z - gamma * u
            yield y

    return run


SGD = [dict(), dict(warmup_steps=8, b1=0.5, weight_decay=0.1, weight_lr_power=1.0), dict(b1=0.0)]
ADAMW = [
    dict(),
    dict(warmup_steps=8, b1=0.95, b2=0.9, eps=1e-3, weight_decay=0.1),
    dict(b1=0.0, weight_lr_power=0.0),
]
CASES = [(schedule_free_sgd, sgd_oracle, 0.1, s) for s in SGD] + [
    (schedule_free_adamw, adamw_oracle, 0.02, s) for s in ADAMW
]
IDS = [f"{factory.__name__} {setting}" for factory, _, _, setting in CASES]


@pytest.mark.parametrize(("factory", "oracle", "rate", "setting"), CASES, ids=IDS)
def test_oracle_in_float32(factory, oracle, rate, setting):
    assert largest_error(factory(rate, **setting), oracle(rate, **setting)) < 1e-6


@pytest.mark.parametrize(("factory", "oracle", "rate", "setting"), CASES, ids=IDS)
def test_oracle_in_float64(factory, oracle, rate, setting, x64):
    error = largest_error(factory(rate, **setting), oracle(rate, **setting), jnp.float64)
    assert error < 1e-12


def run(optimizer, dtype, steps=40):
    params = {"w": jnp.asarray(np.linspace(1, 2, 6), dtype)}
    state, step = optimizer.init(params), jax.jit(optimizer.update)
    for i in range(steps):
        g = {"w": jnp.asarray(np.sin(i + np.arange(6)) + 0.3, dtype)}
        updates, state = step(g, state, params)
        params = fnopt.apply_updates(params, updates)
    return fnopt.eval_params(state, params)["w"], state


def test_evaluation_params_of_bfloat16_params_are_those_of_float32():
    optimizer = schedule_free_adamw(0.01, warmup_steps=10)
    low, state = run(optimizer, jnp.bfloat16)
    full, _ = run(optimizer, jnp.float32)
    assert low.dtype == jnp.bfloat16
    assert fnopt.tree_get(state, "x")["w"].dtype == jnp.float32
    np.testing.assert_allclose(low.astype(jnp.float32), full, rtol=0.01)


def test_the_wrapper_is_the_factory_with_a_base():
    rate = fnopt.linear_schedule(0.0, 0.1, 5)
    base = fnopt.chain(fnopt.scale_by_adam(b1=0.0), fnopt.scale_by_learning_rate(rate))
    wrapped, _ = run(fnopt.schedule_free(base, rate), jnp.float32)
    plain, _ = run(schedule_free_adamw(rate), jnp.float32)
    np.testing.assert_allclose(wrapped, plain, rtol=1e-5)


def test_the_average_solves_a_noisy_problem_that_the_iterates_do_not():
    optimizer = schedule_free_sgd(0.5)
    params = jnp.full(20, 5.0)
    state = optimizer.init(params)

    @jax.jit
    def step(carry, key):
        params, state = carry
        g = params + jax.random.normal(key, params.shape)
        updates, state = optimizer.update(g, state, params)
        return (fnopt.apply_updates(params, updates), state), None

    (params, state), _ = jax.lax.scan(
        step, (params, state), jax.random.split(jax.random.key(0), 500)
    )
    evaluated = fnopt.eval_params(state, params)
    assert float(jnp.linalg.norm(evaluated)) < 0.3 * float(
        jnp.linalg.norm(fnopt.tree_get(state, "z"))
    )


def test_a_warmup_of_no_steps_is_refused():
    with pytest.raises(ValueError, match="warmup_steps must be at least 1 or None, got 0"):
        schedule_free_adamw(warmup_steps=0)
