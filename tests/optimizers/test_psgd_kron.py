import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix_oracles import degenerate, followed, update

import fnopt
from fnopt.optimizers.psgd_kron import FORMS, psgd_kron, scale_by_psgd_kron
from fnopt.testing.oracles import largest_error, leafwise

SHAPES = {"tall": (5, 3), "square": (4, 4), "stack": (2, 3, 5), "vector": (5,)}
NUMBERS = {
    name: None if len(shape) < 2 else fnopt.MatrixDimensionNumbers(len(shape) - 2, len(shape) - 1)
    for name, shape in SHAPES.items()
}
KEY = 3


def adam(theta, gradients, rate):
    m = v = 0.0
    for t, g in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        theta = theta - rate * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        yield theta


def norm_below(a):
    column = a[:, np.argmax(np.linalg.norm(a, axis=0))]
    return np.linalg.norm(a.T @ column) / np.linalg.norm(column)


def of_factor(q, x, f):
    """f(Q) X, for a whole Q or a diagonal one."""
    return (f(np.diag(q)) if q.ndim == 1 else f(q)) @ x


def grown(q, update):
    """(I − update) Q, of the diagonal alone where Q is one."""
    if q.ndim == 1:
        return q - np.diag(update) * q
    return q - update @ q


def triangular(q1, q2, h, v, lr, bounds):
    a = of_factor(q2, of_factor(q1, h, lambda q: q).T, lambda q: q).T
    b = of_factor(
        q2, of_factor(q1, v, lambda q: np.linalg.inv(q).T).T, lambda q: np.linalg.inv(q).T
    ).T
    new = []
    for q, x, y in ((q1, a, b), (q2, a.T, b.T)):
        total, change = x @ x.T + y @ y.T, x @ x.T - y @ y.T
        norm = np.diag(total).max() if q.ndim == 1 else norm_below(total)
        new.append(grown(q, lr * np.triu(change) / norm))
    return *new, bounds


def procrustes(q1, q2, h, v, lr, bounds):
    p1, p2 = (np.diag(q**2) if q.ndim == 1 else q.T @ q for q in (q1, q2))
    ph = p1 @ h @ p2
    new, kept = [], []
    for q, x, bound in zip((q1, q2), (ph, ph.T), bounds):
        t, c = x @ x.T, x.size / len(x)
        norm = np.diag(t).max() if q.ndim == 1 else norm_below(t)
        bound = max(0.9 * bound + 0.1 * (norm + c), norm + c)
        q = grown(q, lr / bound * (t - c * np.eye(len(t))))
        if q.ndim == 2 and not np.array_equal(q, q.T):
            r = (q.T - q) / norm_below(q.T - q)
            gain, loss = np.trace(r @ q), -np.trace(r @ r @ q)
            angle = min(gain / loss if loss > 0 else np.inf, 1 / 8)
            q = (np.eye(len(q)) + angle * r + angle**2 / 2 * r @ r) @ q
        new.append(q)
        kept.append(bound)
    return *new, kept


@functools.partial(jax.jit, static_argnums=(1, 2))
def drawn(t, shape, dtype):
    return jax.random.normal(jax.random.fold_in(jax.random.key(KEY), t), shape, dtype)


def oracle(
    rate,
    dtype,
    b1=0.9,
    weight_decay=0.0,
    form="procrustes",
    preconditioner_lr=0.1,
    preconditioner_init_scale=1.0,
    update_probability=1.0,
    update_every=None,
    max_size_triangular=8192,
    damping=3.45e-4,
    max_rms=1.1,
):
    step = {"triangular": triangular, "procrustes": procrustes}[form]

    def factor(n):
        size = preconditioner_init_scale**0.5
        return size * (np.ones(n) if n > max_size_triangular else np.eye(n))

    def matrix(theta, gradients):
        if theta.shape[0] > theta.shape[1]:
            yield from (x.T for x in matrix(theta.T, [g.T for g in gradients]))
            return
        q1, q2 = map(factor, theta.shape)
        bounds, owed, m = [0.0, 0.0], 0.0, np.zeros_like(theta)
        for t, g in enumerate(gradients, 1):
            m = b1 * m + (1 - b1) * g
            ahead = m / (1 - b1**t)
            owed += update_probability
            due = owed >= 1 if update_every is None else (t - 1) % update_every == 0
            owed -= owed >= 1
            if due and np.any(ahead):
                v = np.asarray(drawn(t - 1, theta.shape, dtype), np.float64)
                h = ahead + damping * np.abs(ahead).mean() * v
                q1, q2, bounds = step(q1, q2, h, v, preconditioner_lr, bounds)
            p1, p2 = (np.diag(q**2) if q.ndim == 1 else q.T @ q for q in (q1, q2))
            u = p1 @ ahead @ p2
            u = u * min(1, max_rms / max(np.sqrt(np.mean(u**2)), 1e-300))
            theta = theta - rate * (u + weight_decay * theta)
            yield theta

    @leafwise
    def run(theta, gradients):
        if theta.ndim < 2:
            return adam(theta, gradients, 3e-4)
        if theta.ndim == 2:
            return matrix(theta, gradients)
        layers = [matrix(x, [g[i] for g in gradients]) for i, x in enumerate(theta)]
        return map(np.stack, zip(*layers))

    return run


SETTINGS = [
    dict(),
    dict(form="triangular"),
    dict(b1=0.0, max_rms=0.7, preconditioner_lr=0.3, update_every=2, weight_decay=0.1),
    dict(form="triangular", b1=0.0, max_rms=0.7, preconditioner_lr=0.3, update_every=2),
    dict(b1=0.5, update_probability=0.37, preconditioner_init_scale=5.0, damping=0.1),
    dict(form="triangular", update_probability=0.37, preconditioner_init_scale=5.0, damping=0.1),
    dict(max_size_triangular=4, weight_decay=0.1),
    dict(max_size_triangular=3, form="triangular", weight_decay=0.1),
    dict(max_size_triangular=1),
]


def ours(rate, **setting):
    return psgd_kron(rate, key=KEY, dimension_numbers=NUMBERS, **setting)


# the settings' rules are the same in float64; all of a step's branches are in these two
IN_FLOAT32 = [
    pytest.param(setting, marks=[pytest.mark.sweep] * (i not in (2, 5)))
    for i, setting in enumerate(SETTINGS)
]


@pytest.mark.parametrize("setting", IN_FLOAT32, ids=str)
def test_oracle_in_float32(setting):
    wanted = oracle(0.02, jnp.float32, **setting)
    assert largest_error(ours(0.02, **setting), wanted, shapes=SHAPES) < 2e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    wanted = oracle(0.02, jnp.float64, **setting)
    assert largest_error(ours(0.02, **setting), wanted, jnp.float64, shapes=SHAPES) < 1e-12


@pytest.mark.parametrize("form", FORMS)
def test_rank_deficient_and_zero_gradients(form, x64):
    setting = dict(form=form, update_every=2)
    wanted = oracle(0.02, jnp.float64, **setting)
    optimizer = psgd_kron(0.02, key=KEY, **setting)
    of_ranks = [*followed(optimizer, wanted, *map(degenerate, (1, 2)))]
    assert max(of_ranks) < 1e-9, of_ranks


@pytest.mark.parametrize("form", FORMS)
def test_layouts_are_transposed(form):
    rng = np.random.default_rng(0)
    gs = {str(shape): np.float32(rng.normal(size=shape)) for shape in ((6, 4), (3, 5))}
    rules = [scale_by_psgd_kron(key=KEY, form=form, layout=to) for to in ("in_out", "out_in")]

    @jax.jit
    def both(gs):
        return {name: (update(rules[0], g), update(rules[1], g.T).T) for name, g in gs.items()}

    for name, (one, other) in both(gs).items():
        np.testing.assert_allclose(one, other, atol=1e-6, err_msg=name)


def test_stacked_layers_are_single_ones():
    g = np.float32(np.random.default_rng(1).normal(size=(3, 6, 4)))
    first = jax.jit(lambda g: update(scale_by_psgd_kron(key=KEY), g))
    np.testing.assert_allclose(first(g), np.stack([first(x) for x in g]), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(), "psgd_kron"),
        (dict(key=0, form="round"), "form must be one of"),
        (dict(key=0, update_every=0), "update_every must be at least 1, got 0"),
        (dict(key=0, layout="left"), "layout"),
        (dict(key=0, max_rms=-1.0), "max_rms"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        psgd_kron(1e-3, **arguments).init({"w": jnp.ones((3, 4))})


def test_a_donated_state_leaves_the_key():
    params = {"w": jnp.ones((4, 4))}
    key = jax.random.key(0)
    optimizer = fnopt.psgd_kron(0.1, key=key)
    step = jax.jit(lambda s, g: optimizer.update(g, s, params), donate_argnums=0)
    for _ in range(2):
        step(optimizer.init(params), params)
    assert jax.random.key_data(key).shape == (2,)
