import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix_oracles import FACTORS, degenerate, error, followed, newton_schulz, oracle, update

import fnopt
from fnopt.optimizers.muon import scale_by_muon
from fnopt.optimizers.normuon import NorMuonState, normuon, scale_by_normuon


def rule(beta=0.95, beta2=0.95, eps=1e-10, nesterov=True, scale="keller_jordan"):
    def start(shape):
        m, v = np.zeros(shape), np.zeros((shape[0], 1))

        def step(g):
            nonlocal m, v
            m = beta * m + (1 - beta) * g
            o = newton_schulz(beta * m + (1 - beta) * g if nesterov else m)
            v = beta2 * v + (1 - beta2) * np.mean(o**2, axis=1, keepdims=True)
            turned = o / (np.sqrt(v) + eps)
            norm = np.linalg.norm(turned)
            return FACTORS[scale](*shape) * turned * (np.linalg.norm(o) / norm if norm else 0)

        return step

    return start


SETTINGS = [
    (dict(), dict()),
    (dict(beta=0.8, beta2=0.5, nesterov=False, scale="moonlight"), dict(weight_decay=0.1)),
    (dict(beta=0.5, eps=0.1, scale="spectral"), dict(layout="out_in", weight_decay=0.1)),
]


# the settings' rules are the same in float64
IN_FLOAT32 = [
    pytest.param(*setting, marks=[pytest.mark.sweep] * (i != 2))
    for i, setting in enumerate(SETTINGS)
]


@pytest.mark.parametrize(("own", "common"), IN_FLOAT32, ids=str)
def test_oracle_in_float32(own, common):
    assert error(normuon(0.02, **own, **common), oracle(rule(**own), 0.02, **common)) < 2e-5


@pytest.mark.parametrize(("own", "common"), SETTINGS, ids=str)
def test_oracle_in_float64(own, common, x64):
    ours = normuon(0.02, **own, **common, fallback=fnopt.adam(0.01, b1=0.5, b2=0.95, eps=1e-3))
    wanted = oracle(rule(**own), 0.02, **common, adam=(0.01, 0.5, 0.95, 1e-3))
    assert error(ours, wanted, jnp.float64) < 1e-11


@pytest.mark.parametrize("layout", ["in_out", "out_in"])
def test_rank_deficient_and_zero_gradients(layout, x64):
    of_ranks = map(degenerate, (1, 2))
    found = [*followed(normuon(0.02, layout=layout), oracle(rule(), 0.02, layout), *of_ranks)]
    assert max(found) < 1e-9, found


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (7, 7)], ids=str)
def test_layouts_are_transposed(shape):
    g = np.float32(np.random.default_rng(0).normal(size=shape))
    other = update(scale_by_normuon(layout="out_in"), g.T).T
    np.testing.assert_allclose(update(scale_by_normuon(), g), other, atol=2e-6)
    if shape[0] != shape[1]:
        np.testing.assert_array_equal(update(scale_by_normuon(), g), other)


def test_stacked_layers_are_single_ones():
    g = np.float32(np.random.default_rng(0).normal(size=(3, 6, 9)))
    one, all_three = update(scale_by_normuon(), g[1]), update(scale_by_normuon(), g)
    np.testing.assert_allclose(all_three[1], one, atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 12), (12, 8)], ids=str)
def test_neurons_move_alike_and_the_matrix_as_by_muon(shape):
    g = np.float32(np.random.default_rng(0).normal(size=shape)) * jnp.logspace(0, 2, shape[1])[None]
    u, plain = update(scale_by_normuon(), g), update(scale_by_muon(), g)
    sizes = np.linalg.norm(u, axis=0)
    np.testing.assert_allclose(sizes, sizes[0], rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(u), np.linalg.norm(plain), rtol=1e-5)


def test_rotated_inputs_and_permuted_outputs():
    keys = jax.random.split(jax.random.key(0), 3)
    g, a = jax.random.normal(keys[0], (6, 9)), jax.random.normal(keys[1], (6, 6))
    turn, order = jnp.linalg.qr(a)[0], jax.random.permutation(keys[2], 9)
    one = update(scale_by_normuon(), (turn @ g)[:, order])
    np.testing.assert_allclose(one, (turn @ update(scale_by_normuon(), g))[:, order], atol=1e-4)


def test_a_second_moment_for_each_neuron():
    params = {"w": jnp.ones((4, 3)), "s": jnp.ones((2, 4, 3)), "c": jnp.ones((5, 2, 4, 3))}
    shapes = {"w": (1, 3), "s": (2, 1, 3), "c": (1, 1, 1, 3)}
    nu = fnopt.find(normuon(0.02).init(params), NorMuonState).nu
    assert jax.tree.map(jnp.shape, nu) == shapes
    nu = fnopt.find(normuon(0.02, layout="out_in").init(params), NorMuonState).nu
    assert nu["w"].shape == (4, 1)
    assert nu["c"].shape == (5, 1, 1, 1)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="normuon: scale must be one of"):
        normuon(0.02, scale="rms")
    with pytest.raises(ValueError, match="normuon: beta2 must be in"):
        normuon(0.02, beta2=1.0)
