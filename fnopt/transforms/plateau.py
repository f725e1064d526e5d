"""A rate that falls when the loss stops falling: `reduce_on_plateau`."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from fnopt import tree
from fnopt.core import gradient_transformation
from fnopt.hyperparameters import Fraction, NonNegative


class PlateauState(NamedTuple):
    """Everything that the rule remembers.

    Attributes:
      count: the values gathered since the last look, int32 ().
      mean: their mean, float ().
      best: the best mean so far, float ().
      plateau: the looks since it, int32 ().
      cooldown: the looks that are still to be ignored, int32 ().
      scale: what the updates are multiplied by, float ().
    """

    count: Any
    mean: Any
    best: Any
    plateau: Any
    cooldown: Any
    scale: Any


@gradient_transformation
def reduce_on_plateau(
    factor: Fraction = 0.1,
    patience: int = 10,
    rtol: NonNegative = 1e-4,
    atol: NonNegative = 0.0,
    cooldown: int = 0,
    accumulation_size: int = 1,
    min_scale: NonNegative = 0.0,
) -> Any:
    """u ← scale · u; `update` needs `value=`, the loss, of whose progress the scale is made.

    After an optimizer: `chain(adam(1e-3), reduce_on_plateau())`. A look is the mean of
    `accumulation_size` values. One that is not below (1 − rtol) · best − atol is no progress; after
    `patience` of them the scale is multiplied by `factor`, and `cooldown` looks are ignored.

    Args:
      factor: in [0, 1].
      patience: the looks without progress, at least 1.
      rtol: the least progress, relative to the best.
      atol: the least progress.
      cooldown: the looks ignored after a fall.
      accumulation_size: the values in a look: 1 for test losses, more for those of batches.
      min_scale: the least scale.

    `tree_get(state, "scale")` is the scale. Memory: none.

    Raises:
      ValueError: for a patience or size below 1.
    """
    for name, n, least in (
        ("patience", patience, 1),
        ("cooldown", cooldown, 0),
        ("accumulation_size", accumulation_size, 1),
    ):
        if n < least:
            raise ValueError(f"reduce_on_plateau: {name} must be at least {least}, got {n}")

    def init(params: Any) -> PlateauState:
        dtype = jnp.result_type(float)
        return PlateauState(
            count=tree.zero_count(),
            mean=jnp.zeros((), dtype),
            best=jnp.full((), jnp.inf, dtype),
            plateau=tree.zero_count(),
            cooldown=tree.zero_count(),
            scale=jnp.ones((), dtype),
        )

    def update(updates: Any, state: PlateauState, *, value: Any) -> Any:
        dtype = state.mean.dtype
        count = state.count + 1
        mean = state.mean + (jnp.asarray(value, dtype) - state.mean) / count.astype(dtype)
        looks = count >= accumulation_size
        better = mean < (1 - rtol) * state.best - atol
        waits = state.cooldown > 0
        plateau = jnp.where(better | waits, 0, state.plateau + 1)
        falls = looks & (plateau >= patience)
        floor = jnp.maximum(tree.weak(state.scale) * factor, min_scale)
        rest = jnp.where(falls, cooldown, jnp.maximum(state.cooldown - 1, 0))
        scale = jnp.where(falls, floor.astype(dtype), state.scale)
        new = PlateauState(
            count=jnp.where(looks, 0, count),
            mean=jnp.where(looks, jnp.zeros_like(mean), mean),
            best=jnp.where(looks & better, mean, state.best),
            plateau=jnp.where(looks, jnp.where(falls, 0, plateau), state.plateau),
            cooldown=jnp.where(looks, rest, state.cooldown),
            scale=scale,
        )
        return tree.scale(tree.weak(scale), updates), new

    return init, update
