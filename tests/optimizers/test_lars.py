import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fnopt.bench import trees
from fnopt.bench.counts import count
from fnopt.optimizers.lars import lars
from fnopt.testing.oracles import largest_error, leafwise


def oracle(rate, momentum=0.9, weight_decay=0.0, kappa=1e-3, eps=0.0, nesterov=False, one=False):
    @leafwise
    def run(theta, gradients):
        v = np.zeros_like(theta)
        for g in gradients:
            total = g + weight_decay * theta
            theta_norm = np.linalg.norm(theta)
            size = np.linalg.norm(g) + weight_decay * theta_norm
            if one:
                size = np.linalg.norm(total)
            ratio = kappa * theta_norm / (size + eps) if theta_norm and size else 1.0
            d = rate * ratio * total
            v = momentum * v + d
            theta = theta - (momentum * v + d if nesterov else v)
            yield theta

    return run


SETTINGS = [
    (dict(), dict()),
    (
        dict(weight_decay=0.1, trust_coefficient=0.02, eps=1e-3, momentum=0.5, nesterov=True),
        dict(weight_decay=0.1, kappa=0.02, eps=1e-3, momentum=0.5, nesterov=True),
    ),
    (dict(weight_decay=0.1, separate_norms=False), dict(weight_decay=0.1, one=True)),
]


@pytest.mark.parametrize(("setting", "same"), SETTINGS, ids=str)
def test_oracle_in_float32(setting, same):
    assert largest_error(lars(0.5, **setting), oracle(0.5, **same)) < 1e-6


@pytest.mark.parametrize(("setting", "same"), SETTINGS, ids=str)
def test_oracle_in_float64(setting, same, x64):
    assert largest_error(lars(0.5, **setting), oracle(0.5, **same), jnp.float64) < 1e-12


def last_update(optimizer, steps=3):
    params = {"w": jnp.arange(12.0).reshape(4, 3), "b": jnp.ones(3)}
    rng = np.random.default_rng(0)
    state = optimizer.init(params)
    for _ in range(steps):
        g = {k: jnp.asarray(rng.normal(size=p.shape), jnp.float32) for k, p in params.items()}
        updates, state = optimizer.update(g, state, params)
    return updates


@pytest.mark.parametrize(
    "setting",
    [
        dict(momentum=0.8),
        dict(weight_decay=0.1, separate_norms=False),
        dict(trust_ratio_mask={"w": True, "b": False}),
        dict(weight_decay_mask={"w": False, "b": False}, weight_decay=0.1),
    ],
    ids=str,
)
def test_agrees_with_optax(setting, standard_numerics):
    theirs = optax.lars(0.5, **{k: v for k, v in setting.items() if k != "separate_norms"})
    got, wanted = last_update(lars(0.5, **setting)), last_update(theirs)
    for k in got:
        np.testing.assert_allclose(got[k], wanted[k], rtol=1e-4)


def test_the_papers_denominator_is_not_optaxs(standard_numerics):
    got = last_update(lars(0.5, 0.5))
    wanted = last_update(optax.lars(0.5, 0.5))
    assert np.linalg.norm(got["w"] - wanted["w"]) > 0.05 * np.linalg.norm(wanted["w"])


def test_the_ratio_is_never_stored():
    cost = count(lars(1e-3, weight_decay=0.1), trees.transformer(layers=1, width=64))
    assert cost.bytes < 38
    assert cost.temporary < 1
