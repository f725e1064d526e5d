import jax.numpy as jnp
import numpy as np
import pytest

import fnopt
from fnopt.optimizers.mars import mars_adamw, mars_lion
from fnopt.testing.oracles import largest_error, leafwise


def oracle(
    rate, b1=0.95, b2=0.99, eps=1e-8, gamma=0.025, weight_decay=0.0, optimize_1d=False,
    b1_1d=0.9, b2_1d=0.95, lion=False,
):  # fmt: skip
    @leafwise
    def run(theta, gradients):
        whole = theta.ndim > 1 or optimize_1d
        d1, d2 = (b1, b2) if whole else (b1_1d, b2_1d)
        m, v, last = np.zeros_like(theta), np.zeros_like(theta), np.zeros_like(theta)
        for t, g in enumerate(gradients, 1):
            c = g
            if whole:
                c = g + gamma * b1 / (1 - b1) * (g - last)
                c = c / max(1.0, np.linalg.norm(c))
            last = g
            m = d1 * m + (1 - d1) * c
            v = d2 * v + (1 - d2) * c**2
            u = m / (1 - d1**t) / (np.sqrt(v / (1 - d2**t)) + eps)
            if whole and lion:
                u = np.sign(m)
            theta = theta - rate * (u + weight_decay * theta)
            yield theta

    return run


SETTINGS = [
    (mars_adamw, dict()),
    (
        mars_adamw,
        dict(b1=0.8, b2=0.9, gamma=0.1, eps=1e-3, weight_decay=0.1, optimize_1d=True),
    ),
    (mars_adamw, dict(b1_1d=0.5, b2_1d=0.8)),
    (mars_lion, dict()),
    (mars_lion, dict(b1=0.8, gamma=0.1, weight_decay=0.1, optimize_1d=True)),
]


@pytest.mark.parametrize(
    ("factory", "setting"), SETTINGS, ids=lambda x: getattr(x, "__name__", str(x))
)
def test_oracle_in_float32(factory, setting):
    wanted = oracle(0.02, lion=factory is mars_lion, **setting)
    assert largest_error(factory(0.02, **setting), wanted) < 1e-6


@pytest.mark.parametrize(
    ("factory", "setting"), SETTINGS, ids=lambda x: getattr(x, "__name__", str(x))
)
def test_oracle_in_float64(factory, setting, x64):
    wanted = oracle(0.02, lion=factory is mars_lion, **setting)
    assert largest_error(factory(0.02, **setting), wanted, jnp.float64) < 1e-12


def test_what_each_leaf_keeps():
    params = {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}
    fields = lambda o: sorted(k.split("/", 1)[-1] for k, x in o.items() if x.ndim)
    adam = fields(fnopt.named_arrays(mars_adamw(1e-3).init(params)))
    assert adam == ["last/w", "mu/b", "mu/w", "nu/b", "nu/w"]
    lion = fields(fnopt.named_arrays(mars_lion(1e-3).init(params)))
    assert lion == ["last/w", "mu/b", "mu/w", "nu/b"]
