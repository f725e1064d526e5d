import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnopt.linalg import roots

inverse_root = jax.jit(roots.inverse_root, static_argnums=(1, 2, 3), static_argnames="method")


def gram(shape, rank=None, dtype=np.float64, seed=0):
    """Positive semidefinite matrices."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(*shape[:-1], rank or shape[-1]))
    if np.iscomplexobj(dtype(0)):
        x = x + 1j * rng.normal(size=x.shape)
    return np.asarray(x @ np.conj(np.swapaxes(x, -1, -2)), dtype)


def exact(a, p, ridge):
    """(A + ε λmax I)^(−1/p) in float64."""
    wide = np.asarray(a, np.result_type(a.dtype, np.float64))
    values, q = np.linalg.eigh(wide)
    powers = (np.maximum(values, 0) + ridge * values[..., -1:]) ** (-1 / p)
    return (q * powers[..., None, :]) @ np.conj(np.swapaxes(q, -1, -2))


def distance(x, wanted):
    return np.abs(x - wanted).max() / np.abs(wanted).max()


@pytest.mark.parametrize("method", ["eigh", "newton"])
@pytest.mark.parametrize("p", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("shape", [(5, 5), (1, 1), (2, 3, 4, 4)], ids=str)
def test_roots_in_float64(shape, p, method, x64):
    for rank in (None, 1):
        a = gram(shape, rank)
        x, error = inverse_root(jnp.asarray(a), p, 1e-6, method)
        assert error.shape == shape[:-2]
        assert float(error.max()) < 1e-10
        # Newton's λmax, by the power iteration, is good to a millionth; so is then the ridge.
        assert distance(x, exact(a, p, 1e-6)) < (1e-9 if method == "eigh" else 1e-4)


@pytest.mark.parametrize("method", ["eigh", "newton"])
@pytest.mark.parametrize("size", [1e-30, 1e-20, 1.0, 1e30, 1e37])
@pytest.mark.parametrize("rank", [1, 3, 6])
def test_roots_of_any_size_and_rank_in_float32(rank, size, method):
    a = gram((2, 6, 6), rank, np.float32) / 32
    x, error = inverse_root(np.float32(size) * a, 4, 1e-4, method)
    assert float(error.max()) < 1e-3
    assert distance(np.float64(x) * size**0.25, exact(a, 4, 1e-4)) < 1e-3


@pytest.mark.parametrize("method", ["eigh", "newton"])
def test_complex_roots(method):
    a = gram((4, 4), dtype=np.complex64)
    x, error = inverse_root(jnp.asarray(a), 2, 1e-3, method)
    assert x.dtype == jnp.complex64
    assert error.dtype == jnp.float32
    assert distance(x, exact(a, 2, 1e-3)) < 1e-4


@pytest.mark.parametrize("method", ["eigh", "newton"])
def test_of_nothing_the_identity(method):
    zero = jnp.zeros((2, 3, 3))
    x, error = inverse_root(zero, 4, 1e-6, method)
    np.testing.assert_array_equal(x, jnp.broadcast_to(jnp.eye(3), x.shape))
    assert float(error.max()) < 1e-5
    assert inverse_root(jnp.zeros((2, 0, 0)), 4, 1e-6, method)[0].shape == (2, 0, 0)
    assert inverse_root(jnp.zeros((0, 2, 2)), 4, 1e-6, method)[0].shape == (0, 2, 2)


@pytest.mark.parametrize("method", ["eigh", "newton"])
def test_one_zero_matrix_of_a_stack_or_one_bad_one_leaves_the_others_alone(method):
    a = gram((3, 4, 4), dtype=np.float32)
    alone, _ = inverse_root(a[2], 4, 1e-6, method)
    a[0], a[1, 0, 0] = 0, np.nan
    x, error = inverse_root(a, 4, 1e-6, method)
    np.testing.assert_array_equal(x[0], jnp.eye(4))
    np.testing.assert_allclose(x[2], alone, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(error) <= 0.1, [True, False, True])


@pytest.mark.parametrize("method", ["eigh", "newton"])
def test_negative_eigenvalues_of_rounding_count_as_zero_or_are_told_of(method):
    a = np.diag(np.float32([1.0, 0.5, -1e-7]))
    x, error = inverse_root(a, 2, 1e-6, method)
    assert np.isfinite(x).all()
    assert float(error) < 1e-2
    _, error = inverse_root(np.diag(np.float32([1.0, 0.5, -1e-3])), 2, 1e-6, "newton")
    assert not float(error) <= 0.1


def test_without_a_ridge_a_singular_matrix_has_a_finite_root():
    a = jnp.asarray(gram((6, 6), 2, np.float32))
    for method in ("eigh", "newton"):
        assert np.isfinite(inverse_root(a, 4, 0.0, method)[0]).all()


@pytest.mark.parametrize("method", ["eigh", "newton"])
def test_a_large_ill_conditioned_matrix(method):
    rng = np.random.default_rng(0)
    q = np.linalg.qr(rng.normal(size=(100, 100)))[0]
    a = (q * np.logspace(0, -8, 100)) @ q.T
    x, error = inverse_root(jnp.float32(a), 4, 1e-6, method)
    assert float(error) < 0.1
    assert distance(x, exact(a, 4, 1e-6)) < 0.05


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="p must be a positive integer"):
        inverse_root(jnp.eye(2), 0)
    with pytest.raises(ValueError, match="eigh or newton"):
        inverse_root(jnp.eye(2), 2, method="svd")
