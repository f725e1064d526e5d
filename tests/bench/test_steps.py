import functools

import jax
import jax.numpy as jnp

from fnopt.bench import steps, trees
from fnopt.bench.arithmetic import operations


def test_products_loops_and_branches_are_counted():
    def f(x, due):
        y = jax.lax.scan(lambda c, _: (c @ c, None), x, None, length=5)[0]
        return jax.lax.cond(due, lambda y: y @ y @ y, lambda y: y @ y, y)

    found, none = operations(f, jnp.ones((8, 8)), True)
    assert none == (0, 0)
    assert found == (6 * 2 * 8**3, 2 * 8**3)
    assert found.amortized(10) == 6 * 2 * 8**3 + 2 * 8**3 / 10
    batch, _ = operations(jax.jit(lambda x: jnp.matmul(x, x.mT)), jnp.ones((3, 4, 5)))
    assert batch == (3 * 2 * 4 * 4 * 5, 0)
    _, roots = operations(lambda x: jnp.linalg.eigh(x)[1], jnp.ones((4, 4)))
    assert roots.always == 9 * 4**3


def test_platforms_are_no_branches_in_time():
    def f(x):
        return jax.lax.platform_dependent(x, cpu=lambda x: x @ x, default=lambda x: x @ x @ x)

    assert operations(f, jnp.ones((8, 8))) == ((2 * 8**3, 0), (0, 0))


def test_newton_schulz_has_the_operations_that_are_written_down():
    def count(shape, **arguments):
        from fnopt.linalg.newton_schulz import orthogonalize

        return operations(lambda x: orthogonalize(x, **arguments), jnp.ones(shape))[0].always

    m, n = 8, 32
    assert count((m, n), form="plain") == 5 * (4 * m**2 * n + 2 * m**3)
    assert count((m, n)) == 4 * m**2 * n + 4 * 8 * m**3 + 4 * m**3


def test_the_page(monkeypatch, tmp_path, standard_numerics):
    tree = ("two layers", lambda: trees.transformer(2, 8))
    monkeypatch.setitem(steps.TREES, "transformer", tree)
    for name in ("product_rate", "decomposition_rate"):  # measured for seconds otherwise
        monkeypatch.setattr(steps, name, functools.partial(getattr(steps, name), 16, 0.01))
    out = tmp_path / "page.md"
    words = ["--tree", "transformer", "--only", "muon", "--steps", "3", "--out", str(out)]
    steps.main(words)
    text = out.read_text()
    assert "| muon | " in text
    assert "| optax muon | " in text
    rows = [line for line in text.split("\n") if line.startswith("| muon")]
    assert [line.count("|") for line in rows] == [6, 10]
