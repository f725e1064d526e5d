"""The parameter trees that costs are counted on, as shapes alone."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

Tree = dict[str, dict[str, jax.ShapeDtypeStruct]]


def transformer(layers: int = 12, width: int = 256, dtype: Any = jnp.float32) -> Tree:
    """A transformer's hidden layers: ten leaves each, 12·width² + 7·width parameters."""
    shapes = {name: (width, width) for name in ("query", "key", "value", "output")}
    more = {
        "up": (width, 4 * width),
        "down": (4 * width, width),
        "up_bias": (4 * width,),
        "down_bias": (width,),
        "norm_1": (width,),
        "norm_2": (width,),
    }
    layer = {k: jax.ShapeDtypeStruct(s, dtype) for k, s in (shapes | more).items()}
    return {f"layer_{i}": dict(layer) for i in range(layers)}


def many_leaves(dtype: Any = jnp.float32) -> Tree:
    """480 leaves in 48 narrow layers, for tracing and compile times."""
    return transformer(48, 64, dtype)


def wide_leaf(dtype: Any = jnp.float32) -> Tree:
    """One leaf of 2,048 × 2,048."""
    return {"layer": {"kernel": jax.ShapeDtypeStruct((2048, 2048), dtype)}}


def size(tree: Any) -> int:
    """The number of parameters."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))
