import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnopt.linalg import newton_schulz
from fnopt.linalg.newton_schulz import EXACT, FORMS, MUON, sequence


@functools.partial(jax.jit, static_argnums=(1, 2), static_argnames=("form", "dtype"))
def compiled(x, *args, **kwargs):
    return newton_schulz.orthogonalize(x, *args, **kwargs)


def orthogonalize(x, steps=5, coefficients=MUON, **kwargs):
    if isinstance(coefficients, list):
        coefficients = tuple(map(tuple, coefficients))
    return compiled(x, steps, coefficients, **kwargs)


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


SEQUENCES_OF = {"keller_jordan": 5, "quintic": 5, "polar_express": 5, "exact": 30}


@pytest.mark.parametrize("name", SEQUENCES_OF)
@pytest.mark.parametrize("shape", [(4, 4), (3, 12), (12, 3), (1, 5), (1, 1)], ids=str)
def test_both_forms_act_on_the_singular_values(name, shape, x64):
    x = matrices(shape)
    table, factor = sequence(name, SEQUENCES_OF[name])
    u, s, v = np.linalg.svd(x, full_matrices=False)
    s = s / np.linalg.norm(s) / factor
    for a, b, c in table:
        s = a * s + b * s**3 + c * s**5
    for form in FORMS:
        found = orthogonalize(jnp.asarray(x), SEQUENCES_OF[name], name, form=form)
        np.testing.assert_allclose(found, (u * s) @ v, atol=1e-11)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["quintic", "polar_express"])
def test_good_sequences_end_near_one(name, form):
    x = jnp.float32(matrices((24, 96)))
    values = np.linalg.svd(orthogonalize(x, 8, name, form=form), compute_uv=False)
    np.testing.assert_allclose(values, 1, atol=0.05 if name == "quintic" else 0.01)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("factor", [1e-20, 1.0, 1e30])
def test_rank_deficient_matrices_of_any_size(form, factor):
    x = jnp.float32(factor * matrices((8, 2)) @ matrices((2, 24), 1))
    q = np.asarray(orthogonalize(x, form=form), np.float64)
    values = np.linalg.svd(q, compute_uv=False)
    assert np.isfinite(q).all()
    assert 0.6 < values[1] < values[0] < 1.3
    assert values[2:].max() < 2e-2
    np.testing.assert_array_equal(orthogonalize(0 * x, form=form), 0)


def test_bfloat16_is_arithmetic_and_not_the_result():
    x = jnp.float32(matrices((16, 48)))
    rough, fine = orthogonalize(x, dtype=jnp.bfloat16), orthogonalize(x)
    assert rough.dtype == jnp.float32
    assert 1e-4 < float(jnp.abs(rough - fine).max()) < 0.1


def test_the_steps_are_one_loop():
    def text(steps):
        return jax.jit(lambda x: orthogonalize(x, steps)).lower(jnp.ones((4, 4))).as_text()

    assert text(5).count("dot_general") == text(20).count("dot_general")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(coefficients="other"), "no coefficients 'other'; known: keller_jordan"),
        (dict(coefficients=(1.0, 2.0)), "three coefficients"),
        (dict(coefficients=[(1.0, 2.0)]), "three coefficients"),
        (dict(steps=0), "at least 1"),
        (dict(form="grim"), "form must be plain, gram or None"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        orthogonalize(jnp.ones((2, 2)), **arguments)
