import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnopt
from fnopt.optimizers.scion import Ball, scion, scion_init
from fnopt.testing.oracles import largest_error

SHAPES = {"hidden": (4, 3), "stack": (2, 3, 4), "bias": (5,), "scalar": (), "head": (3, 4)}
SHAPES |= {"embedding": (4, 2), "rows": (3, 5), "kernel": (2, 2, 3, 4)}
NORMS = {
    "hidden": Ball("spectral", 2.0),
    "stack": "spectral",
    "bias": "bias",
    "scalar": "bias",
    "head": Ball("sign", 3.0),
    "embedding": "col",
    "rows": "row",
    "kernel": "conv",
}


def newton_schulz(x, steps=5):
    x = x / np.sqrt(np.sum(x**2))
    for _ in range(steps):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x


def lmo(word, m):
    if not m.any():
        return 0 * m
    if word == "bias":
        return m / np.sqrt(np.mean(m**2))
    d_in, d_out = m.shape[-2:]
    if word == "sign":
        return np.sign(m) / d_in
    if word == "col":
        return np.stack([np.sqrt(d_out) * row / np.linalg.norm(row) for row in m])
    if word == "row":
        return np.stack([c / np.linalg.norm(c) / np.sqrt(d_in) for c in m.T]).T
    if word == "conv":
        flat = newton_schulz(m.reshape(-1, d_out)).reshape(m.shape)
        return np.sqrt(d_out / d_in) * flat / (m.shape[0] * m.shape[1])
    if m.ndim == 3:
        return np.stack([lmo(word, x) for x in m])
    return np.sqrt(d_out / d_in) * newton_schulz(m)


def oracle(rate, alpha=0.1, constrained=True):
    def run(start, gradients):
        x = {k: np.array(p) for k, p in start.items()}
        m = {k: 0 * p for k, p in start.items()}
        for gs in gradients:
            for k, g in gs.items():
                ball = NORMS[k] if isinstance(NORMS[k], Ball) else Ball(NORMS[k])
                m[k] = (1 - alpha) * m[k] + alpha * g
                away = ball.radius * lmo(ball.norm, m[k])
                x[k] = (1 - rate if constrained else 1) * x[k] - rate * away
            yield dict(x)

    return run


SETTINGS = [dict(), dict(alpha=1.0, constrained=False), dict(alpha=0.5)]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    optimizer = scion(0.05, norms=NORMS, **setting)
    error = largest_error(optimizer, oracle(0.05, **setting), shapes=SHAPES)
    assert error < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    optimizer = scion(0.05, norms=NORMS, **setting)
    error = largest_error(optimizer, oracle(0.05, **setting), jnp.float64, shapes=SHAPES)
    assert error < 1e-12


def test_the_start_is_on_the_surface_and_the_run_stays_inside():
    shapes = {k: jnp.zeros(s) for k, s in SHAPES.items()}
    params = scion_init(jax.random.key(0), shapes, NORMS)
    values = np.linalg.svd(params["hidden"], compute_uv=False)
    np.testing.assert_allclose(values, 2 * np.sqrt(3 / 4), rtol=1e-5)
    values = np.linalg.svd(params["kernel"], compute_uv=False)
    np.testing.assert_allclose(values, np.sqrt(4 / 3) / 4, rtol=1e-5)
    np.testing.assert_allclose(np.abs(params["head"]), 3 / 3)
    np.testing.assert_allclose(np.linalg.norm(params["embedding"], axis=1), np.sqrt(2), rtol=1e-5)
    assert not params["bias"].any()
    optimizer = scion(0.3, norms=NORMS)
    state = optimizer.init(params)
    for _ in range(10):
        updates, state = optimizer.update(jax.tree.map(jnp.ones_like, params), state, params)
        params = fnopt.apply_updates(params, updates)
    assert np.linalg.norm(params["hidden"], 2) < 2 * 1.3 * np.sqrt(3 / 4)
    assert np.abs(params["head"]).max() <= 1 + 1e-6


def test_norms_are_declared():
    params = {"a": jnp.ones((2, 2)), "b": jnp.ones(3)}
    with pytest.raises(ValueError, match="spectrall"):
        scion(0.1, norms="spectrall").init(params)
    by_rule = scion(0.1, norms=lambda p: jax.tree.map(lambda x: "sign", p))
    updates, _ = by_rule.update(params, by_rule.init(params), params)
    np.testing.assert_allclose(updates["a"], -0.1 * (0.5 + 1), rtol=1e-6)


def test_equal_sides_are_one_stack_and_transposed_ones_turn():
    keys = jax.random.split(jax.random.key(0), 2)
    w, stack = jax.random.normal(keys[0], (3, 5)), jax.random.normal(keys[1], (2, 3, 5))
    params = {"w": w, "turned": w.T, "stack": stack, "layer": stack[1], "zero": 0 * w}
    optimizer = scion(1.0, 1.0, constrained=False)
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    np.testing.assert_allclose(updates["turned"], updates["w"].T * (3 / 5), rtol=1e-6)
    np.testing.assert_allclose(updates["stack"][1], updates["layer"], atol=1e-6)
    assert not updates["zero"].any()


def test_without_memory_there_is_no_state():
    assert fnopt.tree_get(scion(0.1, alpha=1.0).init(jnp.ones(3)), "mu") is None
