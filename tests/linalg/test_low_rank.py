import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from fnopt.linalg import low_rank
from fnopt.linalg.low_rank import basis_shape, is_matrix, low_shape, low_zeros

lift, principal_basis, project = map(
    jax.jit, (low_rank.lift, low_rank.principal_basis, low_rank.project)
)
random_bases = jax.jit(low_rank.random_bases, static_argnums=2)

SHAPES = [(4, 4), (3, 7), (7, 3), (1, 5), (5, 1), (2, 3, 6), (2, 2, 6, 3)]


def matrices(shape, dtype=np.float64):
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape)
    return np.asarray(x + 1j * rng.normal(size=shape) if np.iscomplexobj(dtype(0)) else x, dtype)


def nearest(x, rank):
    """The nearest matrices of a rank."""
    u, s, vh = np.linalg.svd(x, full_matrices=False)
    return (u[..., :rank] * s[..., None, :rank]) @ vh[..., :rank, :]


def found(x, rank):
    """The principal basis where there was none."""
    return principal_basis(x, np.zeros(basis_shape(x.shape, rank), x.dtype))


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("rank", [1, 2, 9])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_there_and_back_is_the_nearest_matrix_of_the_rank(shape, rank, dtype, x64):
    x = matrices(shape, dtype)

    @jax.jit
    def there_and_back(x):
        basis = found(x, rank)
        low = project(x, basis)
        return basis, low, lift(low, basis, x)

    basis, low, back = there_and_back(x)
    assert basis.shape == basis_shape(shape, rank)
    zeros = jax.eval_shape(lambda x: low_zeros(x, rank), x)
    assert low.shape == low_shape(shape, rank) == zeros.shape
    np.testing.assert_allclose(back, nearest(x, rank), atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_basis_points_the_way_of_the_last_one(shape, dtype):
    x = matrices(shape, dtype)
    first = np.asarray(found(x, 2))
    np.testing.assert_allclose(principal_basis(x, -first), -first, atol=1e-5)
    rows = first if shape[-2] >= shape[-1] else first.mT
    gram = rows @ np.conj(np.swapaxes(rows, -1, -2))
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(gram.shape[-1]), gram.shape), atol=1e-5)


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e20, 1e38])
def test_a_basis_of_any_size(size):
    x, size = matrices((4, 3), np.float32) / 4, np.float32(size)
    assert np.isfinite(found(size * x, 2)).all()
    if 0 < size < 1e16:
        np.testing.assert_allclose(principal_basis(size * x, found(x, 2)), found(x, 2), atol=1e-5)


def test_a_basis_is_a_constant_to_derivatives():
    def loss(x):
        return jnp.sum(project(x, found(x, 1)) ** 2)

    assert np.isfinite(jax.jit(jax.grad(loss))(np.zeros((3, 3), np.float32))).all()


def test_random_bases_keep_lengths_on_average():
    x = matrices((40, 30), np.float32)

    @jax.jit
    def sizes():
        keys = jax.random.split(jax.random.key(0), 300)
        return jax.vmap(lambda key: jnp.sum(project(x, random_bases(key, x, 3)) ** 2))(keys)

    assert np.mean(sizes()) == pytest.approx(np.sum(x**2), rel=0.05)


def test_equal_matrices_share_a_draw_stacked_or_apart():
    key, x = jax.random.key(0), jnp.ones((4, 3))
    bases = random_bases(key, {"a": x, "b": jnp.ones((2, 4, 3)), "c": jnp.ones(3), "d": x.T}, 2)
    assert bases["c"] is None
    np.testing.assert_array_equal(bases["a"], bases["b"])
    np.testing.assert_array_equal(bases["a"], random_bases(key, [x], 2)[0])
    assert bases["d"].shape == (3, 2)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("shape", [(4, 8), (8, 4), (2, 4, 8)], ids=str)
def test_on_an_explicit_mesh_the_numbers_are_those_of_one_device(shape, jit):
    x = jnp.asarray(matrices(shape, np.float32))
    last = jnp.zeros(basis_shape(shape, 3))

    def there_and_back(x, last):
        basis = low_rank.principal_basis(x, last)
        return low_rank.lift(low_rank.project(x, basis), basis, x), basis

    wanted, _ = jax.jit(there_and_back)(x, last)
    mesh = jax.make_mesh((2, 4), ("x", "y"), axis_types=(AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):
        front = ["x"] if x.ndim > 2 else []
        place = NamedSharding(mesh, PartitionSpec(*front, None if front else "x", "y"))
        split, last = (
            jax.device_put(x, place),
            jax.device_put(last, NamedSharding(mesh, PartitionSpec(*front))),
        )
        got, basis = (jax.jit(there_and_back) if jit else there_and_back)(split, last)
        assert got.sharding.is_equivalent_to(place, x.ndim)
        assert basis.sharding.is_equivalent_to(last.sharding, x.ndim)
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_what_is_a_matrix():
    assert is_matrix(jnp.ones((2, 1)))
    assert is_matrix(jnp.ones((2, 3, 4)))
    assert not is_matrix(jnp.ones(3))
    assert not is_matrix(jnp.ones(()))
    assert not is_matrix(jnp.ones((0, 3)))
