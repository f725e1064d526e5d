import jax
import jax.numpy as jnp
import numpy as np
import pytest
from optax import contrib

from fnopt.optimizers.dpsgd import dpsgd

LIMIT, RATE, EXAMPLES = 1.5, 0.1, 4
SHAPES = {"matrix": (4, 3), "vector": (5,), "cube": (2, 3, 2), "scalar": ()}


def run(optimizer, start, gradients, dtype):
    params = {k: jnp.asarray(p, dtype) for k, p in start.items()}
    state = optimizer.init(params)
    step = jax.jit(lambda g, s, p: optimizer.update(g, s, p))
    for gs in gradients:
        updates, state = step({k: jnp.asarray(g, dtype) for k, g in gs.items()}, state, params)
        params = {k: p + updates[k] for k, p in params.items()}
        yield params


def oracle(start, gradients, momentum=0.0, nesterov=False):
    x = dict(start)
    v = {k: 0 * p for k, p in start.items()}
    for gs in gradients:
        mean = {k: 0 * p for k, p in start.items()}
        for i in range(EXAMPLES):
            norm = np.sqrt(sum(np.sum(g[i] ** 2) for g in gs.values()))
            factor = LIMIT / norm if norm > LIMIT else 1.0
            mean = {k: mean[k] + gs[k][i] * factor / EXAMPLES for k in x}
        v = {k: momentum * v[k] + mean[k] for k in x}
        look = {k: momentum * v[k] + mean[k] if nesterov else v[k] for k in x}
        x = {k: x[k] - RATE * look[k] for k in x}
        yield x


def trial(steps=20):
    rng = np.random.default_rng(0)

    def draw(*front):
        values = {k: rng.normal(size=(*front, *s)) for k, s in SHAPES.items()}
        return {k: np.asarray(np.float32(x), np.float64) for k, x in values.items()}

    gradients = [draw(EXAMPLES) for _ in range(steps)]
    gradients[5] = {k: 0 * g for k, g in gradients[5].items()}
    return draw(), gradients


def largest_error(setting, dtype):
    start, gradients = trial()
    optimizer = dpsgd(RATE, LIMIT, 0.0, seed=0, **setting)
    worst = 0.0
    runs = zip(run(optimizer, start, gradients, dtype), oracle(start, gradients, **setting))
    for ours, wanted in runs:
        for k, w in wanted.items():
            error = np.linalg.norm(np.asarray(ours[k], np.float64) - w) / np.linalg.norm(start[k])
            worst = max(worst, error)
    return worst


SETTINGS = [dict(), dict(momentum=0.9), dict(momentum=0.8, nesterov=True)]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_without_noise_it_is_the_oracles_in_float32(setting):
    assert largest_error(setting, jnp.float32) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_without_noise_it_is_the_oracles_in_float64(setting, x64):
    assert largest_error(setting, jnp.float64) < 1e-12


def test_the_noise_has_the_stated_size_and_the_seed_decides():
    start = {"w": np.zeros(20_000)}
    still = [{"w": np.zeros((EXAMPLES, 20_000))}]
    runs = [run(dpsgd(RATE, LIMIT, 2.0, seed=s), start, still, jnp.float32) for s in (0, 0, 1)]
    one, same, other = (next(r)["w"] for r in runs)
    assert np.std(one) == pytest.approx(RATE * 2.0 * LIMIT / EXAMPLES, rel=0.03)
    np.testing.assert_array_equal(one, same)
    assert np.abs(np.corrcoef(one, other)[0, 1]) < 0.05


@pytest.mark.filterwarnings("ignore:.*seed.* is deprecated:DeprecationWarning")
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_without_noise_it_agrees_with_optax(setting, standard_numerics):
    start, gradients = trial(6)
    pair = [f(RATE, LIMIT, 0.0, seed=0, **setting) for f in (dpsgd, contrib.dpsgd)]
    for got, wanted in zip(*(run(o, start, gradients, jnp.float32) for o in pair)):
        for k in start:
            np.testing.assert_allclose(got[k], wanted[k], rtol=1e-5, atol=1e-6)
