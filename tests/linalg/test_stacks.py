import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnopt.linalg import stacks
from fnopt.linalg.stacks import map_stacks
from fnopt.matrices import views

SHAPES = {"a": (3, 4), "b": (4, 3), "c": (2, 3, 4), "d": (5, 5), "e": (7,), "f": (1, 6)}


def leaves(seed=0):
    rng = np.random.default_rng(seed)
    return {k: jnp.float32(rng.normal(size=s)) for k, s in SHAPES.items()}


@pytest.mark.parametrize("jit", [False, True])
def test_a_kernel_sees_equal_sides_together(jit):
    tree, other = leaves(), leaves(1)
    seen = views(tree)
    shapes = []

    def kernel(matrices, kept):
        shapes.append(matrices[0].shape[1:])
        x, y = matrices
        gram = jnp.matmul(x, x.mT)
        return (jnp.matmul(gram, y), 2 * x), (kept[0] + gram,)

    def run(tree, other):
        grams = {
            k: None if v is None else jnp.zeros((v.batch, v.rows, v.rows)) for k, v in seen.items()
        }
        return map_stacks(kernel, seen, (tree, other), (grams,))

    (product, double), (grams,) = (jax.jit(run) if jit else run)(tree, other)
    assert sorted(set(shapes)) == [(1, 6), (3, 4), (5, 5)]
    for k, x in tree.items():
        if k == "e":
            np.testing.assert_array_equal(product[k], x)
            np.testing.assert_array_equal(double[k], other[k])
            assert grams[k] is None
            continue
        wide = x.mT if k == "b" else x
        gram = wide @ wide.mT
        wanted = gram @ (other[k].mT if k == "b" else other[k])
        np.testing.assert_allclose(product[k], wanted.mT if k == "b" else wanted, rtol=1e-5)
        np.testing.assert_array_equal(double[k], 2 * x)
        np.testing.assert_allclose(grams[k], gram if k == "c" else gram[None], rtol=1e-5)


def test_a_large_stack_is_taken_in_parts(monkeypatch):
    tree = {
        str(i): x
        for i, x in enumerate(jnp.float32(np.random.default_rng(0).normal(size=(7, 3, 4))))
    }
    seen = views(tree)

    def kernel(matrices, kept):
        return (jnp.matmul(jnp.matmul(matrices[0], matrices[0].mT), matrices[0]),), ()

    wanted = {k: x @ x.T @ x for k, x in tree.items()}
    for largest in (1, 24, 36, 1000):
        monkeypatch.setattr(stacks, "LARGEST", largest)
        for forced in (False, True):
            if forced:  # as where there is no CPU
                monkeypatch.setattr(
                    jax.lax, "platform_dependent", lambda *a, cpu, default: default(*a)
                )
            (found,), _ = map_stacks(kernel, seen, (tree,))
            for k in tree:
                np.testing.assert_allclose(found[k], wanted[k], rtol=1e-5, atol=1e-6)
            monkeypatch.undo()
            monkeypatch.setattr(stacks, "LARGEST", largest)


def test_many_parts_are_found_in_one_program_too():
    tree = {str(i): jnp.full((2, 3, 3) if i % 2 else (3, 3), float(i + 1)) for i in range(9)}
    seen = views(tree)

    def double(tree):
        (found,), (kept,) = map_stacks(
            lambda matrices, kept: ((2 * matrices[0],), (3 * kept[0],)),
            seen,
            (tree,),
            ({k: jnp.full((seen[k].batch, 2), float(k)) for k in tree},),
        )
        return found, kept

    found, kept = jax.jit(double)(tree)
    for i, x in tree.items():
        np.testing.assert_array_equal(found[i], 2 * x)
        np.testing.assert_array_equal(kept[i], 3 * float(i))
    pair = jax.tree.map(lambda x: jnp.stack([x, -x]), tree)
    np.testing.assert_array_equal(jax.vmap(lambda t: double(t)[0])(pair)["7"][1], -2 * tree["7"])
    slope = jax.grad(lambda t: sum(jnp.sum(x) for x in double(t)[0].values()))(tree)
    np.testing.assert_array_equal(slope["3"], 2)


def test_nothing_and_only_vectors():
    assert map_stacks(None, {}, ({},)) == (({},), ())
    tree = {"e": jnp.ones(3)}
    (found,), _ = map_stacks(None, views(tree), (tree,))
    assert found["e"] is tree["e"]
