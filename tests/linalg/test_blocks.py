import jax.numpy as jnp
import numpy as np
import pytest

from fnopt.linalg.blocks import cut, join, sides


@pytest.mark.parametrize("shape", [(2, 4, 6), (1, 5, 7), (3, 1, 9), (2, 1, 1)], ids=str)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
def test_there_and_back(shape, size):
    x = jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape) + 1
    blocks = cut(x, size)
    assert blocks.shape[0] == shape[0]
    assert max(blocks.shape[2:]) <= size
    assert float(blocks.sum()) == float(x.sum())
    np.testing.assert_array_equal(join(blocks, *shape[1:], size), x)


def test_blocks_are_submatrices():
    x = jnp.arange(24.0).reshape(1, 4, 6)
    np.testing.assert_array_equal(cut(x, 3)[0, 1], x[0, :2, 3:])
    np.testing.assert_array_equal(cut(x, 3)[0, 2], x[0, 2:, :3])


def test_parts_are_about_equal():
    assert sides(1024, 1024) == (1, 1024)
    assert sides(1025, 1024) == (2, 513)
    assert sides(0, 4) == (1, 0)
