"""What the compiler is told so that a rule stays one pass: compute again, overwrite later.

Left to itself the CPU compiler stores what two loops read and copies what it could overwrite. The
words here change no number.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnopt import tree


def recompute(f: Callable[..., jax.Array], *arguments: Any) -> jax.Array:
    """f(*arguments), for a sum or norm of a leaf that is used elsewhere too.

    Left to itself the compiler stores a costly f(x) that both a sum and an update read, at full
    size. Behind a barrier the sum's f is another one, and each is computed where it is read.

    Args:
      f: elementwise on its arguments.
      *arguments: arrays, and scalars that come weakly typed. Every constant must be among them:
        one written inside f is shared by both uses, and is then stored at full size.
    """
    if not any(isinstance(a, jax.core.Tracer) for a in jax.tree.leaves(arguments)):
        return f(*arguments)
    words = jax.lax.optimization_barrier(arguments)
    return f(*(_like(a, w) for a, w in zip(arguments, words)))


def _like(original: Any, word: Any) -> Any:
    weak = not isinstance(original, jax.Array) or jax.typeof(original).weak_type
    return tree.weak(word) if word is not None and weak else word


def overwrite_after(x: jax.Array, *done: jax.Array) -> jax.Array:
    """x, once `done` is computed: so that it may take a buffer that they still had to read.

    On a CPU a compiled state leaf that others read is copied first, unless what overwrites it is
    known to come later. One entry of each of `done` says so. Elsewhere the rule is one loop.
    """
    split = any(axis is not None for axis in jax.typeof(x).sharding.spec)
    if split or not x.size or not isinstance(x, jax.core.Tracer):
        return x

    def ordered(x: jax.Array, *done: jax.Array) -> jax.Array:
        entries = [jnp.real(y[(0,) * y.ndim]) for y in done]
        never = functools.reduce(jnp.logical_and, [jnp.isnan(e) & jnp.isinf(e) for e in entries])
        return jnp.where(never, jnp.zeros_like(x), x)

    return jax.lax.platform_dependent(x, *done, cpu=ordered, default=lambda x, *done: x)


def known_after(read: Any, x: Any) -> Any:
    """x, but known only after `read`: so that the compiler replaces a buffer in place, not a copy,
    once a sum over it is done. NaN where that is."""
    return jnp.where(jnp.isnan(read), read, x)
