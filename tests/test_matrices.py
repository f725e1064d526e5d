import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fnopt.matrices import LAYOUTS, MatrixDimensionNumbers, view, views


def leaf(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@pytest.mark.parametrize(
    ("shape", "layout", "batch", "fan_in", "fan_out"),
    [
        ((3, 5), "in_out", 1, 3, 5),
        ((3, 5), "out_in", 1, 5, 3),
        ((7, 3, 5), "in_out", 7, 3, 5),
        ((7, 3, 5), "out_in", 7, 5, 3),
        ((3, 3, 4, 5), "in_out", 1, 36, 5),
        ((5, 4, 3, 3), "out_in", 1, 36, 5),
        ((2, 3, 3, 4, 5), "in_out", 1, 72, 5),
        ((4,), "in_out", 1, 4, 1),
        ((), "in_out", 1, 1, 1),
    ],
)
def test_sides_by_rank(shape, layout, batch, fan_in, fan_out):
    v = view(leaf(*shape), layout=layout)
    assert (v.batch, v.fan_in, v.fan_out) == (batch, fan_in, fan_out)
    assert (v.rows, v.columns) == (min(fan_in, fan_out), max(fan_in, fan_out))


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4), (2, 5, 3), (2, 3, 4, 5), (4,), ()])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_stack_goes_back(shape, layout):
    x = jnp.arange(float(np.prod(shape, dtype=int))).reshape(shape)
    v = view(x, layout=layout)
    stack = v.stack(x)
    assert stack.shape == (v.batch, v.rows, v.columns)
    np.testing.assert_array_equal(v.unstack(stack), x)


def test_numbers_name_the_axes():
    x = np.float32(np.random.default_rng(0).normal(size=(2, 3, 4, 5)))
    v = view(x, MatrixDimensionNumbers((0, 2), -1))
    assert (v.batch, v.fan_in, v.fan_out) == (3, 8, 5)
    np.testing.assert_array_equal(v.stack(x)[1], x[:, 1].reshape(8, 5).T)
    theirs = optax.contrib.MuonDimensionNumbers(reduction_axis=(1,), output_axis=(3,))
    assert view(x, theirs).fan_in == 3


def test_equal_matrices_stand_alike_however_they_are_kept():
    x = jnp.arange(6.0).reshape(2, 3)
    one, two = view(x), view(x.T)
    np.testing.assert_array_equal(one.stack(x), two.stack(x.T))


def test_views_keep_the_places_of_what_is_none():
    params = {"a": jnp.ones((3, 4)), "b": None, "c": jnp.ones(3), "d": jnp.ones((0, 3))}
    found = views(params)
    assert found["a"].rows == 3
    assert found["b"] is found["c"] is found["d"] is None
    assert views(params, vectors=True)["c"].columns == 3
    only = views(params, {"a": None, "b": None, "c": None, "d": None})
    assert only["a"] is None
