import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import fnopt
from fnopt.optimizers.galore import galore, scale_by_galore
from fnopt.testing.oracles import largest_error, leafwise, trial

SHAPES = {"tall": (4, 3), "wide": (3, 5), "vector": (5,), "cube": (2, 3, 4), "scalar": ()}


def singular_vectors(g, rank, last):
    """The first right (left) ones of a tall (wide) matrix, in columns, signs as the last ones'."""
    u, _, vh = np.linalg.svd(g, full_matrices=False)
    p = (vh.T if g.shape[0] >= g.shape[1] else u)[:, :rank]
    return p if last is None else p * np.where(np.sum(p * last, axis=0) < 0, -1, 1)


def oracle(rate, rank=128, gap=200, scale=1.0, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0):
    def adam(gradients):
        m = v = 0.0
        for t, g in enumerate(gradients, 1):
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
            yield m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)

    def matrix(gradients):
        tall = gradients[0].shape[0] >= gradients[0].shape[1]
        bases = []
        for t, g in enumerate(gradients):
            bases.append(bases[-1] if t % gap else singular_vectors(g, rank, (bases or [None])[-1]))
        low = [g @ p if tall else p.T @ g for g, p in zip(gradients, bases)]
        for n, p in zip(adam(low), bases):
            yield scale * (n @ p.T if tall else p @ n)

    def steps(gradients):
        if gradients[0].ndim < 2:
            return adam(gradients)
        if gradients[0].ndim == 2:
            return matrix(gradients)
        runs = [matrix([g[i] for g in gradients]) for i in range(len(gradients[0]))]
        return map(np.stack, zip(*runs))

    @leafwise
    def run(theta, gradients):
        for u in steps(gradients):
            theta = theta - rate * (u + weight_decay * theta)
            yield theta

    return run


SETTINGS = [
    dict(rank=2),
    dict(rank=2, scale=0.25, weight_decay=0.1),
    dict(rank=1, b1=0.5, b2=0.9, eps=1e-3),
    dict(),
]


def ours(rate, gap, b1=0.9, b2=0.999, eps=1e-8, **setting):
    base = fnopt.scale_by_adam(b1, b2, eps)
    return galore(rate, update_proj_gap=gap, base_optimizer=base, **setting)


# each setting with one of the gaps; in float64 all are with the short one
IN_FLOAT32 = [
    pytest.param(setting, gap, marks=[pytest.mark.sweep] * (i % 2 != (gap == 200)))
    for i, setting in enumerate(SETTINGS)
    for gap in (200, 7)
]


@pytest.mark.parametrize(("setting", "gap"), IN_FLOAT32, ids=str)
def test_oracle_in_float32(setting, gap):
    wanted = oracle(0.02, gap=gap, **setting)
    assert largest_error(ours(0.02, gap, **setting), wanted, shapes=SHAPES) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    wanted = oracle(0.02, gap=7, **setting)
    assert largest_error(ours(0.02, 7, **setting), wanted, jnp.float64, shapes=SHAPES) < 1e-12


def final(optimizer, params, gradients, apply):
    def step(carry, g):
        params, state = carry
        updates, state = optimizer.update(g, state, params)
        return (apply(params, updates), state), None

    every = jax.tree.map(lambda *gs: np.stack(gs), *gradients)
    run = lambda params, gs: jax.lax.scan(step, (params, optimizer.init(params)), gs)[0][0]
    return jax.jit(run)(params, every)


def test_optax_projects_the_longer_side_which_of_a_square_is_ours_transposed(standard_numerics):
    params, gradients = jax.tree.map(jnp.float32, trial(shapes={"w": (4, 4), "b": (3,)}))
    turned = [{"w": g["w"].T, "b": g["b"]} for g in gradients]
    setting = dict(rank=2, scale=0.25, weight_decay=0.1)
    one = final(galore(0.02, **setting), params, gradients, fnopt.apply_updates)
    params = {"w": params["w"].T, "b": params["b"]}
    two = final(contrib.galore(0.02, **setting), params, turned, optax.apply_updates)
    np.testing.assert_allclose(one["w"], two["w"].T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one["b"], two["b"], rtol=1e-5)
    tall = jnp.ones((64, 16))
    assert contrib.scale_by_galore(rank=4).init(tall).projector.shape == (64, 4)
    assert scale_by_galore(rank=4).init(tall).basis.shape == (4, 16)


def test_state_is_of_the_subspace():
    params = {"tall": jnp.ones((64, 16)), "wide": jnp.ones((3, 16, 64)), "bias": jnp.ones(16)}
    state = jax.eval_shape(scale_by_galore(rank=4).init, params)
    low = {"tall": (64, 4), "wide": (3, 4, 64), "bias": (16,)}
    assert jax.tree.map(jnp.shape, fnopt.tree_get(state, "nu")) == low
    basis = {"tall": (4, 16), "wide": (3, 16, 4), "bias": None}
    assert jax.tree.map(jnp.shape, state.basis) == basis


def test_the_update_lies_in_the_subspace_of_the_gradient_that_it_was_found_from():
    rule = scale_by_galore(rank=1, update_proj_gap=2)
    first, second = (np.float32(np.outer(range(4), row)) for row in np.eye(3)[:2])
    state, update = rule.init(first), jax.jit(rule.update)
    for gradient, column in ((first, 0), (second, 0), (second, 1), (first, 1)):
        updates, state = update(gradient, state)
        np.testing.assert_array_equal(np.any(updates != 0, axis=0), np.arange(3) == column)


def test_another_base_optimizer_sees_the_projected_gradient():
    gradient = np.float32(np.random.default_rng(0).normal(size=(4, 3)))
    rule = scale_by_galore(rank=2, base_optimizer=fnopt.identity())
    updates = jax.jit(lambda g: rule.update(g, rule.init(g))[0])(gradient)
    u, s, vh = np.linalg.svd(np.asarray(gradient, np.float64), full_matrices=False)
    np.testing.assert_allclose(updates, (u[:, :2] * s[:2]) @ vh[:2], atol=1e-5)
    reads_params = scale_by_galore(base_optimizer=fnopt.adamw(1.0))
    with pytest.raises(ValueError, match="needs params"):
        reads_params.update(gradient, reads_params.init(gradient), gradient)
    with pytest.raises(TypeError, match="unknown extra argument 'valeu'"):
        rule.update(gradient, rule.init(gradient), gradient, valeu=1.0)


def test_complex_gradients_turn_as_they_are_turned():
    rule = scale_by_galore(rank=2)
    real, imaginary = np.random.default_rng(0).normal(size=(2, 4, 3))
    gradient, turn = np.complex64(real + 1j * imaginary), np.complex64(np.exp(0.7j))
    first = jax.jit(lambda g: rule.update(g, rule.init(g))[0])
    one, two = first(gradient), first(turn * gradient)
    np.testing.assert_allclose(two, turn * one, rtol=1e-4)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="at least 1"):
        galore(0.1, update_proj_gap=0)
