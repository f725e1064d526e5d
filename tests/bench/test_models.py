"""The networks: shapes and dtypes, what a prediction may see, and what they are made of."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnopt.bench import models

SIZES = models.Sizes(vocabulary=11, context=6, width=8, layers=2, heads=2)
DTYPES = (jnp.float32, jnp.bfloat16)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_convolutional_net_has_its_shapes_and_dtypes(dtype):
    params = models.convolutional(jax.random.key(0), channels=2, dtype=dtype)
    shapes = {name: [x.shape for x in layer.values()] for name, layer in params.items()}
    assert shapes == {
        "conv_1": [(3, 3, 1, 2), (2,)],
        "conv_2": [(3, 3, 2, 4), (4,)],
        "head": [(64, 10), (10,)],
    }
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
    logits = models.convolve(params, jnp.ones((3, 64)))
    assert (logits.shape, logits.dtype) == ((3, 10), jnp.float32)


def test_convolutions_are_those_written_out():
    """Each output is the sum over its 3 × 3 neighbours; the second layer takes every other."""
    params = models.convolutional(jax.random.key(0), channels=2, dtype=jnp.float32)
    image = jax.random.uniform(jax.random.key(1), (8, 8, 1))
    x = np.asarray(image, np.float64)
    for name, stride, before in (("conv_1", 1, 1), ("conv_2", 2, 0)):  # 8 → 4: one row after
        w, b = (np.asarray(params[name][key], np.float64) for key in ("w", "b"))
        padded = np.pad(x, [(before, 1), (before, 1), (0, 0)])
        x = np.array(
            [
                [np.tensordot(padded[i : i + 3, j : j + 3], w, 3) for j in range(0, 8, stride)]
                for i in range(0, 8, stride)
            ]
        )
        x = np.maximum(x + b, 0)
    expected = x.reshape(-1) @ np.asarray(params["head"]["w"], np.float64)
    found = models.convolve(params, image.reshape(1, 64))[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_transformer_has_its_shapes_and_dtypes(dtype):
    params = models.transformer(jax.random.key(0), SIZES, dtype=dtype)
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
    assert params["embedding"].shape == (11, 8)
    assert params["positions"].shape == (6, 8)
    assert params["head"]["w"].shape == (8, 11)
    assert params["layer_1"]["up"].shape == (8, 32)
    assert params["layer_1"]["down"].shape == (32, 8)
    tokens = jnp.zeros((3, 5), jnp.int32)
    logits = models.predict(params, tokens, heads=2)
    assert (logits.shape, logits.dtype) == ((3, 5, 11), jnp.float32)
    assert models.cross_entropy(logits.astype(dtype), tokens).dtype == jnp.float32


def test_at_the_start_every_token_is_about_as_likely():
    params = models.transformer(jax.random.key(0), models.Sizes(), dtype=jnp.float32)
    tokens = jax.random.randint(jax.random.key(1), (4, 65), 0, 128)
    loss = models.cross_entropy(models.predict(params, tokens[:, :-1], heads=4), tokens[:, 1:])
    assert math.log(128) - 0.5 < float(loss) < math.log(128) + 1.0


@pytest.mark.parametrize("at", range(6))
def test_a_prediction_does_not_see_what_follows(at):
    params = models.transformer(jax.random.key(0), SIZES, dtype=jnp.float32)
    tokens = jax.random.randint(jax.random.key(1), (1, 6), 0, 11)
    other = tokens.at[0, at].set((tokens[0, at] + 1) % 11)
    a, b = (models.predict(params, x, heads=2)[0] for x in (tokens, other))
    np.testing.assert_array_equal(a[:at], b[:at])
    assert np.all(np.max(np.abs(a[at:] - b[at:]), axis=-1) > 1e-4)  # and sees what goes before


def test_attention_is_that_written_out():
    layer = models.transformer(jax.random.key(0), SIZES, dtype=jnp.float32)["layer_0"]
    x = jax.random.normal(jax.random.key(1), (1, 4, 8))
    w = {key: np.asarray(value, np.float64) for key, value in layer.items() if key[0] in "qkvo"}
    wide = np.asarray(x[0], np.float64)
    mixed = np.zeros((4, 8))
    for head in (slice(0, 4), slice(4, 8)):
        q, k, v = (wide @ w[name][:, head] for name in ("query", "key", "value"))
        for i in range(4):
            weights = np.exp(k[: i + 1] @ q[i] / 2)
            mixed[i, head] = weights / weights.sum() @ v[: i + 1]
    found = models.attend(layer, x, heads=2)[0]
    np.testing.assert_allclose(found, mixed @ w["output"], rtol=1e-4, atol=1e-6)


def test_a_norm_has_mean_zero_and_variance_one():
    norm = {"scale": jnp.full((8,), 2.0), "bias": jnp.full((8,), 3.0)}
    x = 100 + 5 * jax.random.normal(jax.random.key(0), (2, 3, 8))
    y = models.normalize(norm, x)
    np.testing.assert_allclose(jnp.mean(y, axis=-1), 3, atol=1e-4)
    np.testing.assert_allclose(jnp.std(y, axis=-1), 2, atol=1e-4)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="width 8 is no multiple of heads 3"):
        models.transformer(jax.random.key(0), SIZES._replace(heads=3), dtype=jnp.float32)
    params = models.transformer(jax.random.key(0), SIZES, dtype=jnp.float32)
    with pytest.raises(ValueError, match="7 tokens, but 6 positions"):
        models.predict(params, jnp.zeros((1, 7), jnp.int32), heads=2)
