import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix_oracles import FACTORS, degenerate, error, followed, newton_schulz, oracle, update

import fnopt
from fnopt.optimizers.mars_muon import mars_muon, scale_by_mars_muon
from fnopt.optimizers.muon import scale_by_muon


def rule(beta=0.95, gamma=0.025, nesterov=False, scale="moonlight"):
    def start(shape):
        m, last = np.zeros(shape), np.zeros(shape)

        def step(g):
            nonlocal m, last
            c = g + gamma * beta / (1 - beta) * (g - last)
            c = c / max(1.0, np.linalg.norm(c))
            m, last = beta * m + (1 - beta) * c, g
            o = newton_schulz(beta * m + (1 - beta) * c if nesterov else m)
            return FACTORS[scale](*shape) * o

        return step

    return start


SETTINGS = [
    (dict(), dict()),
    (dict(beta=0.8, gamma=0.5, nesterov=True, scale="keller_jordan"), dict(weight_decay=0.1)),
    (dict(beta=0.5, scale="spectral"), dict(layout="out_in", weight_decay=0.1)),
]


# the settings' rules are the same in float64
IN_FLOAT32 = [
    pytest.param(*setting, marks=[pytest.mark.sweep] * (i != 2))
    for i, setting in enumerate(SETTINGS)
]


@pytest.mark.parametrize(("own", "common"), IN_FLOAT32, ids=str)
def test_oracle_in_float32(own, common):
    assert error(mars_muon(0.02, **own, **common), oracle(rule(**own), 0.02, **common)) < 2e-5


@pytest.mark.parametrize(("own", "common"), SETTINGS, ids=str)
def test_oracle_in_float64(own, common, x64):
    ours = mars_muon(0.02, **own, **common, fallback=fnopt.adam(0.01, b1=0.5, b2=0.95, eps=1e-3))
    wanted = oracle(rule(**own), 0.02, **common, adam=(0.01, 0.5, 0.95, 1e-3))
    assert error(ours, wanted, jnp.float64) < 1e-11


@pytest.mark.parametrize("layout", ["in_out", "out_in"])
def test_rank_deficient_and_zero_gradients(layout, x64):
    params, gradients = degenerate(1)
    trials = [  # longer than 1, and shorter
        (params, [{k: size * g for k, g in gs.items()} for gs in gradients]) for size in (1.0, 1e-3)
    ]
    found = [*followed(mars_muon(0.02, layout=layout), oracle(rule(), 0.02, layout), *trials)]
    assert max(found) < 1e-9, found


def test_each_matrix_of_a_stack_has_its_own_norm():
    g = np.float32(np.random.default_rng(0).normal(size=(2, 3, 5, 4)))
    numbers = lambda x: (x.ndim - 2, x.ndim - 1)
    from fnopt.matrices import MatrixDimensionNumbers

    rule = scale_by_mars_muon(dimension_numbers=lambda x: MatrixDimensionNumbers(*numbers(x)))
    g = g * np.float32([1e-3, 1.0]).reshape(2, 1, 1, 1)
    state, update = jax.jit(rule.init)(g), jax.jit(rule.update)
    for h in (g, np.float32(-0.3) * g, g[:, ::-1]):
        u, state = update(h, state)
    alone = jax.jit(rule.init)(g[1, 2])
    for h in (g, np.float32(-0.3) * g, g[:, ::-1]):
        one, alone = update(h[1, 2], alone)
    np.testing.assert_allclose(u[1, 2], one, atol=1e-6)
    np.testing.assert_allclose(state.mu[1, 2], alone.mu, atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)], ids=str)
def test_layouts_are_transposed(shape):
    g = np.float32(np.random.default_rng(0).normal(size=shape))
    other = update(scale_by_mars_muon(layout="out_in"), g.T).T
    np.testing.assert_array_equal(update(scale_by_mars_muon(), g), other)


def test_rotating_the_gradient_rotates_the_update():
    keys = jax.random.split(jax.random.key(0), 3)
    g, a, b = (jax.random.normal(k, s) for k, s in zip(keys, [(6, 9), (6, 6), (9, 9)]))
    left, right = jnp.linalg.qr(a)[0], jnp.linalg.qr(b)[0]
    u = left @ update(scale_by_mars_muon(), g) @ right
    np.testing.assert_allclose(update(scale_by_mars_muon(), left @ g @ right), u, atol=1e-4)


def test_without_correction_short_gradients_are_muons():
    g = np.float32(0.01) * np.float32(np.random.default_rng(0).normal(size=(4, 3)))
    mars, muon = scale_by_mars_muon(gamma=0.0), scale_by_muon(nesterov=False, scale="moonlight")
    last = g.copy()
    last[0] = 0.02
    one, two = mars.init(g), muon.init(g)
    mars_update, muon_update = jax.jit(mars.update), jax.jit(muon.update)
    for h in (g, -g, np.float32(0.5) * last):
        u, one = mars_update(h, one)
        v, two = muon_update(h, two)
        np.testing.assert_allclose(u, v, atol=1e-6)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="mars_muon: scale must be one of"):
        mars_muon(0.02, scale="rms")
