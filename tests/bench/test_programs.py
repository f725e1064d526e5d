"""Operations of compiled programs: by hand, and as traced programs have them."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding

import fnopt
from fnopt.bench.arithmetic import operations
from fnopt.bench.programs import compiled_operations

X = jax.ShapeDtypeStruct((8, 8), jnp.float32)
STACK = jax.ShapeDtypeStruct((3, 8, 8), jnp.float32)
PRODUCT = 2 * 8**3


def counted(f, *arguments):
    return compiled_operations(jax.jit(f).lower(*arguments).compile())


def loop(n, f, x):
    return jax.lax.fori_loop(0, n, lambda i, y: f(y), x)


def test_products():
    wide = jax.ShapeDtypeStruct((8, 5), jnp.float32)
    assert counted(lambda x, y: x @ y, X, wide) == 2 * 8 * 8 * 5
    assert counted(lambda x, y: jnp.einsum("bij,bkj->bik", x, y), STACK, STACK) == 3 * PRODUCT
    assert counted(lambda x: jnp.sin(x) * x, X) == 0


def test_loops_within_loops():
    assert counted(lambda x: loop(3, lambda y: loop(5, lambda z: z @ x, y), x), X) == 15 * PRODUCT


def test_the_dearest_branch():
    def f(x, due):
        return jax.lax.cond(due, lambda x: x @ x @ x, lambda x: x @ x, x)

    assert counted(f, X, jax.ShapeDtypeStruct((), bool)) == 2 * PRODUCT


@pytest.mark.parametrize("f", [jnp.linalg.eigh, jnp.linalg.qr, jnp.linalg.svd, jnp.linalg.cholesky])
def test_decompositions_are_those_of_the_traced_program(f):
    products, decompositions = operations(f, STACK)
    assert counted(f, STACK) == pytest.approx(products.always + decompositions.always)
    assert decompositions.always > 0


def test_solves():
    def f(x, y):
        return jax.scipy.linalg.solve_triangular(x, y)

    assert counted(f, X, X) == operations(f, X, X)[0].always == 8**3


def test_muon_is_as_traced():
    optimizer = fnopt.muon(0.01)
    params = {f"w{i}": jax.ShapeDtypeStruct((8, 16), jnp.float32) for i in range(4)}
    state = jax.eval_shape(optimizer.init, params)
    products, _ = operations(optimizer.update, params, state, params)
    assert counted(optimizer.update, params, state, params) == products.always > 0


def test_the_share_of_a_device():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, jax.P("data"))
    x = jax.ShapeDtypeStruct((8, 8), jnp.float32, sharding=rows)
    assert counted(lambda x, y: x @ y, x, X) == PRODUCT / 8


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="how often a loop turns"):
        counted(lambda x: jax.lax.while_loop(lambda y: y[0, 0] < 9, lambda y: y @ x, x), X)
    with pytest.raises(ValueError, match="a call that is not known: lapack_sgetrf_ffi"):
        counted(jnp.linalg.inv, X)
    with pytest.raises(ValueError, match="convolutions are not counted"):
        counted(lambda x: jax.lax.conv(x[None, None], x[None, None], (1, 1), "SAME"), X)
