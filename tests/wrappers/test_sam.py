import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnopt
from fnopt.wrappers.sam import asam, sam

A = jnp.asarray(np.diag([1.0, 10.0, 0.1]), jnp.float32)


def loss(params):
    w, b = params["w"], params["b"]
    return 0.5 * w @ (A @ w) + jnp.sum(b**4)


START = {"w": jnp.array([1.0, -0.5, 2.0]), "b": jnp.array([0.3, -0.7])}
grad = jax.grad(loss)


def reference(rho, rate, steps, eta=None):
    """The papers' steps in NumPy, float64."""
    theta = {k: np.asarray(p, np.float64) for k, p in START.items()}
    a = np.asarray(A, np.float64)
    slope = lambda p: {"w": a @ p["w"], "b": 4 * p["b"] ** 3}
    for _ in range(steps):
        g = slope(theta)
        t = {k: 1.0 if eta is None else np.abs(p) + eta for k, p in theta.items()}
        norm = np.sqrt(sum(np.sum((t[k] * g[k]) ** 2) for k in g))
        worst = {k: theta[k] + rho * t[k] ** 2 * g[k] / norm for k in g}
        theta = {k: theta[k] - rate * slope(worst)[k] for k in g}
    return theta


def two_steps(optimizer, steps):
    params, state = START, optimizer.init(START)
    for _ in range(2 * steps):
        updates, state = optimizer.update(grad(params), state, params)
        params = fnopt.apply_updates(params, updates)
    return params, state


def at_once(optimizer, steps):
    params, state = START, optimizer.init(START)

    @jax.jit
    def step(params, state):
        grad_fn = lambda p, i: grad(p)
        updates, state = optimizer.update(grad(params), state, params, grad_fn=grad_fn)
        return fnopt.apply_updates(params, updates), state

    for _ in range(steps):
        params, state = step(params, state)
    return params, state


@pytest.mark.parametrize("run", [two_steps, at_once], ids=["two steps", "opaque"])
@pytest.mark.parametrize(("factory", "eta"), [(sam, None), (asam, 0.01)], ids=["sam", "asam"])
def test_the_steps_are_the_papers(run, factory, eta):
    optimizer = factory(fnopt.sgd(0.05), rho=0.1, opaque_mode=run is at_once)
    params, state = run(optimizer, 12)
    for k, wanted in reference(0.1, 0.05, 12, eta).items():
        np.testing.assert_allclose(params[k], wanted, rtol=2e-5, atol=1e-6)
    assert state.count == 12


def test_agrees_with_optax(standard_numerics):
    adversary = optax.chain(optax.contrib.normalize(), optax.sgd(0.1))
    peer = optax.contrib.sam(optax.adam(0.05), adversary, sync_period=3)
    ours = sam(fnopt.adam(0.05), adversary, sync_period=3)
    theirs = two_steps(peer, 6)[0]
    for k, p in two_steps(ours, 6)[0].items():
        np.testing.assert_allclose(p, theirs[k], rtol=1e-5, atol=1e-6)


def test_zero_gradients_stay_finite():
    zero = jax.tree.map(jnp.zeros_like, START)
    for factory in (sam, asam):
        optimizer = factory(fnopt.sgd(0.1))
        state = optimizer.init(START)
        for _ in range(2):
            updates, state = optimizer.update(zero, state, START)
            assert not any(u.any() for u in updates.values())


def test_leaves_that_are_no_arrays_of_floats():
    params = START | {"n": 3}
    optimizer = sam(fnopt.sgd(0.1), opaque_mode=True)
    slope = lambda p, i: grad({"w": p["w"], "b": p["b"]}) | {"n": None}
    gradients = grad(START) | {"n": 3}
    updates, _ = optimizer.update(gradients, optimizer.init(params), params, grad_fn=slope)
    assert updates["n"] == 3


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="asam: sync_period must be at least 1, got 0"):
        asam(fnopt.sgd(0.1), sync_period=0)
    opaque = sam(fnopt.sgd(0.1), opaque_mode=True)
    with pytest.raises(TypeError, match="sam needs grad_fn="):
        opaque.update(START, opaque.init(START), START)
