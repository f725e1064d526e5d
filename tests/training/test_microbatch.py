import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnopt import mlp
from fnopt.training import microbatch


def data(rows=24):
    x = jax.random.normal(jax.random.key(1), (rows, 6))
    return x, jax.random.randint(jax.random.key(2), (rows,), 0, 4)


def loss(params, batch):
    return mlp.loss(params, *batch)


@pytest.mark.parametrize("slices", [1, 3, 8])
def test_it_equals_the_whole_batch(slices):
    params = mlp.init(jax.random.key(0), (6, 8, 4))
    value, gradients = jax.jit(microbatch(loss, slices))(params, data())
    wanted, whole = jax.value_and_grad(loss)(params, data())
    np.testing.assert_allclose(value, wanted, rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), gradients, whole
    )


def test_weighted_slices():
    mask = jnp.array([1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0])

    def mean_of_masked(params, batch):
        x, m = batch
        return jnp.sum(m * (params * x) ** 2) / jnp.maximum(m.sum(), 1.0), m.sum()

    x = jnp.arange(8.0)
    value, gradient = microbatch(mean_of_masked, 4, weighted=True)(jnp.float32(2.0), (x, mask))
    wanted, slope = jax.value_and_grad(lambda p: mean_of_masked(p, (x, mask))[0])(jnp.float32(2.0))
    np.testing.assert_allclose(value, wanted, rtol=1e-6)
    np.testing.assert_allclose(gradient, slope, rtol=1e-6)


def test_bfloat16_gradients_are_gathered_in_float32():
    params = {"w": jnp.ones(4, jnp.bfloat16), "n": 3}
    rows = jnp.ones((512, 4), jnp.bfloat16)
    _, gradients = microbatch(lambda p, x: jnp.mean(x @ p["w"]), 512)(params, rows)
    assert gradients["w"].dtype == jnp.float32
    np.testing.assert_allclose(gradients["w"], 1.0, rtol=1e-2)
    assert gradients["n"] is None


def test_the_memory_is_that_of_a_slice():
    def deep(params, batch):
        h = batch
        for _ in range(4):
            h = jnp.tanh(h @ params)
        return jnp.mean(h**2)

    params, batch = jnp.ones((64, 64)), jnp.ones((4096, 64))

    def temporary(f):
        return jax.jit(f).lower(params, batch).compile().memory_analysis().temp_size_in_bytes

    assert temporary(microbatch(deep, 16)) < 0.2 * temporary(jax.value_and_grad(deep))


def test_mistakes_are_named():
    params = mlp.init(jax.random.key(0), (6, 8, 4))
    with pytest.raises(ValueError, match=r"5 slices do not divide the first axis of batch\[0\]"):
        microbatch(loss, 5)(params, data())
    with pytest.raises(ValueError, match="slices must be at least 1, got 0"):
        microbatch(loss, 0)
