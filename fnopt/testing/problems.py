"""Test problems with known solutions: start, loss, least loss, and where it is."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Problem(NamedTuple):
    """A loss to be minimized, whose minimum is known.

    The loss takes float32 and float64 params and computes in their dtype.

    Attributes:
      name: the function's name.
      init: params to start from, float32.
      loss: params -> scalar.
      minimum: the least loss.
      optimum: params with that loss; one of many where the class of solutions is not a point.
    """

    name: str
    init: Any
    loss: Callable[[Any], jax.Array]
    minimum: float
    optimum: Any


def _like(constant: np.ndarray, x: jax.Array) -> jax.Array:
    """The data of a problem in its params' dtype."""
    return jnp.asarray(constant.astype(x.dtype))


def _single(t: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float32)), t)


def _normal(key: jax.Array, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(jax.random.normal(key, shape, jnp.float32), np.float64)


def quadratic(key: jax.Array, dimension: int = 10, condition_number: float = 100.0) -> Problem:
    """½(x − x*)ᵀA(x − x*), A with eigenvalues from 1/condition_number to 1 in a random basis.

    Args:
      key: for the basis, the optimum and the start.
      dimension: the number of parameters, at least 2.
      condition_number: the ratio of the largest eigenvalue to the least, at least 1.
    """
    if dimension < 2 or not condition_number >= 1:
        raise ValueError(
            "quadratic: dimension must be at least 2 and condition_number at least 1, got "
            f"{dimension} and {condition_number}"
        )
    basis_key, optimum_key, start_key = jax.random.split(key, 3)
    basis, _ = np.linalg.qr(_normal(basis_key, (dimension, dimension)))
    matrix = (basis * np.geomspace(1 / condition_number, 1.0, dimension)) @ basis.T
    optimum = _normal(optimum_key, (dimension,))
    init = _single({"x": _normal(start_key, (dimension,)) + 3.0})

    def loss(params: Any) -> jax.Array:
        d = params["x"] - _like(optimum, params["x"])
        return 0.5 * d @ (_like(matrix, d) @ d)

    return Problem("quadratic", init, loss, 0.0, _single({"x": optimum}))


def rosenbrock(dimension: int = 2) -> Problem:
    """Σ 100(xᵢ₊₁ − xᵢ²)² + (1 − xᵢ)²: a bent, flat valley to (1, ..., 1)."""
    if dimension < 2:
        raise ValueError(f"rosenbrock: dimension must be at least 2, got {dimension}")

    def loss(params: Any) -> jax.Array:
        x = params["x"]
        return jnp.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)

    start = np.where(np.arange(dimension) % 2 == 0, -1.2, 1.0)
    init, optimum = _single({"x": start}), _single({"x": np.ones(dimension)})
    return Problem("rosenbrock", init, loss, 0.0, optimum)


def beale() -> Problem:
    """Σᵢ (cᵢ − x + xyⁱ)², c = (1.5, 2.25, 2.625): a plateau with steep corners, least at (3, ½)."""

    def loss(params: Any) -> jax.Array:
        x, y = params["x"], params["y"]
        return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2

    init, optimum = _single({"x": 1.0, "y": 1.0}), _single({"x": 3.0, "y": 0.5})
    return Problem("beale", init, loss, 0.0, optimum)


def rastrigin(key: jax.Array, dimension: int = 2) -> Problem:
    """10n + Σ xᵢ² − 10 cos 2πxᵢ: a bowl with a local minimum near every integer, least at 0.

    Args:
      key: for the start, uniform in [−5.12, 5.12].
      dimension: n, at least 1.
    """
    if dimension < 1:
        raise ValueError(f"rastrigin: dimension must be at least 1, got {dimension}")

    def loss(params: Any) -> jax.Array:
        x = params["x"]
        return jnp.sum(x**2 - 10.0 * jnp.cos(2.0 * np.pi * x) + 10.0)

    start = jax.random.uniform(key, (dimension,), jnp.float32, -5.12, 5.12)
    return Problem("rastrigin", {"x": start}, loss, 0.0, _single({"x": np.zeros(dimension)}))


def styblinski_tang(dimension: int = 2) -> Problem:
    """½ Σ xᵢ⁴ − 16xᵢ² + 5xᵢ: two wells along each axis, the deeper one at −2.903534."""
    if dimension < 1:
        raise ValueError(f"styblinski_tang: dimension must be at least 1, got {dimension}")
    well = float(np.roots([4.0, 0.0, -32.0, 5.0]).real.min())
    depth = 0.5 * (well**4 - 16.0 * well**2 + 5.0 * well)

    def loss(params: Any) -> jax.Array:
        x = params["x"]
        return 0.5 * jnp.sum(x**4 - 16.0 * x**2 + 5.0 * x)

    init, optimum = _single({"x": np.zeros(dimension)}), _single({"x": np.full(dimension, well)})
    return Problem("styblinski_tang", init, loss, dimension * depth, optimum)


def logistic_regression(
    key: jax.Array, examples: int = 64, features: int = 5, weight_decay: float = 0.01
) -> Problem:
    """Mean logistic loss of noisy labels, plus ½·weight_decay·‖w‖²; solved by Newton's method.

    Args:
      key: for the features, the true weights and the labels.
      examples: the number of examples.
      features: the number of features; the bias is one more parameter.
      weight_decay: above 0, so that there is one minimum.
    """
    if not weight_decay > 0:
        raise ValueError(f"logistic_regression: weight_decay must be above 0, got {weight_decay}")
    x_key, w_key, label_key = jax.random.split(key, 3)
    x = _normal(x_key, (examples, features))
    noise = np.asarray(jax.random.logistic(label_key, (examples,), jnp.float32), np.float64)
    sign = np.where(x @ _normal(w_key, (features,)) + noise > 0, 1.0, -1.0)
    design = np.concatenate([x, np.ones((examples, 1))], axis=1)
    ridge = np.append(np.full(features, weight_decay), 0.0)
    theta = np.zeros(features + 1)
    for _ in range(50):
        p = 1 / (1 + np.exp(sign * (design @ theta)))
        gradient = -(design.T @ (sign * p)) / examples + ridge * theta
        hessian = (design.T * (p * (1 - p))) @ design / examples + np.diag(ridge)
        theta = theta - np.linalg.solve(hessian, gradient)
    data = np.mean(np.logaddexp(0.0, -sign * (design @ theta)))
    least = float(data + 0.5 * np.sum(ridge * theta**2))

    def loss(params: Any) -> jax.Array:
        w, b = params["weights"], params["bias"]
        margin = _like(sign, w) * (_like(x, w) @ w + b)
        return jnp.mean(jax.nn.softplus(-margin)) + 0.5 * weight_decay * jnp.sum(w**2)

    init = _single({"weights": np.zeros(features), "bias": 0.0})
    optimum = _single({"weights": theta[:-1], "bias": theta[-1]})
    return Problem("logistic_regression", init, loss, least, optimum)


def matrix_factorization(key: jax.Array, rows: int = 8, columns: int = 6, rank: int = 2) -> Problem:
    """½ mean (UVᵀ − M)² for a matrix M of exactly this rank: not convex, minimum 0.

    The optimum is one of many: (UG, VG⁻ᵀ) is as good for every invertible G.

    Args:
      key: for the matrix and the start.
      rows: of M.
      columns: of M.
      rank: columns of U and V, from 1 to the lesser of rows and columns.
    """
    if not 1 <= rank <= min(rows, columns):
        raise ValueError(
            f"matrix_factorization: rank must be from 1 to {min(rows, columns)}, got {rank}"
        )
    keys = jax.random.split(key, 4)
    shapes = {"left": (rows, rank), "right": (columns, rank)}
    optimum = {name: _normal(k, shapes[name]) for name, k in zip(shapes, keys[:2])}
    init = {name: 0.5 * _normal(k, shapes[name]) for name, k in zip(shapes, keys[2:])}
    target = optimum["left"] @ optimum["right"].T

    def loss(params: Any) -> jax.Array:
        error = params["left"] @ params["right"].T - _like(target, params["left"])
        return 0.5 * jnp.mean(error**2)

    return Problem("matrix_factorization", _single(init), loss, 0.0, _single(optimum))


def deep_linear_network(
    key: jax.Array, sizes: Sequence[int] = (4, 6, 6, 3), examples: int = 32
) -> Problem:
    """½ mean (xW₁W₂...W_L − y)², y from a network of the same sizes: saddles, minimum 0.

    The optimum is one of many.

    Args:
      key: for the data, the true network and the start.
      sizes: of the layers, from input to output.
      examples: the number of examples.
    """
    if len(sizes) < 2:
        raise ValueError(f"deep_linear_network: sizes needs an input and an output, got {sizes}")
    x_key, true_key, start_key = jax.random.split(key, 3)
    x = _normal(x_key, (examples, sizes[0]))

    def network(key: jax.Array) -> list[np.ndarray]:
        keys = jax.random.split(key, len(sizes) - 1)
        pairs = itertools.pairwise(sizes)
        return [_normal(k, (m, n)) / m**0.5 for k, (m, n) in zip(keys, pairs)]

    optimum = network(true_key)
    target = x
    for w in optimum:
        target = target @ w

    def loss(params: Any) -> jax.Array:
        h = _like(x, params[0])
        for w in params:
            h = h @ w
        return 0.5 * jnp.mean((h - _like(target, h)) ** 2)

    init = _single(network(start_key))
    return Problem("deep_linear_network", init, loss, 0.0, _single(optimum))
