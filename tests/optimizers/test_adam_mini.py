import jax.numpy as jnp
import numpy as np
import pytest

import fnopt
from fnopt.optimizers.adam_mini import adam_mini, output_units
from fnopt.testing.oracles import SHAPES, largest_error


def heads(name, shape):
    """Two blocks along the first axis, which "cube" and "matrix" have an even number of."""
    return (2,) + (1,) * (len(shape) - 1) if len(shape) > 1 else output_units(name, shape)


def outputs(name, shape):
    """What is stated of the default: a block for each output, and for each entry of a vector."""
    return (1,) * (len(shape) - 1) + shape[-1:]


def oracle(rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0, blocks=outputs):
    def run(params, gradients):
        theta = dict(params)
        m = {k: np.zeros_like(p) for k, p in params.items()}
        v = {k: np.zeros_like(p) for k, p in params.items()}
        for t, gs in enumerate(gradients, 1):
            for k, g in gs.items():
                mean = np.zeros_like(g)
                counts = blocks(k, g.shape)
                for block in np.ndindex(*counts):
                    cut = tuple(
                        slice(i * n // c, (i + 1) * n // c)
                        for i, c, n in zip(block, counts, g.shape)
                    )
                    mean[cut] = np.mean(g[cut] ** 2)
                m[k] = b1 * m[k] + (1 - b1) * g
                v[k] = b2 * v[k] + (1 - b2) * mean
                step = m[k] / (1 - b1**t) / (np.sqrt(v[k] / (1 - b2**t)) + eps)
                theta[k] = theta[k] - rate * (step + weight_decay * theta[k])
            yield dict(theta)

    return run


SETTINGS = [dict(), dict(b1=0.8, b2=0.95, eps=1e-3, weight_decay=0.1, blocks=heads), dict(b1=0.0)]


@pytest.mark.parametrize("setting", SETTINGS, ids=["default", "heads", "b1=0"])
def test_oracle_in_float32(setting):
    assert largest_error(adam_mini(0.02, **setting), oracle(0.02, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=["default", "heads", "b1=0"])
def test_oracle_in_float64(setting, x64):
    assert largest_error(adam_mini(0.02, **setting), oracle(0.02, **setting), jnp.float64) < 1e-12


def test_a_moment_for_each_block():
    params = {k: jnp.zeros(s) for k, s in SHAPES.items()} | {"empty": jnp.zeros((0, 3))}
    nu = fnopt.tree_get(adam_mini(1e-3).init(params), "nu")
    shapes = {"matrix": (1, 3), "vector": (5,), "cube": (1, 1, 2), "scalar": (), "empty": (1, 3)}
    assert {k: v.shape for k, v in nu.items()} == shapes

    def thirds(name, shape):
        return (1, 3) if name == "layer/query" else output_units(name, shape)

    params = {"layer": {"query": jnp.zeros((4, 6)), "bias": jnp.zeros(6)}}
    nu = fnopt.tree_get(adam_mini(1e-3, blocks=thirds).init(params), "nu")
    assert nu["layer"]["query"].shape == (1, 3)


def test_blocks_that_do_not_divide_are_named():
    with pytest.raises(ValueError, match=r"blocks\('w', \(3, 4\)\) is \(2, 1\)"):
        adam_mini(1e-3, blocks=lambda name, shape: (2, 1)).init({"w": jnp.zeros((3, 4))})
