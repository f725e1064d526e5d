import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnopt.linalg import householder
from fnopt.linalg.householder import LEAST, by_panels

by_lapack, orthogonal_factor = map(jax.jit, (householder.by_lapack, householder.orthogonal_factor))


def drawn(shape, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    return jnp.asarray(x + 1j * rng.normal(size=shape) if dtype == np.complex64 else x, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
@pytest.mark.parametrize("shape", [(1, 1), (5, 5), (9, 5), (2, 3, 33, 32), (40, 33), (70, 70)])
@pytest.mark.parametrize("width", [1, 6, 32])
def test_panels_find_what_lapack_finds(shape, width, dtype):
    x = drawn(shape, dtype)
    for found, wanted in zip(jax.jit(by_panels, static_argnums=1)(x, width), by_lapack(x)):
        assert found.shape == wanted.shape
        assert found.dtype == wanted.dtype
        np.testing.assert_allclose(found, wanted, atol=2e-5)


@pytest.mark.parametrize("shape", [(128, 128), (300, 40), (512, 20), (600, 20)])
def test_matrices_of_many_entries_and_panels_by_halves(shape):
    assert shape[0] * shape[1] > LEAST
    x = drawn(shape)
    for found, wanted in zip(orthogonal_factor(x), by_lapack(x)):
        np.testing.assert_allclose(found, wanted, atol=4e-5)


@pytest.mark.parametrize("rank", [0, 1, 50])
def test_columns_are_orthonormal_whatever_the_rank(rank):
    x = drawn((120, rank)) @ drawn((rank, 100), seed=1)
    x = x.at[:, 40:45].set(0)
    q, diagonal = orthogonal_factor(x)
    np.testing.assert_allclose(q.T @ q, np.eye(100), atol=2e-6)
    r = q.T @ x
    np.testing.assert_allclose(q @ r, x, atol=1e-4)
    np.testing.assert_allclose(jnp.tril(r, -1), 0, atol=1e-4)
    np.testing.assert_allclose(jnp.diagonal(r), diagonal, atol=1e-4)


def test_stacks_one_after_another_and_devices_of_a_mesh():
    x = drawn((4, 100, 100))
    wanted = by_lapack(x)[0]
    np.testing.assert_allclose(jax.lax.map(lambda x: orthogonal_factor(x)[0], x), wanted, atol=4e-5)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("d",))
    part = jax.shard_map(
        lambda x: orthogonal_factor(x)[0], mesh=mesh, in_specs=jax.P("d"), out_specs=jax.P("d")
    )
    np.testing.assert_allclose(jax.jit(part)(x), wanted, atol=4e-5)
