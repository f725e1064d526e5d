import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnopt.linalg.newton_schulz import EXACT, MUON, orthogonalize


def matrices(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def by_values(x, steps, triple):
    """The polynomial applied to the singular values."""
    u, s, v = np.linalg.svd(x, full_matrices=False)
    s = s / np.linalg.norm(s)
    a, b, c = triple
    for _ in range(steps):
        s = a * s + b * s**3 + c * s**5
    return (u * s) @ v


@pytest.mark.parametrize("shape", [(4, 4), (3, 7), (7, 3), (1, 5), (2, 1)], ids=str)
def test_the_polynomial_acts_on_the_singular_values(shape, x64):
    x = matrices(shape)
    np.testing.assert_allclose(orthogonalize(jnp.asarray(x)), by_values(x, 5, MUON), atol=1e-12)


def test_the_exact_triple_gives_the_orthogonal_factor(x64):
    x = matrices((5, 3))
    u, _, v = np.linalg.svd(x, full_matrices=False)
    np.testing.assert_allclose(orthogonalize(jnp.asarray(x), 25, EXACT), u @ v, atol=1e-10)


def test_muons_values_are_near_one():
    values = np.linalg.svd(orthogonalize(jnp.float32(matrices((16, 8)))), compute_uv=False)
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_batches_scales_and_zeros():
    x = jnp.float32(matrices((2, 3, 4, 5)))
    one = orthogonalize(x[1, 2])
    np.testing.assert_allclose(orthogonalize(x)[1, 2], one, rtol=1e-4, atol=1e-5)
    for factor in (1e30, 1e-30):
        np.testing.assert_allclose(orthogonalize(x[1, 2] * factor), one, rtol=1e-3, atol=1e-5)
    zero = jnp.zeros((3, 4))
    np.testing.assert_array_equal(orthogonalize(zero), zero)
    assert np.isfinite(jax.grad(lambda x: orthogonalize(x).sum())(zero)).all()
    assert orthogonalize(jnp.zeros((2, 0))).shape == (2, 0)
    assert np.isnan(orthogonalize(x.at[0, 0, 0, 0].set(jnp.nan))[0, 0]).any()


def test_each_step_may_have_its_own_triple(x64):
    x = jnp.asarray(matrices((3, 4)))
    both = orthogonalize(x, coefficients=[MUON, EXACT])
    u, s, v = np.linalg.svd(x, full_matrices=False)
    s = s / np.linalg.norm(s)
    for a, b, c in (MUON, EXACT):
        s = a * s + b * s**3 + c * s**5
    np.testing.assert_allclose(both, (u * s) @ v, atol=1e-12)


def test_complex_matrices():
    x = jnp.asarray(matrices((3, 4)) + 1j * matrices((3, 4), 1), jnp.complex64)
    q = orthogonalize(x, 30, EXACT)
    np.testing.assert_allclose(q @ q.conj().T, np.eye(3), atol=1e-5)
