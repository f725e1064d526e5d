import jax.numpy as jnp
import numpy as np
import pytest

import fnopt
from fnopt.core import chain
from fnopt.optimizers.adam import scale_by_adam
from fnopt.testing.oracles import largest_error, leafwise
from fnopt.transforms.decay import add_decayed_weights
from fnopt.transforms.scaling import scale_by_learning_rate
from fnopt.wrappers.cautious import cautious


def oracle(rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0, least=1e-3):
    @leafwise
    def run(theta, gradients):
        m, v = np.zeros_like(theta), np.zeros_like(theta)
        for t, g in enumerate(gradients, 1):
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * g**2
            u = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
            phi = (u * g > 0).astype(float)
            u = u * phi / max(phi.mean(), least)
            theta = theta - rate * (u + weight_decay * theta)
            yield theta

    return run


def decayed(rate, weight_decay, **setting):
    rule = cautious(scale_by_adam(**setting), descending=False)
    return chain(rule, add_decayed_weights(weight_decay), scale_by_learning_rate(rate))


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-6), ("float64", 1e-12)])
def test_oracle(dtype, bound, request):
    if dtype == "float64":
        request.getfixturevalue("x64")
    assert largest_error(cautious(fnopt.adam(0.02)), oracle(0.02), dtype) < bound
    setting = dict(b1=0.8, b2=0.9, weight_decay=0.1)
    assert largest_error(decayed(0.02, **setting), oracle(0.02, **setting), dtype) < bound


def test_an_entry_against_the_gradient_waits():
    params = jnp.zeros(4)
    optimizer = cautious(fnopt.momentum(1.0, 0.9))
    _, state = optimizer.update(jnp.ones(4), optimizer.init(params), params)
    updates, _ = optimizer.update(jnp.array([-0.1, 1.0, 1.0, 0.0]), state, params)
    np.testing.assert_allclose(updates, [0.0, -3.8, -3.8, 0.0], rtol=1e-6)


def test_the_state_is_the_optimizers_and_extras_pass():
    params = jnp.ones(2)
    inner = fnopt.adam(0.1)
    a, b = cautious(inner).init(params), inner.init(params)
    assert fnopt.named_arrays(a).keys() == fnopt.named_arrays(b).keys()
    with pytest.raises(TypeError, match="unknown extra argument"):
        cautious(inner).update(params, a, params, valeu=1.0)


def test_tiny_gradients_agree_too():
    params, g = jnp.ones(2), jnp.full(2, 1e-30)
    optimizer = cautious(fnopt.sgd(1.0))
    updates, _ = optimizer.update(g, optimizer.init(params), params)
    np.testing.assert_allclose(updates, -1e-30, rtol=1e-6)
