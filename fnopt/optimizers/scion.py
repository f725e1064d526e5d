"""Scion: each layer steps to the corner of its norm's ball that the gradient points away from.

    m ← (1−α)m + αg
    θ ← (1−η)θ + ηr lmo(m)            in the ball of radius r (`constrained`)
    θ ← θ + ηr lmo(m)                 else
    −lmo(m), for a kernel of shape (in, out):
        spectral   √(out/in) UVᵀ of m = UΣVᵀ, by Newton-Schulz: hidden layers
        conv       the same of (window, in, out) as (window · in, out), over the window's size
        sign       sign(m) / in: the output layer, where in is its width
        col        √out · m / ‖m‖ for each input (row of the kernel): embeddings
        row        m / (√in ‖m‖) for each output (column of the kernel)
        bias       m / RMS(m): vectors and scalars

The rate η in (0, 1] carries over between widths. Start on the balls' surface: `scion_init`.

Good for: networks tuned at one width and trained at another, by its authors' tests.
Caveat: which norm and radius a layer has is yours to say in `norms` (by default spectral from two
dimensions on, bias below, radius 1; the authors' language models have 50 in the hidden layers and
3000 at the output). Constrained parameters outside their ball are drawn in, at the rate η. Leading
axes of a kernel are a stack of kernels; `conv` takes them as spatial instead.
Memory: one value per parameter; none with alpha=1.
Source: Pethick et al. 2025, arXiv 2502.07529, and github.com/LIONS-EPFL/scion.
"""

from __future__ import annotations

import inspect
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import mesh_axes, reductions, tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Fraction, LearningRate
from fnopt.linalg.newton_schulz import orthogonalize
from fnopt.linalg.stacks import map_stacks
from fnopt.matrices import MatrixDimensionNumbers, View, view
from fnopt.transforms.decay import add_decayed_weights
from fnopt.transforms.scaling import scale_by_learning_rate

NORMS = ("spectral", "conv", "sign", "col", "row", "bias")


class Ball(NamedTuple):
    """A layer's norm, one of `NORMS`, and the radius r of its ball."""

    norm: str
    radius: float = 1.0


def balls_of(norms: Any, params: Any) -> Any:
    """A tree of `Ball`s like the params: from a prefix tree of words or balls, or a function."""
    if inspect.isfunction(norms):
        norms = norms(params)
    if norms is None:
        norms = jax.tree.map(lambda p: "spectral" if p.ndim > 1 else "bias", params)

    def is_ball(x: Any) -> bool:
        return isinstance(x, Ball)

    def spread(ball: Any, below: Any) -> Any:
        ball = ball if is_ball(ball) else Ball(ball)
        if ball.norm not in NORMS:
            raise ValueError(f"scion: norms must be among {', '.join(NORMS)}, got {ball.norm!r}")
        return jax.tree.map(lambda _: ball, below)

    return jax.tree.map(spread, norms, params, is_leaf=is_ball)


def _unit(x: jax.Array, axes: tuple[int, ...], axis_name: Any) -> jax.Array:
    norm = reductions.axis_norm(x, axes, axis_name)
    return x / jnp.where(norm == 0, jnp.ones_like(norm), norm).astype(x.dtype)


def spectral(norm: str, m: jax.Array, axis_name: Any = None) -> View | None:
    """How a leaf is read as matrices, where its norm is theirs; None where it is another."""
    if norm not in ("spectral", "conv") or m.ndim < 2 or not m.size:
        return None
    inputs = -2 if norm == "spectral" else tuple(range(m.ndim - 1))
    return view(m, MatrixDimensionNumbers(inputs, -1), axis_name=axis_name)


def steepest(norm: str, m: jax.Array, axis_name: Any = None) -> jax.Array:
    """−lmo(m): of the norm's unit ball, the point furthest along m; zero for zero.

    Of a spectral norm m is UVᵀ already.
    """
    shape = mesh_axes.whole_shape(m, axis_name)
    if norm == "bias" or m.ndim < 2:
        if norm == "sign":
            return jnp.sign(m)
        return _unit(m, tuple(range(m.ndim)), axis_name) * math.sqrt(math.prod(shape))
    d_in, d_out = shape[-2], shape[-1]
    if norm in ("spectral", "conv"):
        window = math.prod(shape[:-2]) if norm == "conv" else 1
        return m * (math.sqrt(d_out / max(d_in, 1)) / max(window, 1))
    if norm == "sign":
        return jnp.sign(m) / max(d_in, 1)
    if norm == "col":
        return _unit(m, (-1,), axis_name) * math.sqrt(d_out)
    return _unit(m, (-2,), axis_name) / math.sqrt(max(d_in, 1))


class ScionState(NamedTuple):
    """m, like the params; None for a static alpha of 1."""

    mu: Any


@gradient_transformation
def scale_by_scion(
    alpha: Fraction = 0.1, *, norms: Any = None, steps: int = 5, axis_name: Any = None
) -> Any:
    """m ← (1−α)m + αg; u ← −r lmo(m).

    Args:
      alpha: α in [0, 1], the new gradient's part in the mean. A static 1 keeps no mean.
      norms: see `scion`.
      steps: of Newton-Schulz.
      axis_name: see `scion`.

    Memory: one value per parameter; none with alpha=1.
    """
    plain = tree.is_static_zero(1 - alpha)

    def init(params: Any) -> ScionState:
        balls_of(norms, params)
        return ScionState(None if plain else tree.zeros_like(params))

    def kernel(stacks: Any, kept: Any) -> Any:
        return (orthogonalize(stacks[0], steps),), ()

    def update(updates: Any, state: ScionState) -> Any:
        def mean(g: jax.Array, m: jax.Array) -> jax.Array:
            return (1 - alpha) * m + alpha * tree.saturate(g)

        mu = updates if plain else tree.map(mean, updates, state.mu)
        leaves, treedef = tree.flatten(mu)
        balls = treedef.flatten_up_to(balls_of(norms, mu))
        seen = [spectral(b.norm, m, axis_name) for b, m in zip(balls, leaves)]
        (turned,), _ = map_stacks(kernel, seen, (leaves,))
        moved = [b.radius * steepest(b.norm, m, axis_name) for b, m in zip(balls, turned)]
        return treedef.unflatten(moved), ScionState(None if plain else mu)

    return init, update


@composition
def scion(
    learning_rate: LearningRate,
    alpha: Fraction = 0.1,
    *,
    norms: Any = None,
    constrained: bool = True,
    steps: int = 5,
    axis_name: Any = None,
) -> GradientTransformation:
    """Scion: steps of a fixed length in each layer's own norm.

    Args:
      learning_rate: η in [0, 1].
      alpha: α in [0, 1], the new gradient's part in the mean. A static 1 keeps no mean.
      norms: the layers' norms: a tree of words or `Ball(word, radius)` with the params' structure
        or a prefix of it, or a function of the params that returns one; None for spectral from
        two dimensions on, bias below.
      constrained: keep the parameters in their balls; False leaves out the factor 1−η.
      steps: of Newton-Schulz.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension.

    >>> import fnopt
    >>> fnopt.scion(0.01)
    scion(learning_rate=0.01, alpha=0.1, constrained=True, steps=5)
    """
    members = [scale_by_scion(alpha, norms=norms, steps=steps, axis_name=axis_name)]
    if constrained:
        members.append(add_decayed_weights(1.0))
    return chain(*members, scale_by_learning_rate(learning_rate))


def scion_init(key: jax.Array, params: Any, norms: Any = None) -> Any:
    """Random parameters on the surface of their balls, biases zero: where Scion should start.

    Of a convolution each position of the window is drawn by itself, as in the authors' code.

    Args:
      key: a PRNG key.
      params: for their shapes and dtypes.
      norms: as in `scion`.
    """
    leaves, treedef = tree.flatten(params)
    balls = treedef.flatten_up_to(balls_of(norms, params))

    def draw(key: jax.Array, ball: Ball, p: jax.Array) -> jax.Array:
        if ball.norm == "bias" or (p.ndim < 2 and ball.norm != "sign"):
            return jnp.zeros_like(p)
        x = jax.random.normal(key, p.shape, jnp.float32)
        if ball.norm in ("spectral", "conv"):
            wide = p.shape[-2] < p.shape[-1]
            q = jnp.linalg.qr(x.mT if wide else x)[0]
            x = (q.mT if wide else q) * math.sqrt(p.shape[-1] / max(p.shape[-2], 1))
            x = x / math.prod(p.shape[:-2]) if ball.norm == "conv" else x
        else:
            x = steepest(ball.norm, x)
        return (ball.radius * x).astype(p.dtype)

    keys = jax.random.split(key, max(len(leaves), 1))
    return treedef.unflatten(draw(k, b, p) for k, b, p in zip(keys, balls, leaves))
