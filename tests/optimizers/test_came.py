import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnopt
from fnopt.bench.counts import count
from fnopt.optimizers.came import came
from fnopt.testing.oracles import largest_error, leafwise


def oracle(
    rate, b1=0.9, b2=0.999, b3=0.9999, eps=1e-30, eps_instability=1e-16, clipping_threshold=1.0,
    weight_decay=0.0,
):  # fmt: skip
    def mean(rows, cols):
        return rows * cols / rows.mean(-2, keepdims=True)

    @leafwise
    def run(theta, gradients):
        m = np.zeros_like(theta)
        row = col = v = s_row = s_col = 0.0
        for g in gradients:
            squares = g**2 + eps
            if theta.ndim > 1:
                row = b2 * row + (1 - b2) * squares.mean(-1, keepdims=True)
                col = b2 * col + (1 - b2) * squares.mean(-2, keepdims=True)
                v = mean(row, col)
            else:
                v = b2 * v + (1 - b2) * squares
            u = g / np.sqrt(v)
            u = u / max(1, np.sqrt((u**2).mean()) / clipping_threshold)
            m = b1 * m + (1 - b1) * u
            step = m
            if theta.ndim > 1:
                s = (u - m) ** 2 + eps_instability
                s_row = b3 * s_row + (1 - b3) * s.mean(-1, keepdims=True)
                s_col = b3 * s_col + (1 - b3) * s.mean(-2, keepdims=True)
                step = m / np.sqrt(mean(s_row, s_col))
            theta = theta - rate * (step + weight_decay * theta)
            yield theta

    return run


SETTINGS = [
    dict(),
    dict(b1=0.8, b2=0.9, b3=0.95, weight_decay=0.1, clipping_threshold=0.5, eps_instability=1e-3),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    assert largest_error(came(1e-3, **setting), oracle(1e-3, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    assert largest_error(came(1e-3, **setting), oracle(1e-3, **setting), jnp.float64) < 1e-12


def test_the_state_of_a_stack_of_matrices():
    state = came(1e-3).init({"w": jnp.ones((2, 5, 3)), "b": jnp.ones(3)})
    shapes = {k.split("/", 1)[-1]: x.shape for k, x in fnopt.named_arrays(state).items()}
    assert shapes["v_row/w"] == shapes["s_row/w"] == (2, 5, 1)
    assert shapes["v_col/w"] == shapes["s_col/w"] == (2, 1, 3)
    assert shapes["v/b"] == (3,)


def test_the_mean_is_all_of_full_size_that_is_kept():
    cost = count(came(1e-3), {"w": jax.ShapeDtypeStruct((256, 256), jnp.float32)})
    assert cost.state < 4.2
    assert cost.temporary < 8.2
