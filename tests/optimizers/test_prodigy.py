import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import fnopt
from fnopt.optimizers.prodigy import prodigy
from fnopt.testing.oracles import SHAPES, largest_error, trial


def oracle(
    rate=1.0,
    betas=(0.9, 0.999),
    beta3=None,
    eps=1e-8,
    estim_lr0=1e-6,
    estim_lr_coef=1.0,
    weight_decay=0.0,
    safeguard_warmup=False,
    growth_rate=np.inf,
    slice_p=1,
    bias_correction=False,
):
    b1, b2 = betas
    b3 = np.sqrt(b2) if beta3 is None else beta3

    def cut(x):
        """Every second entry along the first axis, where it can be divided so."""
        return x[::slice_p] if x.ndim and x.shape[0] % slice_p == 0 else x

    def run(start, gradients):
        x = {k: np.array(p) for k, p in start.items()}
        m, v = ({k: 0 * p for k, p in start.items()} for _ in range(2))
        s = {k: 0 * cut(p) for k, p in start.items()}
        d = d_max = d0 = estim_lr0
        r = 0.0
        for t, gs in enumerate(gradients, 1):
            rho = d * rate
            if bias_correction:
                rho *= np.sqrt(1 - b2**t) / (1 - b1**t)
            r *= b3
            for k, g in gs.items():
                r += d / d0 * rho * np.sum(cut(g) * cut(start[k] - x[k]))
                m[k] = b1 * m[k] + (1 - b1) * d * g
                v[k] = b2 * v[k] + (1 - b2) * d**2 * g**2
                s[k] = b3 * s[k] + d / d0 * (d if safeguard_warmup else rho) * cut(g)
            size = sum(np.abs(x).sum() for x in s.values())
            if size > 0:
                found = estim_lr_coef * r / size
                if d == d0:
                    d = max(d, found)
                d_max = max(d_max, found)
                d = min(d_max, d * growth_rate)
            for k in x:
                decay = rho * weight_decay * x[k]
                x[k] = x[k] - decay - rho * m[k] / (np.sqrt(v[k]) + d * eps)
            yield dict(x)

    return run


SETTINGS = [
    dict(estim_lr0=1e-2),
    dict(
        betas=(0.8, 0.9),
        beta3=0.7,
        eps=1e-3,
        estim_lr0=0.05,
        estim_lr_coef=2.0,
        weight_decay=0.1,
        safeguard_warmup=True,
        growth_rate=1.1,
        bias_correction=True,
    ),
    dict(estim_lr0=1e-2, slice_p=2),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=["default", "all", "sliced"])
def test_oracle_in_float32(setting):
    assert largest_error(prodigy(0.3, **setting), oracle(0.3, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=["default", "all", "sliced"])
def test_oracle_in_float64(setting, x64):
    error = largest_error(prodigy(0.3, **setting), oracle(0.3, **setting), jnp.float64)
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
    ours, _ = run(prodigy(**setting, bias_correction=True), params, gradients)
    theirs, _ = run(contrib.prodigy(**setting), params, gradients, optax.apply_updates)
    for k in params:
        np.testing.assert_allclose(ours[k], theirs[k], rtol=1e-4, atol=1e-5)


def test_gradients_of_zero_change_nothing_where_optax_makes_nan(standard_numerics):
    params = {"w": jnp.ones(3)}
    zeros = [{"w": jnp.zeros(3)}] * 2
    assert np.isnan(run(contrib.prodigy(), params, zeros, optax.apply_updates)[0]["w"]).all()
    after, state = run(prodigy(), params, zeros)
    np.testing.assert_array_equal(after["w"], params["w"])
    np.testing.assert_allclose(fnopt.tree_get(state, "d"), 1e-6)


def test_d_is_of_the_order_of_the_distance():
    params, target = jnp.zeros(10), 3.0
    optimizer = prodigy()
    state = optimizer.init(params)

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jnp.sign(params - target), state, params)
        return fnopt.apply_updates(params, updates), state

    for _ in range(200):
        params, state = step(params, state)
    assert 0.1 < fnopt.tree_get(state, "d") < 6.0
    assert np.abs(params - target).max() < 0.5


def test_slices_save_memory_and_estimate_alike():
    params = {k: jnp.zeros(s) for k, s in SHAPES.items()} | {"wide": jnp.zeros((12, 7))}
    optimizer = prodigy(slice_p=6)
    state = optimizer.init(params)
    start = fnopt.tree_get(state, "start")
    assert start["wide"].shape == (2, 7)
    assert start["vector"].shape == (1,)
    gradients = [jax.tree.map(jnp.ones_like, params)] * 30
    few, all_ = (run(prodigy(slice_p=n), params, gradients)[1] for n in (6, 1))
    d = float(fnopt.tree_get(all_, "d"))
    assert d > 1e-4
    assert fnopt.tree_get(few, "d") == pytest.approx(d, rel=1e-3)
