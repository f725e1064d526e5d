import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from fnopt.linalg.low_rank import (
    basis_shape,
    is_matrix,
    lift,
    low_shape,
    low_zeros,
    principal_basis,
    project,
    random_basis,
)

SHAPES = [(4, 4), (3, 7), (7, 3), (1, 5), (5, 1), (2, 3, 6), (2, 2, 6, 3)]


def matrices(shape, dtype=np.float64):
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape)
    return np.asarray(x + 1j * rng.normal(size=shape) if np.iscomplexobj(dtype(0)) else x, dtype)


def nearest(x, rank):
    """The nearest matrices of a rank."""
    u, s, vh = np.linalg.svd(x, full_matrices=False)
    return (u[..., :rank] * s[..., None, :rank]) @ vh[..., :rank, :]


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("rank", [1, 2, 9])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_there_and_back_is_the_nearest_matrix_of_the_rank(shape, rank, dtype, x64):
    x = matrices(shape, dtype)
    basis = principal_basis(jnp.asarray(x), rank)
    low = project(jnp.asarray(x), basis)
    assert basis.shape == basis_shape(shape, rank)
    assert low.shape == low_shape(shape, rank) == low_zeros(jnp.asarray(x), rank).shape
    np.testing.assert_allclose(lift(low, basis, jnp.asarray(x)), nearest(x, rank), atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_basis_is_orthonormal_and_its_largest_entries_positive(shape):
    basis = np.asarray(principal_basis(jnp.asarray(matrices(shape, np.float32)), 2))
    rows = basis if shape[-2] >= shape[-1] else np.swapaxes(basis, -1, -2)
    gram = rows @ np.swapaxes(rows, -1, -2)
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(gram.shape[-1]), gram.shape), atol=1e-5)
    places = np.abs(rows).argmax(axis=-1)[..., None]
    assert (np.take_along_axis(rows, places, axis=-1) > 0).all()


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e20, 1e38])
def test_a_basis_of_any_size(size):
    x = jnp.asarray(matrices((4, 3), np.float32)) / 4
    got, wanted = principal_basis(size * x, 2), principal_basis(x, 2)
    assert jnp.isfinite(got).all()
    if size:
        np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_a_basis_is_a_constant_to_derivatives():
    def loss(x):
        return jnp.sum(project(x, principal_basis(x, 1)) ** 2)

    assert jnp.isfinite(jax.grad(loss)(jnp.zeros((3, 3)))).all()


def test_a_random_basis_keeps_lengths_on_average():
    x = jnp.asarray(matrices((40, 30), np.float32))
    keys = jax.random.split(jax.random.key(0), 300)
    sizes = jax.vmap(lambda key: jnp.sum(project(x, random_basis(key, x, 3)) ** 2))(keys)
    assert float(sizes.mean()) == pytest.approx(float(jnp.sum(x**2)), rel=0.05)
    stack = jnp.stack([x, x])
    np.testing.assert_array_equal(random_basis(keys[0], stack, 3), random_basis(keys[0], x, 3))


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("shape", [(4, 8), (8, 4), (2, 4, 8)], ids=str)
def test_on_an_explicit_mesh_the_numbers_are_those_of_one_device(shape, jit):
    x = jnp.asarray(matrices(shape, np.float32))

    def there_and_back(x):
        basis = principal_basis(x, 3)
        return lift(project(x, basis), basis, x)

    wanted = there_and_back(x)
    mesh = jax.make_mesh((2, 4), ("x", "y"), axis_types=(AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):
        place = NamedSharding(mesh, PartitionSpec("x", *[None] * (x.ndim - 2), "y"))
        split = jax.device_put(x, place)
        got = (jax.jit(there_and_back) if jit else there_and_back)(split)
        assert got.sharding == place
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_what_is_a_matrix():
    assert is_matrix(jnp.ones((2, 1)))
    assert is_matrix(jnp.ones((2, 3, 4)))
    assert not is_matrix(jnp.ones(3))
    assert not is_matrix(jnp.ones(()))
    assert not is_matrix(jnp.ones((0, 3)))
