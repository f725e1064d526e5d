import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import fnopt
from fnopt.linalg.newton_schulz import MUON, POLAR_EXPRESS
from fnopt.matrices import MatrixDimensionNumbers
from fnopt.optimizers.muon import muon, scale_by_muon
from fnopt.testing.oracles import largest_error, trial

SHAPES = {"tall": (6, 4), "wide": (3, 5), "cube": (2, 3, 4), "conv": (2, 2, 3, 4), "bias": (5,)}


def newton_schulz(x, triples):
    norm = np.linalg.norm(x)
    x = x / norm if norm else x
    for a, b, c in triples:
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def to_matrices(x, layout):
    """A list of (out, in), and back."""
    if x.ndim == 2:
        return [x.T if layout == "in_out" else x]
    if x.ndim == 3:
        return [m.T if layout == "in_out" else m for m in x]
    return [x.reshape(-1, x.shape[-1]).T if layout == "in_out" else x.reshape(x.shape[0], -1)]


def from_matrices(ms, shape, layout):
    turned = [m.T if layout == "in_out" else m for m in ms]
    return np.stack(turned) if len(shape) == 3 else turned[0].reshape(shape)


FACTORS = {
    "keller_jordan": lambda out, n: max(1, out / n) ** 0.5,
    "moonlight": lambda out, n: 0.2 * max(out, n) ** 0.5,
    "spectral": lambda out, n: (out / n) ** 0.5,
}


def oracle(
    rate,
    triples=(MUON,) * 5,
    beta=0.95,
    weight_decay=0.0,
    nesterov=True,
    scale="keller_jordan",
    layout="in_out",
    adam_rate=3e-4,
    b1=0.9,
    b2=0.95,
    eps=1e-10,
):
    def matrix(theta, gradients):
        m = np.zeros_like(theta)
        for g in gradients:
            m = beta * m + (1 - beta) * g
            u = beta * m + (1 - beta) * g if nesterov else m
            turned = []
            for x in to_matrices(u, layout):
                o = newton_schulz(x if x.shape[0] <= x.shape[1] else x.T, triples)
                o = o if x.shape[0] <= x.shape[1] else o.T
                turned.append(FACTORS[scale](*x.shape) * o)
            u = from_matrices(turned, theta.shape, layout)
            theta = theta - rate * (u + weight_decay * theta)
            yield theta

    def vector(theta, gradients):
        m = v = 0.0
        for t, g in enumerate(gradients, 1):
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
            theta = theta - adam_rate * m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
            yield theta

    def whole(params, gradients):
        runs = {
            k: (matrix if x.ndim > 1 else vector)(x, [g[k] for g in gradients])
            for k, x in params.items()
        }
        for _ in gradients:
            yield {k: next(run) for k, run in runs.items()}

    return whole


SETTINGS = [
    dict(),
    dict(beta=0.8, nesterov=False, scale="moonlight", weight_decay=0.1),
    dict(layout="out_in", scale="spectral", beta=0.5),
]


# the settings' rules are the same in float64
IN_FLOAT32 = [
    pytest.param(setting, marks=[pytest.mark.sweep] * (i != 2))
    for i, setting in enumerate(SETTINGS)
]


@pytest.mark.parametrize("setting", IN_FLOAT32, ids=str)
def test_oracle_in_float32(setting):
    assert largest_error(muon(0.02, **setting), oracle(0.02, **setting), shapes=SHAPES) < 2e-5


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    ours = muon(0.02, **setting, fallback=fnopt.adam(0.01, b1=0.5, b2=0.9, eps=1e-3))
    wanted = oracle(0.02, **setting, adam_rate=0.01, b1=0.5, b2=0.9, eps=1e-3)
    assert largest_error(ours, wanted, jnp.float64, shapes=SHAPES) < 1e-11


def test_oracle_of_another_sequence(x64):
    triples = [(a / 1.02, b / 1.02**3, c / 1.02**5) for a, b, c in POLAR_EXPRESS[:1]]
    wanted = oracle(0.02, [*triples, *POLAR_EXPRESS[1:]])
    ours = muon(0.02, "polar_express")
    assert largest_error(ours, wanted, jnp.float64, shapes=SHAPES) < 1e-11


def test_rank_deficient_and_zero_gradients(x64):
    rng = np.random.default_rng(0)
    low = [{"w": rng.normal(size=(6, 2)) @ rng.normal(size=(2, 4))} for _ in range(3)]
    gradients = [{"w": np.zeros((6, 4))}, *low, {"w": np.zeros((6, 4))}]
    params, optimizer = {"w": jnp.asarray(rng.normal(size=(6, 4)))}, muon(0.02)
    state = optimizer.init(params)
    for g, wanted in zip(gradients, oracle(0.02)(jax.tree.map(np.asarray, params), gradients)):
        updates, state = optimizer.update(jax.tree.map(jnp.asarray, g), state, params)
        params = fnopt.apply_updates(params, updates)
        np.testing.assert_allclose(params["w"], wanted["w"], rtol=1e-9)


def update(g, **setting):
    rule = scale_by_muon(**setting)
    return jax.jit(lambda g: rule.update(g, rule.init(g))[0])(g)


@pytest.mark.parametrize("shape", [(16, 16), (64, 16), (8, 40)], ids=str)
def test_the_update_is_orthogonal(shape):
    g = np.float32(np.random.default_rng(0).normal(size=shape))
    u = update(g, ns_coeffs="polar_express", ns_steps=8, scale="spectral")
    values = np.linalg.svd(u, compute_uv=False) / (shape[1] / shape[0]) ** 0.5
    np.testing.assert_allclose(values, 1, atol=1e-2)
    jordan = np.linalg.svd(update(g), compute_uv=False) / max(1, shape[1] / shape[0]) ** 0.5
    assert jordan.min() > 0.6
    assert jordan.max() < 1.25


def test_rotating_the_gradient_rotates_the_update():
    keys = jax.random.split(jax.random.key(0), 3)
    g, a, b = (jax.random.normal(k, s) for k, s in zip(keys, [(6, 9), (6, 6), (9, 9)]))
    left, right = jnp.linalg.qr(a)[0], jnp.linalg.qr(b)[0]
    np.testing.assert_allclose(update(left @ g @ right), left @ update(g) @ right, atol=1e-4)


def test_layouts_are_transposed():
    g = np.float32(np.random.default_rng(0).normal(size=(6, 9)))
    np.testing.assert_array_equal(update(g), update(g.T, layout="out_in").T)


def test_stacked_layers_are_single_ones():
    g = np.float32(np.random.default_rng(0).normal(size=(3, 6, 9)))
    np.testing.assert_allclose(update(g)[1], update(g[1]), atol=1e-6)


def test_bfloat16_arithmetic_is_asked_for():
    g = np.float32(np.random.default_rng(0).normal(size=(16, 64)))
    rough, fine = update(g, ns_dtype=jnp.bfloat16), update(g)
    assert rough.dtype == jnp.float32
    assert 1e-4 < float(jnp.abs(rough - fine).max()) < 0.1


def test_optax_without_its_bias_correction(standard_numerics):
    """One square matrix: at the first step the momentum's length says nothing."""
    g = np.float32(np.random.default_rng(0).normal(size=(8, 8)))
    theirs = contrib.muon(0.02, adam_learning_rate=3e-4)
    two, _ = theirs.update(g, theirs.init(g), g)
    ours = muon(0.02)
    one, _ = ours.update(g, ours.init(g), g)
    np.testing.assert_allclose(one, two, atol=2e-5)


def test_the_state_says_what_went_where():
    params = {"embed": jnp.ones((9, 4)), "w": jnp.ones((4, 4)), "b": jnp.ones(4)}
    state = muon(0.02).init(params)
    assert jax.tree.map(jnp.shape, fnopt.find(state, fnopt.optimizers.muon.MuonState).mu) == {
        "embed": None,
        "w": (4, 4),
        "b": None,
    }
    numbers = {"embed": MatrixDimensionNumbers(), "w": None, "b": None}
    state = muon(0.02, dimension_numbers=numbers).init(params)
    assert fnopt.find(state, fnopt.optimizers.muon.MuonState).mu["embed"].shape == (9, 4)


def test_momentum_may_be_stored_in_bytes():
    params = {"w": np.float32(np.random.default_rng(0).normal(size=(64, 64)))}
    for optimizer in (
        muon(0.02, mu_dtype="int8"),
        fnopt.store(muon(0.02), {"mu": "int8"}, min_size=0),
    ):
        state = jax.jit(optimizer.init)(params)
        sizes = [x.nbytes for x in jax.tree.leaves(state) if x.dtype == jnp.int8]
        assert sizes == [64 * 64]
        exact, kept = jax.jit(muon(0.02).update), jax.jit(muon(0.02).init)(params)
        stored = jax.jit(optimizer.update)
        _, gradients = trial(10, shapes={"w": (64, 64)})
        for g in gradients:
            g = jax.tree.map(np.float32, g)
            one, state = stored(g, state, params)
            two, kept = exact(g, kept, params)
        cosine = (
            jnp.vdot(one["w"], two["w"]) / jnp.linalg.norm(one["w"]) / jnp.linalg.norm(two["w"])
        )
        assert float(cosine) > 0.99


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="muon: scale must be one of"):
        muon(0.02, scale="rms")
    with pytest.raises(ValueError, match="no coefficients 'jordan'"):
        muon(0.02, "jordan")
    with pytest.raises(ValueError, match="steps must be at least 1"):
        muon(0.02, ns_steps=0)
    with pytest.raises(ValueError, match="layout must be one of"):
        muon(0.02, layout="oi").init({"w": jnp.ones((2, 2))})


def test_optax_chains_take_it():
    both = optax.chain(optax.clip_by_global_norm(1.0), muon(0.02))
    params = {"w": jnp.ones((3, 3))}
    updates, _ = both.update(params, both.init(params), params)
    assert updates["w"].shape == (3, 3)
