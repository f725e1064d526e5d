import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnopt.linalg import eigen

eigenbasis = jax.jit(eigen.eigenbasis)
power_iteration = jax.jit(eigen.power_iteration, static_argnums=(1, 2))
subspace_iteration = jax.jit(eigen.subspace_iteration, static_argnums=2)


def gram(shape, rank=None, dtype=np.float64, seed=0):
    """Positive semidefinite matrices."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(*shape[:-1], rank or shape[-1]))
    if np.iscomplexobj(dtype(0)):
        x = x + 1j * rng.normal(size=x.shape)
    return np.asarray(x @ np.conj(np.swapaxes(x, -1, -2)), dtype)


def is_orthonormal(q, tolerance):
    n = q.shape[-1]
    products = np.conj(np.swapaxes(q, -1, -2)) @ q
    np.testing.assert_allclose(products, np.broadcast_to(np.eye(n), products.shape), atol=tolerance)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("shape", [(5, 5), (1, 1), (2, 3, 4, 4)], ids=str)
@pytest.mark.parametrize("rank", [None, 2])
def test_the_largest_eigenvalue(shape, rank, dtype, x64):
    a = gram(shape, rank, dtype)
    value, v = map(np.asarray, power_iteration(jnp.asarray(a), 2000, 1e-15))
    np.testing.assert_allclose(value, np.linalg.eigvalsh(a)[..., -1], rtol=1e-10)
    residual = np.einsum("...ij,...j->...i", a, v) - value[..., None] * v
    assert np.abs(residual).max() < 1e-4 * np.abs(a).max()
    np.testing.assert_allclose(np.linalg.norm(v, axis=-1), 1, rtol=1e-12)


def test_by_default_it_is_good_to_a_few_percent_of_a_large_matrix():
    a = gram((3, 200, 200), dtype=np.float32)
    value, _ = power_iteration(a)
    np.testing.assert_allclose(value, np.linalg.eigvalsh(np.float64(a))[..., -1], rtol=0.02)


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e30, 1e37])
def test_eigenvalues_of_any_size(size):
    a = gram((4, 4), dtype=np.float32) / 16
    value, _ = power_iteration(np.float32(size) * a)
    np.testing.assert_allclose(value / np.float32(size), power_iteration(a)[0], rtol=1e-5)


def test_of_nothing_and_of_blocks():
    value, v = power_iteration(jnp.zeros((2, 3, 3)))
    np.testing.assert_array_equal(value, [0, 0])
    assert jnp.isfinite(v).all()
    blocks = jnp.array([[1.0, 1, 0], [1, 1, 0], [0, 0, 1.5]])
    assert float(power_iteration(blocks)[0]) == pytest.approx(2, rel=1e-4)
    signed = jnp.diag(jnp.array([1.0, -3.0]))
    assert float(power_iteration(signed)[0]) == pytest.approx(-3)
    assert np.isnan(power_iteration(jnp.full((2, 2), jnp.nan))[0])


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("shape", [(5, 5), (1, 1), (2, 3, 4, 4)], ids=str)
def test_repeated_steps_find_all_eigenvectors(shape, dtype, x64):
    a = gram(shape, dtype=dtype)
    q = jnp.asarray(np.broadcast_to(np.eye(shape[-1], dtype=dtype), shape))
    step = subspace_iteration
    for _ in range(300):
        q, _ = step(jnp.asarray(a), q)
    q = np.asarray(q)
    is_orthonormal(q, 1e-12)
    turned = np.conj(np.swapaxes(q, -1, -2)) @ a @ q
    wanted = np.linalg.eigvalsh(a)[..., ::-1]
    np.testing.assert_allclose(np.diagonal(turned, axis1=-2, axis2=-1), wanted, rtol=1e-8)
    exact = np.asarray(eigenbasis(a))
    overlap = np.abs(np.sum(np.conj(exact) * q, axis=-2))
    np.testing.assert_allclose(overlap, 1, rtol=1e-8)


def test_the_columns_are_ordered_and_the_order_is_told():
    a = jnp.diag(jnp.array([1.0, 3, 2]))
    q, order = subspace_iteration(a, jnp.eye(3))
    np.testing.assert_array_equal(order, [1, 2, 0])
    np.testing.assert_array_equal(q, jnp.eye(3)[:, order])
    q, order = subspace_iteration(a, q)
    np.testing.assert_array_equal(order, [0, 1, 2])
    np.testing.assert_array_equal(q, jnp.eye(3)[:, jnp.array([1, 2, 0])])
    twice, order = subspace_iteration(a, jnp.eye(3), 2)
    np.testing.assert_array_equal(twice, q)
    np.testing.assert_array_equal(order, [1, 2, 0])


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1.0, 1e30, 1e37])
@pytest.mark.parametrize("rank", [1, 2, 4])
def test_bases_of_any_size_and_rank_stay_orthonormal(rank, size):
    a = np.float32(size) * gram((2, 4, 4), rank, np.float32) / 16
    q = eigenbasis(jnp.asarray(gram((2, 4, 4), seed=1, dtype=np.float32)))
    for _ in range(40):
        q, _ = subspace_iteration(a, q)
        is_orthonormal(np.asarray(q), 1e-5)
    is_orthonormal(np.asarray(eigenbasis(a)), 1e-5)
    rest = (a / np.float32(size) @ np.asarray(q))[..., rank:]
    assert np.abs(rest).max(initial=0) < 1e-5


def test_of_a_zero_matrix_the_basis_stays():
    q = eigenbasis(jnp.asarray(gram((4, 4), dtype=np.float32)))
    stayed, order = subspace_iteration(jnp.zeros((4, 4)), q)
    np.testing.assert_array_equal(stayed, q)
    np.testing.assert_array_equal(order, jnp.arange(4))
