import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnopt
from fnopt.testing.oracles import largest_error


def oracle(rate, weight_decay=1e-2, eps=1e-8, s_init=1e-6, num_betas=6):
    """Of mechanize(sgd(rate)), over a dict of leaves, from the paper's algorithm."""

    def run(start, gradients):
        beta = 1 - 0.1 ** np.arange(1, num_betas + 1)
        r = m = v = np.zeros(num_betas)
        s = None
        theta, delta = dict(start), {k: 0 * p for k, p in start.items()}
        for g in gradients:
            total = s_init if s is None else s.sum()
            old = np.zeros(num_betas) if s is None else s
            g_norm = np.sqrt(sum(np.sum(x**2) for x in g.values()))
            p_norm = np.sqrt(sum(np.sum(x**2) for x in theta.values()))
            pull = weight_decay * total * g_norm / (p_norm + eps)
            h = -sum(np.sum((g[k] + pull * theta[k]) * delta[k]) for k in g)
            clipped = np.clip(h, -m, m)
            m = np.maximum(beta * m, abs(h) + eps)
            v = beta**2 * v + h**2
            r = beta * r + clipped * old
            s = (s_init / num_betas * m + np.maximum(r, 0)) / (np.sqrt(v) + eps)
            delta = {k: delta[k] - rate * g[k] for k in g}
            theta = {k: start[k] + s.sum() * delta[k] for k in g}
            yield theta

    return run


SETTINGS = [dict(), dict(weight_decay=0.0, num_betas=3, s_init=1e-3)]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    optimizer = fnopt.mechanize(fnopt.sgd(1.0), **setting)
    assert largest_error(optimizer, oracle(1.0, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    optimizer = fnopt.mechanize(fnopt.sgd(1.0), **setting)
    assert largest_error(optimizer, oracle(1.0, **setting), jnp.float64) < 1e-12


def test_it_finds_a_rate():
    optimizer = fnopt.mechanize(fnopt.sgd(1.0))
    params = jnp.full(10, 3.0)
    curvature = jnp.geomspace(0.1, 1.0, 10)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(curvature * params, state, params)
        return fnopt.apply_updates(params, updates), state

    start = float(jnp.sum(curvature * params**2))
    for _ in range(300):
        params, state = step(params, state)
    assert float(jnp.sum(curvature * params**2)) < 0.02 * start
    assert float(jnp.sum(fnopt.tree_get(state, "s"))) > 1e-3


def test_no_betas_are_refused():
    with pytest.raises(ValueError, match="num_betas must be at least 1, got 0"):
        fnopt.mechanize(fnopt.sgd(1.0), num_betas=0)
