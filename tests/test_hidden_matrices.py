import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnopt
from fnopt import hidden_matrices
from fnopt.bench import models, trees
from fnopt.hidden_matrices import choices, matrix_report
from fnopt.matrices import MatrixDimensionNumbers


def leaf(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@pytest.mark.parametrize(
    "numbers",
    [MatrixDimensionNumbers(0, 3), MatrixDimensionNumbers(1, -1), MatrixDimensionNumbers((), 0)],
    ids=str,
)
def test_axes_that_are_not_there_are_named(numbers):
    with pytest.raises(ValueError, match=r"dimension numbers of w: its shape \(3, 5\)"):
        choices({"w": leaf(3, 5)}, {"w": numbers})


MODEL = {
    "wte": {"embedding": leaf(500, 16)},
    "pos_embed": leaf(32, 16),
    "blocks": {
        "attn": {"q_proj": leaf(6, 16, 16), "out": {"kernel": leaf(6, 16, 16)}},
        "MultiHeadDotProductAttention_0": {"query": {"kernel": leaf(16, 16)}},
        "ln_1": {"scale": leaf(6, 16), "bias": leaf(6, 16)},
        "up": {"w": leaf(6, 16, 64), "b": leaf(6, 64)},
        "down": {"w": leaf(6, 64, 16)},
    },
    "lm_head": leaf(16, 500),
    "conv": {"kernel": leaf(3, 3, 16, 64)},
}


def test_paths_say_what_is_no_hidden_matrix():
    taken = {c.path for c in choices(MODEL) if c.view}
    assert taken == {
        "blocks/attn/q_proj",
        "blocks/attn/out/kernel",
        "blocks/MultiHeadDotProductAttention_0/query/kernel",
        "blocks/up/w",
        "blocks/down/w",
        "conv/kernel",
    }
    assert not matrix_report(MODEL).doubtful


def test_the_transformer_of_the_benchmarks_is_read_right():
    sizes = models.Sizes(width=16, layers=1)
    params = jax.eval_shape(
        lambda k: models.transformer(k, sizes, dtype=jnp.float32), jax.random.key(0)
    )
    taken = {c.path.split("/")[-1] for c in choices(params) if c.view}
    assert taken == {"query", "key", "value", "output", "up", "down"}
    assert not matrix_report(trees.transformer(2)).doubtful


def test_an_embedding_of_an_unknown_name_is_doubted(caplog):
    params = {"table": jnp.ones((50, 4)), "layer": {"a": jnp.ones((4, 4)), "b": jnp.ones(4)}}
    report = matrix_report(params, name="muon")
    assert report.doubtful == ("table",)
    assert "no other has a side of 50" in str(report)
    hidden_matrices._tell.cache_clear()
    with caplog.at_level(logging.WARNING, "fnopt.hidden_matrices"):
        optimizer = fnopt.muon(0.02)
        state = optimizer.init(params)
        optimizer.update(params, state, params)
    assert [r.getMessage() for r in caplog.records] == [
        "table  (50, 4)  muon 50 -> 4  ? a matrix; no other has a side of 50: first or last?\n"
        "? say so in dimension_numbers, with None for a leaf that is no hidden matrix"
    ]
    caplog.clear()
    numbers = {"table": None, "layer": {"a": MatrixDimensionNumbers(), "b": None}}
    told = fnopt.muon(0.02, dimension_numbers=numbers)
    assert (
        "fallback: adam " in str(fnopt.summary(told, params)).split("['table']")[1].split("\n")[0]
    )
    assert not caplog.records
    tied = {"table": jnp.ones((50, 4)), "out": jnp.ones((4, 50)), "a": jnp.ones((4, 4))}
    assert set(matrix_report(tied).doubtful) == {"table", "out"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(layout="io"), "layout must be one of in_out, out_in, got 'io'"),
        (dict(dimension_numbers={"w": 1}), "at w must be MatrixDimensionNumbers or None, got 1"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        choices({"w": leaf(3, 4)}, **arguments)


def test_a_side_of_exactly_eight_times_the_other_is_doubted():
    for columns, doubted in ((32, True), (28, False)):
        params = {name: np.ones((4, columns), np.float32) for name in ("one", "two")}
        report = str(fnopt.matrix_report(params, name="muon"))
        assert ("an embedding?" in report) == doubted, report
