import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import fnopt
from fnopt.optimizers.dadapt_adamw import dadapt_adamw
from fnopt.testing.oracles import largest_error, trial


def oracle(
    rate=1.0,
    betas=(0.9, 0.999),
    eps=1e-8,
    estim_lr0=1e-6,
    weight_decay=0.0,
    growth_rate=np.inf,
    bias_correction=False,
):
    b1, b2 = betas
    b3 = np.sqrt(b2)

    def run(start, gradients):
        x = {k: np.array(p) for k, p in start.items()}
        m, v, s = ({k: 0 * p for k, p in start.items()} for _ in range(3))
        d, r = estim_lr0, 0.0
        for t, gs in enumerate(gradients, 1):
            rho = d * rate
            if bias_correction:
                rho *= np.sqrt(1 - b2**t) / (1 - b1**t)
            ahead = sum(rho * np.sum(g * s[k] / (np.sqrt(v[k]) + eps)) for k, g in gs.items())
            for k, g in gs.items():
                m[k] = b1 * m[k] + (1 - b1) * rho * g
                v[k] = b2 * v[k] + (1 - b2) * g**2
                s[k] = b3 * s[k] + (1 - b3) * rho * g
            r = b3 * r + (1 - b3) * ahead
            size = sum(np.abs(s[k]).sum() for k in s)
            if size > 0:
                d = max(d, min(r / ((1 - b3) * size), d * growth_rate))
            for k in x:
                decay = rho * weight_decay * x[k]
                x[k] = x[k] - decay - m[k] / (np.sqrt(v[k]) + eps)
            yield dict(x)

    return run


SETTINGS = [
    dict(estim_lr0=1e-2),
    dict(
        betas=(0.8, 0.9),
        eps=1e-3,
        estim_lr0=0.05,
        weight_decay=0.1,
        growth_rate=1.1,
        bias_correction=True,
    ),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=["default", "all"])
def test_oracle_in_float32(setting):
    assert largest_error(dadapt_adamw(0.5, **setting), oracle(0.5, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=["default", "all"])
def test_oracle_in_float64(setting, x64):
    error = largest_error(dadapt_adamw(0.5, **setting), oracle(0.5, **setting), jnp.float64)
    assert error < 1e-12


def run(optimizer, params, gradients, apply=fnopt.apply_updates):
    step = jax.jit(lambda g, s, p: optimizer.update(g, s, p))
    state = optimizer.init(params)
    for g in gradients:
        updates, state = step(g, state, params)
        params = apply(params, updates)
    return params, state


def test_with_bias_correction_it_is_optaxs(standard_numerics):
    params, gradients = jax.tree.map(jnp.float32, trial(zero_step=0))
    setting = dict(estim_lr0=0.01, weight_decay=0.1)
    ours, _ = run(dadapt_adamw(**setting, bias_correction=True), params, gradients)
    theirs, _ = run(contrib.dadapt_adamw(**setting), params, gradients, optax.apply_updates)
    for k in params:
        np.testing.assert_allclose(ours[k], theirs[k], rtol=1e-4, atol=1e-5)


def test_gradients_of_zero_change_nothing_where_optax_makes_nan(standard_numerics):
    params = {"w": jnp.ones(3)}
    zeros = [{"w": jnp.zeros(3)}] * 2
    _, theirs = run(contrib.dadapt_adamw(), params, zeros, optax.apply_updates)
    assert np.isnan(theirs.estim_lr)
    after, state = run(dadapt_adamw(), params, zeros)
    np.testing.assert_array_equal(after["w"], params["w"])
    np.testing.assert_allclose(fnopt.tree_get(state, "d"), 1e-6)
