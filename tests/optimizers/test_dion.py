import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix_oracles import FACTORS, degenerate, error, follow, oracle, update

import fnopt
from fnopt.optimizers.dion import DionState, dion, scale_by_dion


@functools.partial(jax.jit, static_argnums=(1, 2))
def drawn(key, shape, dtype):
    return jax.random.normal(jax.random.key(key), shape, dtype)


def rule(fraction=1.0, beta=0.95, eps=1e-8, rank=None, scale="spectral", key=0, dtype=np.float64):
    def start(shape):
        r = math.ceil(fraction * min(shape)) if rank is None else min(rank, *shape)
        m = np.zeros(shape)
        q = np.float64(drawn(key, (shape[1], r), dtype))

        def step(g):
            nonlocal m, q
            m = m + g
            p = np.linalg.qr(m @ q)[0]
            back = m.T @ p
            sizes = np.linalg.norm(back, axis=0)
            lost = sizes <= 1e-12 * np.linalg.norm(m)
            unit = np.where(lost, 0, back / np.where(lost, 1, sizes + eps))
            m = m - (1 - beta) * p @ back.T
            q = np.where(lost, q, unit)
            return FACTORS[scale](*shape) * p @ unit.T

        return step

    return start


SETTINGS = [
    (dict(), dict()),
    (dict(fraction=0.5, beta=0.8, eps=0.1), dict(weight_decay=0.1)),
    (dict(rank=2, beta=0.5, scale="moonlight", key=3), dict(layout="out_in", weight_decay=0.1)),
]


def built(own, common):
    own = {"rank_fraction" if k == "fraction" else k: v for k, v in own.items()}
    return dion(0.02, **{"weight_decay": 0.0} | own | common)


# the settings' rules are the same in float64
IN_FLOAT32 = [
    pytest.param(*setting, marks=[pytest.mark.sweep] * (i != 2))
    for i, setting in enumerate(SETTINGS)
]


@pytest.mark.parametrize(("own", "common"), IN_FLOAT32, ids=str)
def test_oracle_in_float32(own, common):
    wanted = oracle(rule(**own, dtype=np.float32), 0.02, **common)
    assert error(built(own, common), wanted) < 2e-5


@pytest.mark.parametrize(("own", "common"), SETTINGS, ids=str)
def test_oracle_in_float64(own, common, x64):
    assert error(built(own, common), oracle(rule(**own), 0.02, **common), jnp.float64) < 1e-11


@pytest.mark.parametrize("layout", ["in_out", "out_in"])
def test_zero_gradients_and_those_of_the_rank(layout, x64):
    optimizer, wanted = dion(0.02, rank=2, layout=layout), oracle(rule(rank=2), 0.02, layout, 0.01)
    params, gradients = degenerate(2, steps=1)
    assert follow(optimizer, wanted, params, gradients) < 1e-9


def test_what_is_lost_in_rounding_makes_no_step():
    """Of three columns one has a meaning; the paper's other two would be noise as long as it."""
    rng = np.random.default_rng(0)
    g = np.float32(rng.normal(size=(6, 1)) @ rng.normal(size=(1, 5)))
    optimizer = scale_by_dion(rank=3)
    state, update = jax.jit(optimizer.init)(g), jax.jit(optimizer.update)
    u, new = update(g, state)
    one = g / np.linalg.norm(g) * (5 / 6) ** 0.5
    np.testing.assert_allclose(u, one, atol=1e-5)
    np.testing.assert_array_equal(new.q[0, :, 1:], state.q[0, :, 1:])
    still, same = update(0 * g, state)
    assert not np.any(still)
    jax.tree.map(np.testing.assert_array_equal, same, state)


@pytest.mark.parametrize("shape", [(7, 7), (2, 6, 9), (2, 9, 6)], ids=str)
def test_layouts_are_transposed(shape):
    g = np.float32(np.random.default_rng(0).normal(size=shape))
    other = update(scale_by_dion(0.5, layout="out_in"), g.mT).mT
    np.testing.assert_allclose(update(scale_by_dion(0.5), g), other, atol=1e-6)


def test_stacked_layers_are_single_ones():
    g = np.float32(np.random.default_rng(0).normal(size=(3, 6, 9)))
    one, all_three = update(scale_by_dion(0.5), g[1]), update(scale_by_dion(0.5), g)
    np.testing.assert_allclose(all_three[1], one, atol=1e-6)


def test_rotated_outputs():
    keys = jax.random.split(jax.random.key(0), 2)
    g, a = jax.random.normal(keys[0], (6, 9)), jax.random.normal(keys[1], (9, 9))
    turn = jnp.linalg.qr(a)[0]
    turned = update(scale_by_dion(0.5), g @ turn)
    np.testing.assert_allclose(turned, update(scale_by_dion(0.5), g) @ turn, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 2])
def test_of_one_gradient_it_finds_the_first_singular_vectors(rank):
    rng = np.random.default_rng(0)
    left, right = (np.float32(np.linalg.qr(rng.normal(size=(6, 4)))[0]) for _ in range(2))
    g = (left * np.float32([[8.0, 4.0, 1.0, 0.1]])) @ right.T
    optimizer = scale_by_dion(rank=rank, beta=0.0)

    @jax.jit
    def last(g):
        def step(state, _):
            u, state = optimizer.update(g, state._replace(mu=jnp.zeros((6, 6))))
            return state, u

        return jax.lax.scan(step, optimizer.init(g), length=30)[1][-1]

    u = last(g)
    np.testing.assert_allclose(u, left[:, :rank] @ right[:, :rank].T, atol=1e-5)


def test_what_the_rank_missed_stays():
    g = np.float32(np.random.default_rng(0).normal(size=(6, 9)))
    optimizer = scale_by_dion(rank=2, beta=0.5, scale="spectral")
    state = jax.jit(optimizer.init)(g)
    _, new = jax.jit(optimizer.update)(g, state)
    p = np.linalg.qr(g.T @ np.asarray(state.q[0]))[0]
    np.testing.assert_allclose(new.mu, g - 0.5 * g @ p @ p.T, atol=1e-5)


def test_the_state_holds_a_factor_for_each_matrix():
    params = {"w": jnp.ones((8, 6)), "s": jnp.ones((3, 4, 8)), "c": jnp.ones((2, 2, 3, 4))}
    state = fnopt.find(jax.jit(dion(0.01, 0.5).init)(params), DionState)
    assert jax.tree.map(jnp.shape, state.q) == {"w": (1, 8, 3), "s": (3, 4, 2), "c": (1, 12, 2)}
    other = fnopt.find(jax.jit(dion(0.01, 0.5, key=1).init)(params), DionState)
    assert not np.allclose(state.q["w"], other.q["w"])


def test_mistakes_are_named():
    for wrong in (dict(rank_fraction=0.0), dict(rank_fraction=1.5), dict(rank=0)):
        with pytest.raises(ValueError, match="dion: rank_fraction must be in"):
            dion(0.02, **wrong)
    with pytest.raises(ValueError, match="dion: beta must be in"):
        dion(0.02, beta=1.0)
