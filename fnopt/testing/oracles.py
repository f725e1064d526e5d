"""An optimizer beside its oracle: a float64 NumPy version written from the paper.

An oracle is a generator for one leaf, `oracle(theta, gradients)`: float64 arrays in, the
parameters after each step out. A method that looks across leaves takes and yields dicts instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnopt.apply import apply_updates
from fnopt.core import GradientTransformation

Leaves = dict[str, np.ndarray]
SHAPES = {"matrix": (4, 3), "vector": (5,), "cube": (2, 3, 2), "scalar": ()}


def trial(
    steps: int = 25, zero_step: int = 6, seed: int = 0, shapes: dict[str, Any] | None = None
) -> tuple[Leaves, list[Leaves]]:
    """Float64 start values and gradients of every rank, one step of them all zero."""
    rng = np.random.default_rng(seed)
    shapes = shapes or SHAPES
    params = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    gradients = [
        {name: rng.normal(size=shape) * (t != zero_step) for name, shape in shapes.items()}
        for t in range(1, steps + 1)
    ]
    return params, gradients


def leafwise(
    oracle: Callable[[np.ndarray, Iterable[np.ndarray]], Iterator[np.ndarray]],
) -> Callable[[Leaves, list[Leaves]], Iterator[Leaves]]:
    """The oracle of one leaf as an oracle of a dict of leaves."""

    def whole(params: Leaves, gradients: list[Leaves]) -> Iterator[Leaves]:
        runs = {k: oracle(theta, [g[k] for g in gradients]) for k, theta in params.items()}
        for _ in gradients:
            yield {k: next(run) for k, run in runs.items()}

    return whole


def descent(
    direction: Callable[[Leaves, Leaves], Leaves], rate: float
) -> Callable[[Leaves, list[Leaves]], Iterator[Leaves]]:
    """The oracle of θ ← θ − rate · direction(g, θ), for a transformation without memory."""

    def whole(params: Leaves, gradients: list[Leaves]) -> Iterator[Leaves]:
        for g in gradients:
            u = direction(g, params)
            params = {k: theta - rate * u[k] for k, theta in params.items()}
            yield params

    return whole


def largest_error(
    optimizer: GradientTransformation,
    oracle: Callable[[Leaves, list[Leaves]], Iterator[Leaves]],
    dtype: Any = jnp.float32,
    **trial_arguments: Any,
) -> float:
    """The largest relative distance of optimizer and oracle over all steps and leaves.

    The distance is ‖θ − θ_oracle‖ / max(‖θ_oracle‖, ‖θ_0‖) for each leaf after each step.
    Gradients are rounded to `dtype` before either sees them; for float64 JAX must run with
    `jax_enable_x64`.
    """
    start, gradients = trial(**trial_arguments)
    start, *gradients = (
        {k: np.asarray(x).astype(jnp.dtype(dtype)).astype(np.float64) for k, x in leaves.items()}
        for leaves in (start, *gradients)
    )

    def step(carry: Any, gradient: Any) -> Any:
        params, state = carry
        updates, state = optimizer.update(gradient, state, params)
        params = apply_updates(params, updates)
        return (params, state), params

    @jax.jit
    def run(params: Any, gradients: Any) -> Any:
        return jax.lax.scan(step, (params, optimizer.init(params)), gradients)[1]

    def cast(x: Any) -> np.ndarray:
        return np.asarray(x).astype(jnp.dtype(dtype))

    every = {k: cast([step[k] for step in gradients]) for k in gradients[0]}
    found = jax.device_get(run({k: cast(x) for k, x in start.items()}, every))
    worst = 0.0
    for i, wanted in enumerate(oracle(start, gradients)):
        for k, theta in wanted.items():
            distance = np.linalg.norm(np.asarray(found[k][i], np.float64) - theta)
            size = max(float(np.linalg.norm(theta)), float(np.linalg.norm(start[k])))
            error = float(distance / size)
            if not error <= worst:  # NaN counts as the worst
                worst = error
    return worst
