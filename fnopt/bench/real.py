"""Tasks on real data: a network from a seed, the batches that it sees, and what is held out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnopt import mlp
from fnopt.bench import models, text
from fnopt.bench.tasks import Task
from fnopt.training.data import load_digits
from fnopt.training.epoch import order
from fnopt.training.settings import Settings


def digits_mlp(seed: int = 0, *, steps: int = 900, dtype: Any = jnp.float32) -> Task:
    """The network of `fnopt train` on the digits, 51,978 parameters; bf16 is computed in float32.

    Args:
      seed: of the params and of the batches, as of the tasks below.
      steps: how many batches there are.
      dtype: of the params; what they begin with is that of float32, rounded.
    """
    sizes = (64, *Settings().hidden, 10)
    return _digits(lambda key: mlp.init(key, sizes, dtype=dtype), mlp.loss, seed, steps)


def digits_convolutional(seed: int = 0, *, steps: int = 450, dtype: Any = jnp.float32) -> Task:
    """Two convolutions and a dense head on the digits, 9,930 parameters."""

    def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return models.cross_entropy(models.convolve(params, x), y)

    return _digits(lambda key: models.convolutional(key, dtype=dtype), loss, seed, steps)


def _digits(init: Callable[..., Any], loss: Callable[..., Any], seed: int, steps: int) -> Task:
    data, size = load_digits(), Settings().batch_size
    x, y = jnp.asarray(data.x_train), jnp.asarray(data.y_train)
    keys = jax.random.split(jax.random.key(seed))
    epochs = -(-steps * size // (len(y) - size + 1))
    rows = jnp.concatenate([order(keys[1], epoch, len(y), size) for epoch in range(epochs)])[:steps]
    whole = jnp.asarray(data.x_test), jnp.asarray(data.y_test)
    return Task(
        init(keys[0]), lambda params, batch: loss(params, *batch), (x[rows], y[rows]), whole
    )


SIZES = models.Sizes(vocabulary=text.VOCABULARY)


def characters(
    seed: int = 0,
    *,
    steps: int = 2000,
    rows: int = 4,
    held_out: int = 256,
    sizes: models.Sizes = SIZES,
    dtype: Any = jnp.float32,
) -> Task:
    """A transformer on the sources of Python's standard library, by default 120,192 parameters.

    Args:
      seed: of the params and of the batches.
      steps: how many batches there are.
      rows: pieces of text in a batch.
      held_out: pieces of the held-out files that the final loss is measured on.
      sizes: of the transformer; a piece has one token more than its context.
      dtype: of the params.

    Raises:
      FileNotFoundError: the sources are not there.
    """
    source, length = text.standard_library(), sizes.context + 1
    keys = jax.random.split(jax.random.key(seed))
    pieces = text.drawn(keys[1], source.train, (steps, rows), length)

    def loss(params: Any, pieces: jax.Array) -> jax.Array:
        tokens, labels = text.following(pieces)
        return models.cross_entropy(models.predict(params, tokens, heads=sizes.heads), labels)

    whole = text.spread(source.held_out, held_out, length)
    init = models.transformer(keys[0], sizes, dtype=dtype)
    return Task(init, loss, jnp.asarray(pieces), jnp.asarray(whole))
