"""The range test: it sees where the loss falls, and ends where it rises."""

import jax.numpy as jnp
import numpy as np
import pytest

import fnopt
from fnopt.training import make_train_step
from fnopt.tuning.rates import around, growing, range_test


def ravine(params, batch):
    """Gradient descent falls faster with the rate up to 1, and diverges above 2."""
    return jnp.sum(params**2) / 2 + 1.0


def test_the_rate_grows_by_an_equal_factor():
    rate = growing(1e-4, 1e2, 7)
    np.testing.assert_allclose([rate(i) for i in range(7)], 10.0 ** np.arange(-4, 3), rtol=1e-5)
    assert float(rate(jnp.int32(0))) == pytest.approx(1e-4)


@pytest.mark.parametrize("high", [1e3, 1e35])
def test_it_ends_where_the_loss_rises(high):
    rates = np.geomspace(1e-5, high, 200)
    train_step = make_train_step(ravine, fnopt.sgd(growing(1e-5, high, 200)))
    test = range_test(train_step, train_step.init(jnp.full(3, 10.0)), [0] * 200, rates)
    assert test.diverged
    assert len(test.rates) == len(test.losses) == len(test.smooth) < 200
    assert 1e-3 < test.suggestion < 1.0
    assert test.rates[test.steepest] < test.rates[test.lowest] < 100


def test_it_goes_on_to_the_end_where_nothing_rises():
    rates = np.geomspace(1e-5, 1e-1, 50)
    train_step = make_train_step(ravine, fnopt.sgd(growing(1e-5, 1e-1, 50)))
    test = range_test(train_step, train_step.init(jnp.full(3, 10.0)), [0] * 50, rates)
    assert not test.diverged
    assert len(test.rates) == 50
    assert test.lowest == 49


def test_no_number_at_all():
    train_step = make_train_step(lambda p, b: jnp.sum(p) * jnp.nan, fnopt.sgd(0.1))
    with pytest.raises(ValueError, match="no number within four steps"):
        range_test(train_step, train_step.init(jnp.ones(2)), [0] * 9, np.geomspace(1e-3, 1, 9))


def test_the_average_keeps_a_constant_and_a_line_within():
    np.testing.assert_allclose(around(np.full(9, 3.0), 2.0), 3.0)
    line = np.arange(41.0)
    np.testing.assert_allclose(around(line, 2.0)[20], 20.0)
