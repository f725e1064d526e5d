import jax.numpy as jnp
import numpy as np
import pytest

import fnopt
from fnopt.testing.oracles import largest_error, leafwise
from fnopt.wrappers.grokfast import grokfast


def oracle(rate, decay=0.98, strength=2.0, momentum=0.0):
    @leafwise
    def run(theta, gradients):
        slow, velocity = gradients[0], np.zeros_like(theta)
        for g in gradients:
            slow = decay * slow + (1 - decay) * g
            velocity = momentum * velocity + g + strength * slow
            theta = theta - rate * velocity
            yield theta

    return run


SETTINGS = [dict(), dict(decay=0.5, strength=0.3), dict(decay=0.0)]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-6), ("float64", 1e-12)])
def test_oracle(setting, dtype, bound, request):
    if dtype == "float64":
        request.getfixturevalue("x64")
    optimizer = grokfast(fnopt.sgd(0.02, momentum=0.5), **setting)
    assert largest_error(optimizer, oracle(0.02, momentum=0.5, **setting), dtype) < bound


def test_a_constant_gradient_is_amplified_from_the_first_step():
    params = jnp.zeros(2)
    optimizer = grokfast(fnopt.sgd(1.0), strength=4.0)
    state = optimizer.init(params)
    for _ in range(3):
        updates, state = optimizer.update(jnp.ones(2), state, params)
        np.testing.assert_allclose(updates, -5.0, rtol=1e-6)
    assert fnopt.step_count(state) == 3
