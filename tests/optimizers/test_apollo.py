import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnopt
from fnopt.optimizers.apollo import apollo, apollo_mini, scale_by_apollo
from fnopt.testing.oracles import largest_error, leafwise

SHAPES = {"tall": (4, 3), "wide": (3, 5), "vector": (5,), "cube": (2, 3, 4), "scalar": ()}


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def drawn(draw, shape, rank, dtype):
    key = jax.random.fold_in(jax.random.key(7), draw)
    return jax.random.normal(key, shape, dtype) / rank**0.5


def projection(*args):
    return np.float64(drawn(*args))


def oracle(
    rate,
    dtype=jnp.float32,
    rank=256,
    gap=200,
    scale=1.0,
    scale_type="channel",
    b1=0.9,
    b2=0.999,
    eps=1e-6,
    max_growth=1.01,
    weight_decay=0.0,
):
    def corrected(t):
        return np.sqrt(1 - b2**t) / (1 - b1**t)

    def adam(theta, gradients):
        m, v = 0 * theta, 0 * theta
        for t, g in enumerate(gradients, 1):
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
            u = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
            theta = theta - rate * (u + weight_decay * theta)
            yield theta

    def matrix(theta, gradients):
        rows, cols = theta.shape
        r = min(rank, rows, cols)
        m = v = last = 0.0
        for t, g in enumerate(gradients, 1):
            if rows >= cols:
                low = g @ projection((t - 1) // gap, (r, cols), r, dtype).T
            else:
                low = projection((t - 1) // gap, (rows, r), r, dtype).T @ g
            m, v = b1 * m + (1 - b1) * low, b2 * v + (1 - b2) * low**2
            normal = m / (np.sqrt(v) + eps)
            axis = None if scale_type == "tensor" else 1 if rows >= cols else 0
            size = [np.sqrt(np.sum(x**2, axis=axis, keepdims=True)) for x in (normal, low)]
            u = 0 * g if not g.any() else g * size[0] / size[1]
            norm = np.linalg.norm(u)
            if last > 0 and norm > max_growth * last:
                u = u * max_growth * last / norm
            last = np.linalg.norm(u) if norm > 0 else last
            step = np.sqrt(scale) * corrected(t) * u
            theta = theta - rate * (step + weight_decay * theta)
            yield theta

    @leafwise
    def run(theta, gradients):
        if theta.ndim < 2:
            yield from adam(theta, gradients)
        elif theta.ndim == 2:
            yield from matrix(theta, gradients)
        else:
            runs = [matrix(theta[i], [g[i] for g in gradients]) for i in range(len(theta))]
            yield from map(np.stack, zip(*runs))

    return run


SETTINGS = [
    dict(),
    dict(rank=2, scale_type="tensor", scale=4.0, weight_decay=0.1, max_growth=1.2),
    dict(rank=2, b1=0.5, b2=0.9, eps=1e-3, max_growth=float("inf")),
    dict(rank=1, b1=0.0),
]


# each setting with one of the gaps; in float64 all are with the short one
IN_FLOAT32 = [
    pytest.param(setting, gap, marks=[pytest.mark.sweep] * (i % 2 != (gap == 200)))
    for i, setting in enumerate(SETTINGS)
    for gap in (200, 5)
]


@pytest.mark.parametrize(("setting", "gap"), IN_FLOAT32, ids=str)
def test_oracle_in_float32(setting, gap):
    optimizer = apollo(0.02, key=7, update_proj_gap=gap, **setting)
    wanted = oracle(0.02, gap=gap, **setting)
    assert largest_error(optimizer, wanted, shapes=SHAPES) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    optimizer = apollo(0.02, key=7, update_proj_gap=5, **setting)
    wanted = oracle(0.02, jnp.float64, gap=5, **setting)
    assert largest_error(optimizer, wanted, jnp.float64, shapes=SHAPES) < 1e-12


def test_mini_is_of_rank_one_with_a_scale_for_each_matrix(x64):
    wanted = oracle(1e-3, jnp.float64, rank=1, scale=128.0, scale_type="tensor")
    assert largest_error(apollo_mini(1e-3, key=7), wanted, jnp.float64, shapes=SHAPES) < 1e-12


def test_the_moments_are_small_and_no_projection_is_kept():
    params = {"tall": jnp.ones((64, 16)), "wide": jnp.ones((3, 16, 64)), "bias": jnp.ones(16)}
    state = jax.eval_shape(scale_by_apollo(key=0, rank=4).init, params)
    shapes = {"tall": (64, 4), "wide": (3, 4, 64), "bias": (16,)}
    assert jax.tree.map(jnp.shape, state.mu) == jax.tree.map(jnp.shape, state.nu) == shapes
    assert jax.eval_shape(scale_by_apollo(key=0, b1=0.0).init, params).mu is None
    assert jax.tree.map(jnp.shape, state.norm) == {"tall": (1, 1), "wide": (3, 1, 1), "bias": None}


def test_a_resumed_run_draws_the_same_and_layers_share_it_stacked_or_apart():
    optimizer = apollo(0.1, key=jax.random.key(3), rank=2, update_proj_gap=2)
    stack = np.float32(np.random.default_rng(1).normal(size=(2, 4, 5)))
    apart = {"second": stack[1], "other": jnp.ones((7, 3)), "first": stack[0]}
    init, update = jax.jit(optimizer.init), jax.jit(optimizer.update)
    states = init(stack), init(apart)
    for t in range(5):
        gradient = stack + np.float32(t)
        updates, together = update(gradient, states[0], stack)
        gradients = {"second": gradient[1], "other": jnp.ones((7, 3)), "first": gradient[0]}
        alone, separate = update(gradients, states[1], apart)
        np.testing.assert_allclose(updates[0], alone["first"], rtol=1e-5)
        np.testing.assert_allclose(updates[1], alone["second"], rtol=1e-5)
        again = fnopt.restore(init(stack), fnopt.named_arrays(together))
        states = again, separate


def test_the_key_decides_and_the_draw_changes_after_the_gap():
    gradient = np.float32(np.arange(12.0).reshape(4, 3) - 5)

    def first(optimizer, steps=1):
        step = lambda state, _: optimizer.update(gradient, state)[::-1]
        run = lambda g: jax.lax.scan(step, optimizer.init(g), length=steps)[1][-1]
        return np.asarray(jax.jit(run)(gradient))

    rule = {k: scale_by_apollo(key=k, rank=1, max_growth=float("inf")) for k in (0, 1)}
    assert np.abs(first(rule[0]) - first(rule[1])).max() > 1e-3
    # with one draw for ever, a constant gradient's scale does not change
    kept, renewed = (
        scale_by_apollo(key=0, rank=1, b1=0.0, b2=0.0, update_proj_gap=gap, max_growth=9.0)
        for gap in (9, 2)
    )
    np.testing.assert_allclose(first(kept, 3), first(kept, 2), rtol=1e-5)
    np.testing.assert_allclose(first(renewed, 2), first(kept, 2), rtol=1e-5)
    assert not np.allclose(first(renewed, 3), first(kept, 3), rtol=1e-2)


def test_after_a_zero_gradient_the_leaf_moves_on():
    rule = scale_by_apollo(key=0)
    gradient, update = np.ones((3, 3), np.float32), jax.jit(rule.update)
    state = rule.init(gradient)
    sizes = []
    for g in (gradient, 0 * gradient, gradient):
        updates, state = update(g, state)
        sizes.append(float(np.linalg.norm(updates)))
    assert sizes[1] == 0
    assert sizes[2] > 0.3 * sizes[0]


def test_complex_gradients_turn_as_they_are_turned():
    rule = scale_by_apollo(key=0, rank=2)
    real, imaginary = np.random.default_rng(0).normal(size=(2, 4, 3))
    gradient, turn = np.complex64(real + 1j * imaginary), np.complex64(np.exp(0.7j))
    first = jax.jit(lambda g: rule.update(g, rule.init(g))[0])
    one, two = first(gradient), first(turn * gradient)
    np.testing.assert_allclose(two, turn * one, rtol=1e-4)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="key"):
        apollo(0.1)
    assert apollo(0.1, seed=3).init(jnp.ones(2)) is not None
    with pytest.raises(ValueError, match="channel"):
        apollo(0.1, key=0, scale_type="row")
    with pytest.raises(ValueError, match="at least 1"):
        scale_by_apollo(key=0, rank=0)
