"""What the float64 oracles of matrix optimizers share: a rule of one (out, in) matrix is all of it.

A rule is a function of the shape that gives a function of the gradient, which gives the direction.
"""

import jax
import jax.numpy as jnp
import numpy as np

import fnopt
from fnopt.testing.oracles import largest_error, trial

SHAPES = {"tall": (6, 4), "wide": (3, 5), "cube": (2, 3, 4), "conv": (2, 2, 3, 4), "bias": (5,)}
FACTORS = {
    "keller_jordan": lambda out, n: max(1, out / n) ** 0.5,
    "moonlight": lambda out, n: 0.2 * max(out, n) ** 0.5,
    "spectral": lambda out, n: (out / n) ** 0.5,
}


def newton_schulz(x, steps=5, triple=(3.4445, -4.7750, 2.0315)):
    if x.shape[0] > x.shape[1]:
        return newton_schulz(x.T, steps, triple).T
    a, b, c = triple
    norm = np.linalg.norm(x)
    x = x / norm if norm else x
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def to_matrices(x, layout):
    """A leaf as a list of (out, in)."""
    if x.ndim == 2:
        return [x.T if layout == "in_out" else x]
    if x.ndim == 3:
        return [m.T if layout == "in_out" else m for m in x]
    return [x.reshape(-1, x.shape[-1]).T if layout == "in_out" else x.reshape(x.shape[0], -1)]


def from_matrices(ms, shape, layout):
    turned = [m.T if layout == "in_out" else m for m in ms]
    return np.stack(turned) if len(shape) == 3 else turned[0].reshape(shape)


def oracle(rule, rate, layout="in_out", weight_decay=0.0, adam=(3e-4, 0.9, 0.95, 1e-10)):
    """θ ← θ − η(u + λθ) with the rule's u for matrices; Adam for vectors."""

    def matrix(theta, gradients):
        rules = [rule(m.shape) for m in to_matrices(theta, layout)]
        for g in gradients:
            us = [f(x) for f, x in zip(rules, to_matrices(g, layout))]
            u = from_matrices(us, theta.shape, layout)
            theta = theta - rate * (u + weight_decay * theta)
            yield theta

    def vector(theta, gradients):
        adam_rate, b1, b2, eps = adam
        m = v = 0.0
        for t, g in enumerate(gradients, 1):
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
            theta = theta - adam_rate * m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
            yield theta

    def whole(params, gradients):
        runs = {
            k: (matrix if x.ndim > 1 else vector)(x, [g[k] for g in gradients])
            for k, x in params.items()
        }
        for _ in gradients:
            yield {k: next(run) for k, run in runs.items()}

    return whole


def error(optimizer, wanted, dtype=jnp.float32):
    return largest_error(optimizer, wanted, dtype, shapes=SHAPES)


def degenerate(rank=1, steps=5, shapes=((6, 4), (4, 6), (2, 5, 5)), first_zero=True):
    """Gradients of zero, some of a low rank, and zero again, and parameters for them."""
    rng = np.random.default_rng(0)

    def low(shape):
        left, right = (*shape[:-1], rank), (*shape[:-2], rank, shape[-1])
        return rng.normal(size=left) @ rng.normal(size=right)

    leaves = {str(i): shape for i, shape in enumerate(shapes)}
    params = {k: rng.normal(size=s) for k, s in leaves.items()}
    zeros = {k: np.zeros(s) for k, s in leaves.items()}
    some = [{k: low(s) for k, s in leaves.items()} for _ in range(steps)]
    return params, [*[zeros] * first_zero, *some, zeros, some[0]]


def trained(optimizer):
    """(params, gradients) -> the params after each step, one program for all of a shape."""

    @jax.jit
    def run(params, gradients):
        def step(carry, g):
            params, state = carry
            updates, state = optimizer.update(g, state, params)
            params = fnopt.apply_updates(params, updates)
            return (params, state), params

        return jax.lax.scan(step, (params, optimizer.init(params)), gradients)[1]

    return run


def stacked(gradients):
    """A list of trees as one, for a scan."""
    return jax.tree.map(lambda *gs: jnp.asarray(np.stack(gs)), *gradients)


def followed(optimizer, wanted, *trials):
    """For each (params, gradients) the largest distance from the oracle."""
    run = trained(optimizer)
    for params, gradients in trials:
        ours = run(jax.tree.map(jnp.asarray, params), stacked(gradients))
        yield max(
            float(np.abs(np.asarray(ours[k][t]) - x).max())
            for t, theirs in enumerate(wanted(params, gradients))
            for k, x in theirs.items()
        )


def errors(optimizer, wanted, dtype, shapes):
    """As `largest_error`, of each leaf."""
    start, gradients = jax.tree.map(lambda x: np.asarray(x, dtype), trial(shapes=shapes))
    ours = jax.device_get(trained(optimizer)(start, stacked(gradients)))
    found = dict.fromkeys(start, 0.0)
    exact = jax.tree.map(np.float64, (start, gradients))
    for t, theirs in enumerate(wanted(*exact)):
        for k, x in theirs.items():
            size = max(np.linalg.norm(x), np.linalg.norm(exact[0][k]))
            error = np.linalg.norm(np.float64(ours[k][t]) - x) / size
            found[k] = error if not error <= found[k] else found[k]  # NaN counts as the worst
    return found


def follow(optimizer, wanted, params, gradients):
    """The largest distance of the optimizer's parameters from the oracle's."""
    (distance,) = followed(optimizer, wanted, (params, gradients))
    return distance


def update(rule, g):
    """The first update, compiled."""
    return jax.jit(lambda g: rule.update(g, rule.init(g))[0])(g)
