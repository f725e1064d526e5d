import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import fnopt
from fnopt.optimizers.momo import momo
from fnopt.testing.oracles import largest_error, trial


def loss(x):
    return 0.1 * sum((v**2).sum() for v in x.values()) + 0.1


class WithLoss:
    """An optimizer whose `update` is given the loss."""

    def __init__(self, optimizer):
        self.optimizer, self.init = optimizer, optimizer.init

    def update(self, updates, state, params):
        return self.optimizer.update(updates, state, params, value=loss(params))


def inner(a, b):
    return sum(np.sum(a[k] * b[k]) for k in a)


def oracle(rate=1.0, beta=0.9, lower_bound=0.0, weight_decay=0.0, adapt_lower_bound=False):
    def run(start, gradients):
        x = {k: np.array(p) for k, p in start.items()}
        m = {k: 0 * p for k, p in start.items()}
        least, mean, gamma = lower_bound, 0.0, 0.0
        for t, gs in enumerate(gradients, 1):
            b = beta if t > 1 else 0.0
            m = {k: b * m[k] + (1 - b) * g for k, g in gs.items()}
            mean = b * mean + (1 - b) * loss(x)
            gamma = b * gamma + (1 - b) * inner(gs, x)
            shrink = 1 + rate * weight_decay
            height = shrink * (mean - gamma) + inner(m, x)
            if adapt_lower_bound and height < shrink * least:
                least = max(height / (2 * shrink), lower_bound)
            square = inner(m, m)
            tau = min(rate, max(height - shrink * least, 0) / square) if square > 0 else 0.0
            h = mean + inner(m, x) - gamma
            x = {k: (x[k] - tau * m[k]) / shrink for k in x}
            if adapt_lower_bound:
                least = max(h - tau / 2 * square, lower_bound)
            yield dict(x)

    return run


# at this rate and loss the longest step is taken in some of the steps and not in others
SETTINGS = [
    dict(),
    dict(beta=0.8, lower_bound=0.05, weight_decay=0.3, adapt_lower_bound=True),
    dict(beta=0.0),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    assert largest_error(WithLoss(momo(0.07, **setting)), oracle(0.07, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    error = largest_error(WithLoss(momo(0.07, **setting)), oracle(0.07, **setting), jnp.float64)
    assert error < 1e-12


def final(optimizer, params, gradients, apply):
    optimizer = WithLoss(optimizer)
    state = optimizer.init(params)
    for g in gradients:
        updates, state = optimizer.update(g, state, params)
        params = apply(params, updates)
    return params


def test_agrees_with_optax_without_weight_decay_only(standard_numerics):
    params, gradients = jax.tree.map(jnp.float32, trial(steps=12))
    for setting in (dict(), dict(adapt_lower_bound=True, beta=0.5)):
        ours = final(momo(**setting), params, gradients, fnopt.apply_updates)
        theirs = final(contrib.momo(**setting), params, gradients, optax.apply_updates)
        for k in params:
            np.testing.assert_allclose(ours[k], theirs[k], rtol=1e-4, atol=1e-5)
    # optax's decay does not divide the step
    one = params, gradients[:1]
    ours = final(momo(weight_decay=1.0), *one, fnopt.apply_updates)
    theirs = final(contrib.momo(weight_decay=1.0), *one, optax.apply_updates)
    assert np.abs(ours["matrix"] - theirs["matrix"]).max() > 1e-2


def test_a_parabola_is_solved_by_its_bound():
    params = jnp.array([1.0, 2.0, 3.0])
    optimizer = momo(beta=0.0)
    state = optimizer.init(params)
    updates, _ = optimizer.update(2 * params, state, params, value=jnp.sum(params**2))
    np.testing.assert_allclose(updates, -0.5 * params, rtol=1e-6)
    assert fnopt.tree_get(state, "mu") is None


def test_the_loss_is_required():
    with pytest.raises(TypeError, match="needs value"):
        momo().update(jnp.ones(2), momo().init(jnp.ones(2)), jnp.ones(2))


EARLY = momo(0.07)


def test_an_optimizer_built_before_double_precision_is_as_exact(x64):
    assert largest_error(WithLoss(EARLY), oracle(0.07), jnp.float64) < 1e-12
