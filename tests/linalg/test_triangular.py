import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnopt.linalg import triangular

solve_left, solve_right = (
    jax.jit(f, static_argnames="lower") for f in (triangular.solve_left, triangular.solve_right)
)


def drawn(shape, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    return np.asarray(x + 1j * rng.normal(size=shape) if np.iscomplexobj(dtype(0)) else x, dtype)


def triangles(shape, dtype=np.float64, lower=False):
    """Well conditioned ones, with numbers in the other triangle that nobody may read."""
    full = drawn(shape, dtype, 1) / shape[-1] + 2 * np.eye(shape[-1])
    return full, (np.tril(full) if lower else np.triu(full))


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("front", [((), ()), ((2, 3), (2, 3)), ((3,), ()), ((), (2,))], ids=str)
@pytest.mark.parametrize("m", [1, 4])
def test_against_the_inverse(m, front, dtype, lower, x64):
    full, q = triangles((*front[1], 5, 5), dtype, lower)
    x = drawn((*front[0], m, 5), dtype)
    got = solve_right(x, full, lower=lower)
    np.testing.assert_allclose(got, x @ np.linalg.inv(q), atol=1e-12)
    y = np.swapaxes(x, -1, -2)
    got = solve_left(jnp.asarray(full), jnp.asarray(y), lower=lower)
    np.testing.assert_allclose(got, np.linalg.inv(q) @ y, atol=1e-12)


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e20, 1e30])
def test_any_size(size):
    full, _ = triangles((5, 5), np.float32)
    x, size = drawn((3, 5), np.float32), np.float32(size)
    wanted = np.asarray(solve_right(x, full))
    np.testing.assert_allclose(solve_right(x, size * full) * size, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(solve_right(size * x, size * full), wanted, rtol=1e-4, atol=1e-5)


def test_one_by_one_and_singular():
    np.testing.assert_allclose(solve_right(jnp.ones((3, 1)), jnp.full((1, 1), 4.0)), 0.25)
    assert np.isfinite(solve_right(jnp.ones((3, 2)), jnp.zeros((2, 2)))).all()
    singular = jnp.array([[1.0, 2], [0, 0]])
    assert np.isfinite(solve_right(jnp.ones((3, 2)), singular)).all()
    assert np.isfinite(solve_left(singular, jnp.ones((2, 3)))).all()
    assert solve_right(jnp.zeros((0, 2)), jnp.eye(2)).shape == (0, 2)
