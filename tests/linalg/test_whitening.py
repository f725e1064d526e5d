import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnopt.linalg import whitening
from fnopt.linalg.whitening import TURN, Sides, procrustes_step, triangular_step

balanced, norm_below, precondition, turned = map(
    jax.jit, (whitening.balanced, whitening.norm_below, whitening.precondition, whitening.turned)
)
FORMS = ["procrustes", "triangular"]


def drawn(*shape, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    return np.asarray(x + 1j * rng.normal(size=shape) if np.iscomplexobj(dtype(0)) else x, dtype)


def identity(rows, columns, dtype=jnp.float32, diagonal=(False, False), batch=1):
    def side(n, thin):
        one = np.ones(n, dtype) if thin else np.eye(n, dtype=dtype)
        return np.stack([one] * batch)

    return Sides(side(rows, diagonal[0]), side(columns, diagonal[1]))


def learn(form, g, q=None, steps=1, rate=0.1, noise=3e-4):
    """The factors after steps with the gradients g, (steps, k, m, n), or the same one always."""
    g = np.broadcast_to(g, (steps, *g.shape[-3:]))
    q = identity(*g.shape[-2:], g.dtype, batch=g.shape[1]) if q is None else q
    return run(form, noise, g, q, rate)


@functools.partial(jax.jit, static_argnums=(0, 1))
def run(form, noise, g, q, rate):
    zero = jnp.zeros(g.shape[1], jnp.finfo(g.dtype).dtype)
    bound = Sides(*(None if side is None else zero for side in q))

    def step(carry, inputs):
        (q, bound), (g, key) = carry, inputs
        v = jax.random.normal(key, g.shape[-2:], g.dtype)[None]
        g = g + noise * jnp.mean(jnp.abs(g)).astype(g.dtype) * v
        if form == "triangular":
            return (triangular_step(g, v, q, rate), bound), None
        return procrustes_step(g, q, bound, rate), None

    keys = jax.random.split(jax.random.key(0), len(g))
    return jax.lax.scan(step, (q, bound), (g, keys))[0][0]


def operator(q):
    """P as a matrix that acts on the entries of G, row by row."""
    q1, q2 = (np.diag(x) if x.ndim == 1 else x for x in (np.asarray(x[0]) for x in q))
    return np.kron(q1.conj().T @ q1, q2.conj().T @ q2)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_precondition_is_a_hermitian_operator_of_the_entries(dtype, x64):
    q = Sides(drawn(1, 3, 3, dtype=dtype), np.triu(drawn(1, 4, 4, dtype=dtype, seed=1)))
    g = drawn(1, 3, 4, dtype=dtype, seed=2)
    got = precondition(jnp.asarray(g), Sides(*map(jnp.asarray, q)))
    np.testing.assert_allclose(np.ravel(got), operator(q) @ g.ravel(), atol=1e-12)
    thin = Sides(jnp.asarray(drawn(1, 3, dtype=dtype)), None)
    wanted = np.abs(np.asarray(thin.rows[0])[:, None]) ** 2 * g
    np.testing.assert_allclose(precondition(jnp.asarray(g), thin), wanted, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_norm_from_below(dtype, x64):
    for seed in range(20):
        a = drawn(1, 7, 2, dtype=dtype, seed=seed)
        for x in (a @ a.conj().mT, 1e150 * a @ a.conj().mT):
            true = np.linalg.norm(x[0], 2)
            got = float(np.real(norm_below(jnp.asarray(x))[0, 0, 0]))
            assert 0.5 * true < got <= true * (1 + 1e-12)
    skew = drawn(1, 7, 7)
    skew = skew - skew.mT
    got = float(norm_below(jnp.asarray(skew))[0, 0, 0])
    assert 0.5 < got / np.linalg.norm(skew[0], 2) <= 1 + 1e-12
    assert norm_below(jnp.zeros((1, 3, 3))) == 1


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_turns_until_it_is_hermitian_and_keeps_the_product(dtype, x64):
    s = drawn(1, 5, 5, dtype=dtype)
    s = s @ s.conj().mT + 0.1 * np.eye(5)
    rotation = drawn(1, 5, 5, dtype=dtype, seed=1)
    values, vectors = np.linalg.eigh(1j * (rotation - rotation.conj().mT))
    angles = np.exp(-0.5j * values / np.abs(values).max())
    rotation = (vectors * angles[:, None]) @ vectors.conj().mT
    q = rotation @ s if dtype is np.complex128 else (rotation @ s).real
    start = np.conj(q).mT @ q
    once = np.asarray(turned(q))
    np.testing.assert_allclose(np.conj(once).mT @ once, start, rtol=1e-3, atol=1e-3)
    assert np.trace(once[0]).real > np.trace(q[0]).real
    for _ in range(300):
        q = turned(q)
    np.testing.assert_allclose(q, s, rtol=1e-3, atol=1e-3)
    assert 0 < TURN < 0.2


def test_a_hermitian_matrix_is_not_turned():
    s = drawn(1, 4, 4)
    s = np.float32(s @ s.mT)
    np.testing.assert_allclose(turned(s), s, rtol=1e-5)
    np.testing.assert_array_equal(turned(0 * s), 0 * s)


def test_balance_changes_no_product(x64):
    q = Sides(1e8 * drawn(2, 3, 3), 1e-9 * drawn(2, 4))
    even = balanced(Sides(*map(jnp.asarray, q)))
    largest = [np.abs(x).reshape(2, -1).max(1) for x in even]
    np.testing.assert_allclose(*largest)
    np.testing.assert_allclose(operator(even), operator(q), rtol=1e-10)
    huge = balanced(Sides(jnp.full((1, 3), 1e30, jnp.float32), jnp.full((1, 3), 1e30, jnp.float32)))
    assert float(huge.rows[0, 0]) < 1e10
    assert balanced(Sides(None, None)) == (None, None)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("form", FORMS)
def test_at_rest_when_the_covariance_is_one(form, dtype, x64):
    """The mean of steps at P = (a covariance)^(−1/2) vanishes, and does not at another P."""
    first, second = (drawn(n, n, dtype=dtype, seed=n) + 2 * np.eye(n) for n in (3, 4))
    g = first @ drawn(2000, 3, 4, dtype=dtype, seed=7) @ second.T
    g = g / (2**0.5 if dtype is np.complex128 else 1)

    def root(a):
        values, vectors = np.linalg.eigh(a @ a.conj().T)
        return (vectors * values**-0.25) @ vectors.conj().T

    v = drawn(2000, 3, 4, dtype=dtype, seed=8) / (2**0.5 if dtype is np.complex128 else 1)

    @jax.jit
    def steps(g, v, *q):
        q = Sides(*(x[None] for x in q))

        def moved(g, v):
            if form == "triangular":
                new = triangular_step(g[None], v[None], q, 0.1)
            else:
                bound = Sides(jnp.full(1, 100.0), jnp.full(1, 100.0))
                new = procrustes_step(g[None], q, bound, 0.1)[0]
            p = [x.conj().mT @ x for x in (*q, *new)]
            scale = jnp.trace(p[0][0]) / jnp.trace(p[2][0])  # what the balance moved
            return p[2][0] * scale - p[0][0]

        return jnp.linalg.norm(jnp.mean(jax.vmap(moved)(g, v), axis=0))

    triangle = [np.linalg.qr(root(a))[1] for a in (first, second)]
    rest = triangle if form == "triangular" else [root(first), root(second)]
    still = steps(g, v, *rest)
    away = steps(g, v, np.eye(3, dtype=dtype), np.eye(4, dtype=dtype))
    assert still < 0.15 * away


@pytest.mark.parametrize("form", FORMS)
def test_whitens_a_known_covariance(form):
    first, second = (drawn(n, n, seed=n) / n**0.5 + np.eye(n) for n in (4, 6))
    start = np.kron(first @ first.T, second @ second.T)
    assert np.linalg.cond(start) > 100

    def gradients(n, key):
        return np.float32(first @ drawn(n, 1, 4, 6, seed=10 + key) @ second.T)

    q = learn(form, np.float32(1e-3) * gradients(400, 0), steps=400, noise=0.0)
    q = learn(form, np.float32(1e-3) * gradients(400, 1), q, steps=400, rate=0.01, noise=0.0)
    p = 1e-3 * operator(q)
    values = np.linalg.eigvalsh(p @ start @ p.T)
    assert values.min() > 0.5
    assert values.max() < 1.6


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("diagonal", [(False, False), (True, False), (True, True)])
def test_finite_for_any_size(form, diagonal):
    for scale in (0.0, 1e-30, 1e-15, 1.0, 1e15, 1e30, 1e38):
        g = np.float32(drawn(1, 3, 5)) * np.float32(scale)
        q = learn(form, g, identity(3, 5, diagonal=diagonal), steps=300)
        assert all(np.isfinite(x).all() for x in q)
        for x in (g, np.full((1, 3, 5), 3e38, np.float32)):
            assert np.isfinite(precondition(x, q)).all()


@pytest.mark.parametrize("form", FORMS)
def test_of_low_rank(form):
    g = np.float32(drawn(1, 6, 1) @ drawn(1, 1, 8, seed=1))
    q = learn(form, g, steps=500)
    assert all(np.isfinite(x).all() for x in q)
    norm = np.linalg.norm(precondition(g, q))
    if form == "procrustes":  # the rows' T is at rest at 8, the columns' at 6
        assert 6**0.5 < norm < 8**0.5
    else:
        assert 0.5 < norm < 2


@pytest.mark.parametrize("form", FORMS)
def test_stacks_are_single_ones(form):
    g = np.float32(drawn(2, 3, 4) * np.array([1.0, 1e-3])[:, None, None])
    both = learn(form, g, steps=20, noise=0.0)
    for i in range(2):
        one = learn(form, g[i][None], steps=20, noise=0.0)
        for a, b in zip(both, one):
            np.testing.assert_allclose(a[i], b[0], rtol=2e-5, atol=1e-5)


def test_without_solves_a_rotation_of_the_gradients_rotates_the_factors():
    left, right = (np.linalg.qr(drawn(n, n, seed=n))[0] for n in (3, 4))
    g = drawn(50, 1, 3, 4)
    single = [
        learn("procrustes", np.float32(x), steps=50, noise=0.0) for x in (g, left @ g @ right.T)
    ]
    turn = np.kron(left, right)
    wanted = turn @ operator(single[0]) @ turn.T
    np.testing.assert_allclose(operator(single[1]), wanted, rtol=0, atol=0.02)
