import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnopt.optimizers.noisy_sgd import noisy_sgd
from fnopt.testing.oracles import largest_error, leafwise
from fnopt.transforms.constraints import add_noise


@leafwise
def descent(theta, gradients):
    for g in gradients:
        theta = theta - 0.1 * g
        yield theta


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-6), ("float64", 1e-12)])
def test_without_variance_it_is_gradient_descent(dtype, bound, request):
    if dtype == "float64":
        request.getfixturevalue("x64")
    assert largest_error(noisy_sgd(0.1, eta=0.0, key=0), descent, dtype) < bound


def noises(rule, steps, size=4000):
    params = {"a": jnp.zeros(size), "b": jnp.zeros(size)}
    state = rule.init(params)
    for _ in range(steps):
        updates, state = rule.update(params, state)
        yield np.stack([updates["a"], updates["b"]])


def test_the_variance_falls_as_stated_and_every_draw_is_new():
    drawn = list(noises(add_noise(0.5, 1.0, key=0), 4))
    for t, noise in enumerate(drawn, 1):
        np.testing.assert_allclose(noise.var(), 0.5 / t, rtol=0.06)
        np.testing.assert_allclose(noise.mean(), 0.0, atol=0.04)
    rows = np.concatenate(drawn)
    correlations = np.corrcoef(rows) - np.eye(len(rows))
    assert np.abs(correlations).max() < 0.08


def test_the_key_alone_decides_the_noise():
    keys = (3, jax.random.key(3), jax.random.PRNGKey(3))
    same = [next(noises(add_noise(1.0, 0.5, k), 1, 4)) for k in keys]
    seeded = next(noises(add_noise(1.0, 0.5, seed=3), 1, 4))
    np.testing.assert_array_equal(same[0], same[1])
    np.testing.assert_array_equal(same[0], same[2])
    np.testing.assert_array_equal(same[0], seeded)
    assert (same[0] != next(noises(add_noise(1.0, 0.5, 4), 1, 4))).all()
    assert noisy_sgd(0.1, key=jax.random.key(3)) == noisy_sgd(0.1, key=jax.random.key(3))
    assert noisy_sgd(0.1, key=jax.random.key(3)) != noisy_sgd(0.1, key=jax.random.key(4))


def test_a_key_must_be_given():
    with pytest.raises(ValueError, match="one of key"):
        noisy_sgd(0.1)
    with pytest.raises(ValueError, match="one of key"):
        noisy_sgd(0.1, key=1, seed=1)
