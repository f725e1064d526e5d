"""Two small networks as pure functions, for measurements: a convolutional one and a transformer.

They compute in the dtype of their params; means, softmaxes and logits are float32.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt.losses.classification import softmax_cross_entropy_with_integer_labels

Params = dict[str, Any]


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean over all rows, float32 (), of logits (..., c) and integer labels (...)."""
    logits = logits.astype(jnp.float32)
    return jnp.mean(softmax_cross_entropy_with_integer_labels(logits, labels))


def dense(key: jax.Array, n_in: int, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Weights from N(0, 1/n_in)."""
    return (jax.random.normal(key, shape) / math.sqrt(n_in)).astype(dtype)


# Convolutions


def convolutional(key: jax.Array, *, channels: int = 16, classes: int = 10, dtype: Any) -> Params:
    """Params of two layers of 3×3 kernels and a dense head, for 8×8 images of one channel.

    Args:
      key: a JAX random key.
      channels: of the first layer; the second has twice as many.
      classes: outputs of the head.
      dtype: of the params.

    Returns:
      {"conv_1": {"w": (3, 3, 1, c), "b": (c,)}, "conv_2": {"w": (3, 3, c, 2c), "b": (2c,)},
      "head": {"w": (32c, classes), "b": (classes,)}}.
    """
    inside = 2 * channels * 16  # the second layer halves both sides: 4 × 4
    shapes = {
        "conv_1": (3, 3, 1, channels),
        "conv_2": (3, 3, channels, 2 * channels),
        "head": (inside, classes),
    }
    params = {}
    for k, (name, shape) in zip(jax.random.split(key, len(shapes)), shapes.items()):
        w = dense(k, math.prod(shape[:-1]), shape, dtype)
        params[name] = {"w": w, "b": jnp.zeros(shape[-1:], dtype)}
    return params


def convolve(params: Params, images: jax.Array) -> jax.Array:
    """The logits, float32 (n, classes), of images in rows (n, 64)."""
    dtype = params["head"]["w"].dtype
    x = images.astype(dtype).reshape(-1, 8, 8, 1)
    for name, stride in (("conv_1", 1), ("conv_2", 2)):
        layer = params[name]
        x = jax.lax.conv_general_dilated(
            x, layer["w"], (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(x + layer["b"][None, None, None, :])
    x = x.reshape(len(x), -1)
    return (x @ params["head"]["w"] + params["head"]["b"][None, :]).astype(jnp.float32)


# A transformer


class Sizes(NamedTuple):
    """How large a transformer is.

    Attributes:
      vocabulary: how many tokens there are; by default ASCII.
      context: how many of them it sees at once.
      width: of the stream between the layers, a multiple of `heads`.
      layers: how many.
      heads: of the attention.
    """

    vocabulary: int = 128
    context: int = 64
    width: int = 64
    layers: int = 2
    heads: int = 4


def transformer(key: jax.Array, sizes: Sizes, *, dtype: Any) -> Params:
    """Params of a causal pre-norm transformer (arXiv 1706.03762, 2002.04745).

    Embeddings and weights are from N(0, 1/n_in), with n_in the width for embeddings; those that
    write into the stream are divided by √(2·layers) (GPT-2).

    Args:
      key: a JAX random key.
      sizes: how large it is.
      dtype: of the params.

    Returns:
      {"embedding": (v, d), "positions": (t, d), "layer_0": {...}, ..., "norm": {"scale": (d,),
      "bias": (d,)}, "head": {"w": (d, v), "b": (v,)}}; a layer has "query", "key", "value" and
      "output", (d, d), "up" (d, 4d) with "up_bias", "down" (4d, d) with "down_bias", and the
      norms "norm_1" and "norm_2".

    Raises:
      ValueError: the width is no multiple of the heads.
    """
    v, t, d, layers, heads = sizes
    if d % heads:
        raise ValueError(f"transformer: width {d} is no multiple of heads {heads}")
    keys = iter(jax.random.split(key, 3 + 6 * layers))

    def norm() -> Params:
        return {"scale": jnp.ones((d,), dtype), "bias": jnp.zeros((d,), dtype)}

    params: Params = {
        "embedding": dense(next(keys), d, (v, d), dtype),
        "positions": dense(next(keys), d, (t, d), dtype),
        "norm": norm(),
        "head": {"w": dense(next(keys), d, (d, v), dtype), "b": jnp.zeros((v,), dtype)},
    }
    deep = 2 * layers
    for i in range(layers):
        params[f"layer_{i}"] = {
            "norm_1": norm(),
            "query": dense(next(keys), d, (d, d), dtype),
            "key": dense(next(keys), d, (d, d), dtype),
            "value": dense(next(keys), d, (d, d), dtype),
            "output": dense(next(keys), d * deep, (d, d), dtype),
            "norm_2": norm(),
            "up": dense(next(keys), d, (d, 4 * d), dtype),
            "up_bias": jnp.zeros((4 * d,), dtype),
            "down": dense(next(keys), 4 * d * deep, (4 * d, d), dtype),
            "down_bias": jnp.zeros((d,), dtype),
        }
    return params


def predict(params: Params, tokens: jax.Array, *, heads: int) -> jax.Array:
    """The logits of each next token, float32 (n, t, v), given the tokens before, int (n, t).

    Raises:
      ValueError: there are more tokens in a row than the model has positions.
    """
    positions = params["positions"]
    if tokens.shape[1] > len(positions):
        raise ValueError(f"predict: {tokens.shape[1]} tokens, but {len(positions)} positions")
    x = params["embedding"][tokens] + positions[None, : tokens.shape[1]]
    for i in range(sum(name.startswith("layer_") for name in params)):
        layer = params[f"layer_{i}"]
        x = x + attend(layer, normalize(layer["norm_1"], x), heads)
        inner = normalize(layer["norm_2"], x) @ layer["up"] + layer["up_bias"][None, None, :]
        x = x + jax.nn.gelu(inner) @ layer["down"] + layer["down_bias"][None, None, :]
    head = params["head"]
    logits = normalize(params["norm"], x) @ head["w"] + head["b"][None, None, :]
    return logits.astype(jnp.float32)


def attend(layer: Params, x: jax.Array, heads: int) -> jax.Array:
    """Causal attention of a stream (n, t, d) to itself."""
    n, t, d = x.shape
    q, k, v = (
        (x @ layer[name]).reshape(n, t, heads, d // heads) for name in ("query", "key", "value")
    )
    scores = jnp.einsum("nqhd,nkhd->nhqk", q, k).astype(jnp.float32) / math.sqrt(d // heads)
    causal = jnp.tril(jnp.ones((t, t), bool))
    weights = jax.nn.softmax(jnp.where(causal[None, None], scores, -jnp.inf), axis=-1)
    mixed = jnp.einsum("nhqk,nkhd->nqhd", weights.astype(x.dtype), v)
    return mixed.reshape(n, t, d) @ layer["output"]


def normalize(norm: Params, x: jax.Array) -> jax.Array:
    """Layer normalization of the last axis; mean and variance are float32."""
    wide = x.astype(jnp.float32)
    wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
    wide = wide * jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + 1e-5)
    return wide.astype(x.dtype) * norm["scale"][None, None, :] + norm["bias"][None, None, :]
