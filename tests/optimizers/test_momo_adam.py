import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import fnopt
from fnopt.optimizers.momo_adam import momo_adam
from fnopt.testing.oracles import largest_error, trial


def loss(x):
    return 0.02 * sum((v**2).sum() for v in x.values()) + 0.1


class WithLoss:
    """An optimizer whose `update` is given the loss."""

    def __init__(self, optimizer):
        self.optimizer, self.init = optimizer, optimizer.init

    def update(self, updates, state, params):
        return self.optimizer.update(updates, state, params, value=loss(params))


def inner(a, b):
    return sum(np.sum(a[k] * b[k]) for k in a)


def oracle(
    rate=1e-2,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    lower_bound=0.0,
    weight_decay=0.0,
    adapt_lower_bound=False,
):
    def run(start, gradients):
        x = {k: np.array(p) for k, p in start.items()}
        m, v = ({k: 0 * p for k, p in start.items()} for _ in range(2))
        mean = gamma = 0.0
        least = lower_bound
        for t, gs in enumerate(gradients, 1):
            m = {k: b1 * m[k] + (1 - b1) * g for k, g in gs.items()}
            v = {k: b2 * v[k] + (1 - b2) * g**2 for k, g in gs.items()}
            mean = b1 * mean + (1 - b1) * loss(x)
            gamma = b1 * gamma + (1 - b1) * inner(gs, x)
            rho = 1 - b1**t
            scaled = {k: m[k] / (np.sqrt(v[k] / (1 - b2**t)) + eps) for k in m}
            shrink = 1 + rate * weight_decay
            height = shrink * (mean - gamma) + inner(m, x)
            if adapt_lower_bound and height < shrink * rho * least:
                least = max(height / (2 * rho * shrink), lower_bound)
            square = inner(m, scaled)
            tau = min(rate / rho, max(height - shrink * rho * least, 0) / square)
            h = mean + inner(m, x) - gamma
            x = {k: (x[k] - tau * scaled[k]) / shrink for k in x}
            if adapt_lower_bound:
                least = max((h - tau / 2 * square) / rho, lower_bound)
            yield dict(x)

    return run


# at this rate and loss the longest step is taken in some of the steps and not in others
SETTINGS = [
    dict(),
    dict(b1=0.8, b2=0.9, eps=0.1, lower_bound=0.05, weight_decay=0.3, adapt_lower_bound=True),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    assert largest_error(WithLoss(momo_adam(0.02, **setting)), oracle(0.02, **setting)) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    error = largest_error(
        WithLoss(momo_adam(0.02, **setting)), oracle(0.02, **setting), jnp.float64
    )
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
    for setting in (dict(), dict(adapt_lower_bound=True, b1=0.5)):
        ours = final(momo_adam(0.1, **setting), params, gradients, fnopt.apply_updates)
        theirs = final(contrib.momo_adam(0.1, **setting), params, gradients, optax.apply_updates)
        for k in params:
            np.testing.assert_allclose(ours[k], theirs[k], rtol=1e-4, atol=1e-5)
    # optax's decay does not divide the step
    one = params, gradients[:1]
    ours = final(momo_adam(0.1, weight_decay=5.0), *one, fnopt.apply_updates)
    theirs = final(contrib.momo_adam(0.1, weight_decay=5.0), *one, optax.apply_updates)
    assert np.abs(ours["matrix"] - theirs["matrix"]).max() > 1e-3


def test_where_the_bound_is_far_it_is_adam():
    params, gradients = jax.tree.map(jnp.float32, trial(steps=3))
    ours = final(momo_adam(0.01, lower_bound=-1e6), params, gradients, fnopt.apply_updates)
    adam, state = fnopt.adam(0.01), fnopt.adam(0.01).init(params)
    for g in gradients:
        updates, state = adam.update(g, state, params)
        params = fnopt.apply_updates(params, updates)
    np.testing.assert_allclose(ours["matrix"], params["matrix"], rtol=1e-5)


EARLY = momo_adam(0.02)


def test_an_optimizer_built_before_double_precision_is_as_exact(x64):
    assert largest_error(WithLoss(EARLY), oracle(0.02), jnp.float64) < 1e-12
