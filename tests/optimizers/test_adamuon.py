import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix_oracles import degenerate, error, followed, newton_schulz, oracle, update

import fnopt
from fnopt.optimizers.adamuon import adamuon, scale_by_adamuon


def rule(beta=0.95, beta2=0.95, eps=1e-8, nesterov=False):
    def start(shape):
        m, v = np.zeros(shape), np.zeros(shape)

        def step(g):
            nonlocal m, v
            m = beta * m + (1 - beta) * g
            o = newton_schulz(np.sign(beta * m + (1 - beta) * g if nesterov else m))
            v = beta2 * v + (1 - beta2) * o**2
            turned = o / (np.sqrt(v) + eps)
            norm = np.linalg.norm(turned)
            return 0.2 * np.sqrt(o.size) * turned / (norm if norm else 1)

        return step

    return start


SETTINGS = [
    (dict(), dict()),
    (dict(beta=0.8, beta2=0.5, nesterov=True), dict(weight_decay=0.1)),
    (dict(beta=0.5, beta2=0.999, eps=0.1), dict(layout="out_in", weight_decay=0.1)),
]


# the settings' rules are the same in float64
IN_FLOAT32 = [
    pytest.param(*setting, marks=[pytest.mark.sweep] * (i != 2))
    for i, setting in enumerate(SETTINGS)
]


@pytest.mark.parametrize(("own", "common"), IN_FLOAT32, ids=str)
def test_oracle_in_float32(own, common):
    """An entry of O near zero has few right digits, and v makes it as long as all others."""
    assert error(adamuon(0.02, **own, **common), oracle(rule(**own), 0.02, **common)) < 2e-5


@pytest.mark.parametrize(("own", "common"), SETTINGS, ids=str)
def test_oracle_in_float64(own, common, x64):
    ours = adamuon(0.02, **own, **common, fallback=fnopt.adam(0.01, b1=0.5, b2=0.95, eps=1e-3))
    wanted = oracle(rule(**own), 0.02, **common, adam=(0.01, 0.5, 0.95, 1e-3))
    assert error(ours, wanted, jnp.float64) < 1e-11


@pytest.mark.parametrize("layout", ["in_out", "out_in"])
def test_rank_deficient_and_zero_gradients(layout, x64):
    of_ranks = map(degenerate, (1, 2))
    found = [*followed(adamuon(0.02, layout=layout), oracle(rule(), 0.02, layout), *of_ranks)]
    assert max(found) < 1e-7, found


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (7, 7)], ids=str)
def test_layouts_are_transposed(shape):
    g = np.float32(np.random.default_rng(0).normal(size=shape))
    one, other = update(scale_by_adamuon(), g), update(scale_by_adamuon(layout="out_in"), g.T).T
    if shape[0] != shape[1]:
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_stacked_layers_are_single_ones():
    g = np.float32(np.random.default_rng(0).normal(size=(3, 6, 9)))
    one, all_three = update(scale_by_adamuon(), g[1]), update(scale_by_adamuon(), g)
    np.testing.assert_allclose(all_three[1], one, atol=1e-5)


def test_signs_alone_count_and_may_be_turned_with_rows_and_columns():
    keys = jax.random.split(jax.random.key(0), 3)
    g, sizes = jax.random.normal(keys[0], (6, 9)), jnp.exp(jax.random.normal(keys[1], (6, 9)))
    u = update(scale_by_adamuon(), g)
    np.testing.assert_array_equal(update(scale_by_adamuon(), sizes * g), u)
    rows, columns = jnp.array([[1.0], [-1]] * 3), jax.random.permutation(keys[2], 9)
    turned = update(scale_by_adamuon(), (rows * g)[:, columns])
    np.testing.assert_allclose(turned, (rows * u)[:, columns], atol=1e-4)


@pytest.mark.parametrize("shape", [(4, 9), (3, 5, 5), (7,)], ids=str)
def test_every_update_has_the_root_mean_square_of_adams(shape):
    u = update(scale_by_adamuon(), 1e-6 * np.float32(np.random.default_rng(0).normal(size=shape)))
    np.testing.assert_allclose(np.sqrt(np.mean(u**2)), 0.2, rtol=1e-5)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="adamuon: beta2 must be in"):
        adamuon(0.02, beta2=1.0)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        adamuon(0.02, ns_steps=0)
