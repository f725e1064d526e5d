"""The bytes of arrays. What else `leaves` does is tested through the boundary, in test_core."""

import jax
import jax.numpy as jnp
import pytest

from fnopt.leaves import nbytes

DTYPES = (
    "int2", "int4", "uint4", "int8", "uint16", "int32", "bool", "float8_e4m3fn", "float8_e5m2",
    "bfloat16", "float16", "float32", "complex64",
)  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
def test_bytes_are_those_of_a_compiled_program(dtype):
    x = jax.ShapeDtypeStruct((6, 32), jnp.dtype(dtype))
    memory = jax.jit(lambda x: x).lower(x).compile().memory_analysis()
    assert nbytes(x) == memory.output_size_in_bytes


def test_bytes_of_a_part_are_rounded_up():
    assert nbytes(jnp.zeros(3, jnp.int4)) == 2
    assert nbytes(jnp.zeros((), jnp.uint4)) == 1
    assert nbytes(jnp.zeros((0, 4), jnp.int4)) == 0


def test_bytes_of_random_keys():
    keys = jax.random.split(jax.random.key(0), 3)
    assert nbytes(keys) == jax.random.key_data(keys).nbytes
