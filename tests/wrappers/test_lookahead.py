import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnopt
from fnopt.testing.oracles import largest_error, leafwise


def oracle(rate, k, alpha, momentum, reset):
    @leafwise
    def run(theta, gradients):
        v, slow = np.zeros_like(theta), theta
        for t, g in enumerate(gradients, 1):
            v = momentum * v + g
            theta = theta - rate * v
            if t % k == 0:
                slow = slow + alpha * (theta - slow)
                theta = slow
                v = 0 * v if reset else v
            yield theta

    return run


SETTINGS = [(0.1, 5, 0.5, 0.9, False), (0.3, 3, 0.8, 0.5, True), (0.1, 1, 0.2, 0.0, False)]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    rate, k, alpha, momentum, reset = setting
    optimizer = fnopt.lookahead(fnopt.sgd(rate, momentum=momentum), k, alpha, reset)
    assert largest_error(optimizer, oracle(*setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    rate, k, alpha, momentum, reset = setting
    optimizer = fnopt.lookahead(fnopt.sgd(rate, momentum=momentum), k, alpha, reset)
    assert largest_error(optimizer, oracle(*setting), jnp.float64) < 1e-12


def test_agrees_with_optax_on_its_pairs(standard_numerics):
    peer = optax.lookahead(optax.sgd(0.1), 3, 0.5)
    pair = optax.LookaheadParams.init_synced(jnp.ones(2))
    theirs = peer.init(pair)
    ours, params = fnopt.lookahead(fnopt.sgd(0.1), 3, 0.5), jnp.ones(2)
    state = ours.init(params)
    for i in range(7):
        g = jnp.array([1.0, -0.5 * i])
        updates, theirs = peer.update(g, theirs, pair)
        pair = optax.apply_updates(pair, updates)
        updates, state = ours.update(g, state, params)
        params = fnopt.apply_updates(params, updates)
        np.testing.assert_allclose(params, pair.fast, rtol=1e-6)
        np.testing.assert_allclose(fnopt.eval_params(state, params), pair.slow, rtol=1e-6)


def test_a_period_below_one_is_refused():
    with pytest.raises(ValueError, match="sync_period must be >= 1, got 0"):
        fnopt.lookahead(fnopt.sgd(0.1), 0, 0.5)
