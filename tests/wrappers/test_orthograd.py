import jax.numpy as jnp
import numpy as np
import pytest

import fnopt
from fnopt.testing.oracles import largest_error, leafwise
from fnopt.wrappers.orthograd import orthograd


def oracle(rate, renormalize=True):
    @leafwise
    def run(theta, gradients):
        for g in gradients:
            left = g
            if theta.size > 1:
                left = g - (theta * g).sum() / (theta**2).sum() * theta
                size = np.linalg.norm(left)
                if renormalize and size:
                    left = left * np.linalg.norm(g) / size
            theta = theta - rate * left
            yield theta

    return run


@pytest.mark.parametrize("renormalize", [True, False])
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-6), ("float64", 1e-12)])
def test_oracle(renormalize, dtype, bound, request):
    if dtype == "float64":
        request.getfixturevalue("x64")
    optimizer = orthograd(fnopt.sgd(0.02), renormalize=renormalize)
    assert largest_error(optimizer, oracle(0.02, renormalize), dtype) < bound


@pytest.mark.parametrize("size", [1e-25, 1.0, 1e20])
def test_the_step_is_at_right_angles_and_keeps_the_norm(size):
    params, g = jnp.array([3.0, 4.0, 0.0]), size * jnp.array([1.0, 2.0, 3.0])
    optimizer = orthograd(fnopt.sgd(1.0))
    updates, _ = optimizer.update(g, optimizer.init(params), params)
    u = np.asarray(updates, np.float64) / size
    np.testing.assert_allclose(u @ np.asarray(params), 0.0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(u), np.sqrt(14), rtol=1e-5)


def test_edges():
    params = {"w": jnp.array([1.0, 2.0, 0.1]), "zero": jnp.zeros(2), "gain": jnp.ones(())}
    g = {"w": 3 * params["w"], "zero": jnp.ones(2), "gain": jnp.ones(())}
    optimizer = orthograd(fnopt.sgd(1.0))
    updates, _ = optimizer.update(g, optimizer.init(params), params)
    np.testing.assert_array_equal(updates["w"], 0.0)  # parallel but for rounding
    np.testing.assert_allclose(updates["zero"], -1.0, rtol=1e-6)
    np.testing.assert_array_equal(updates["gain"], -1.0)
    with pytest.raises(ValueError, match="needs params"):
        optimizer.update(g, optimizer.init(params))


def test_the_rounding_of_a_parallel_gradient_is_no_step():
    params = {"w": np.float32(np.random.default_rng(0).normal(size=(16, 8)))}
    optimizer = fnopt.orthograd(fnopt.sgd(1.0))
    gradients = {"w": np.float32(0.3) * params["w"]}
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    assert not np.asarray(updates["w"]).any()
