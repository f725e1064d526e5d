import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnopt


def scales(optimizer, values):
    state = optimizer.init(jnp.ones(2))
    for value in values:
        updates, state = optimizer.update(jnp.ones(2), state, jnp.ones(2), value=value)
        yield float(updates[0])


VALUES = [3.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.6, 0.6, 0.6]


@pytest.mark.parametrize(
    "setting",
    [
        dict(patience=2),
        dict(patience=3, cooldown=2, factor=0.5),
        dict(patience=1, accumulation_size=2, min_scale=0.05, rtol=0.1, atol=0.1),
    ],
    ids=str,
)
def test_agrees_with_optax(setting, standard_numerics):
    ours = list(scales(fnopt.reduce_on_plateau(**setting), VALUES))
    theirs = list(scales(optax.contrib.reduce_on_plateau(**setting), VALUES))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert min(ours) < 0.6


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="patience must be at least 1, got 0"):
        fnopt.reduce_on_plateau(patience=0)
    rule = fnopt.reduce_on_plateau()
    with pytest.raises(TypeError, match="reduce_on_plateau needs value="):
        rule.update(jnp.ones(2), rule.init(jnp.ones(2)))


def test_apply_every_holds_updates_back():
    rule = fnopt.apply_every(3)
    state, sums = rule.init(jnp.ones(2)), []
    for i in range(7):
        updates, state = rule.update(jnp.full(2, 1.0 + i), state)
        sums.append(float(updates[0]))
    assert sums == [0, 0, 6, 0, 0, 15, 0]
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        fnopt.apply_every(0)
