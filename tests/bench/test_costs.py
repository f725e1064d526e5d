"""The counts of the most used configurations are those of the committed page; the command."""

from pathlib import Path

import jax
import pytest

from fnopt import cli
from fnopt.bench import costs, costs_page, trees
from fnopt.bench.counts import Count, count

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks" / "costs.md"
CPU_ONLY = "the page's counts are the CPU compiler's"


@pytest.mark.parametrize("name", costs.MOST_USED)
def test_counts_are_those_of_the_page(name):
    """Two layers of the transformer tree: the counts per parameter are those of twelve."""
    assert jax.devices()[0].platform == "cpu", CPU_ONLY
    expected = costs_page.rows_on(PAGE.read_text())["transformer"][name].ours
    ours = costs.configurations()[name].ours()
    found = count(ours, trees.transformer(layers=2))
    assert found[:3] == pytest.approx(expected[:3], abs=0.1)  # scalars, sums, rows and columns


def test_the_page_has_every_configuration():
    found = costs_page.rows_on(PAGE.read_text())
    assert list(found) == list(costs.TREES)
    for tree, rows in found.items():
        missing = costs.configurations().keys() - rows.keys()
        assert not missing, f"fnopt bench costs --tree {tree} --only ... adds {missing}"


def test_the_command(capsys, monkeypatch, tmp_path, standard_numerics):
    """One small leaf; a page that is there already gets the rows that it has not."""
    leaf = {"w": jax.ShapeDtypeStruct((32, 32), "float32")}
    monkeypatch.setitem(costs.TREES, "wide", ("a leaf", lambda: leaf))
    words = ["bench", "costs", "--tree", "wide", "--rounds", "2"]
    assert cli.main([*words, "--only", "sgd"]) == 0
    out = capsys.readouterr().out
    (row,) = costs_page.rows_on(out)["wide"].values()
    assert row.pairs == 2
    assert row.ours[:3] == pytest.approx((12, 0, 0), abs=0.1)
    assert row.theirs[:3] == pytest.approx((12, 0, 0), abs=0.1)
    assert "1,024 parameters; leaves: 1." in out
    page = tmp_path / "page.md"
    page.write_text(out)
    assert cli.main([*words, "--only", "clip + adamw, came", "--out", str(page)]) == 0
    rows = costs_page.rows_on(page.read_text())["wide"]
    assert list(rows) == ["came", "sgd", "clip + adamw"]
    assert rows["sgd"] == row
    assert rows["came"].theirs is rows["came"].compiling is None
    assert rows["clip + adamw"].ours.state == 8.01


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "adamm"], "unknown configuration 'adamm'; did you mean 'adam'?"),
        (["--rounds", "0"], "--rounds must be at least 1, got 0"),
        (["--out", "/nowhere/page.md"], "--out /nowhere/page.md: there is no folder /nowhere"),
    ],
)
def test_mistakes(capsys, words, message):
    assert cli.main(["bench", "costs", *words]) == 2
    assert capsys.readouterr().err == f"fnopt bench: {message}\n"


def test_what_is_above_is_named():
    low, high = Count(28.0, 0.0, 4.0, 1.0, 1.0, 1.0), Count(29.0, 4.0, 8.0, 1.0, 1.0, 1.0)
    rows = {
        "lion": costs.Row(high, low, 1.0, 1.25),
        "sgd": costs.Row(low, high, 1.0, 0.5),
        "adam": costs.Row(low),
    }
    assert costs_page.above(rows) == [
        "Above the floor: lion (29.00 of 28), sgd (28.00 of 12).",
        "Above optax in bytes: lion (29.00 of 28.00).",
        "Above optax in temporary memory: lion (4.00 of 0.00).",
        "Above optax in state: lion (8.00 of 4.00).",
        "Above optax in time to compile: lion (1.25).",
        "The median of the 2 ratios of compile times: 0.88.",
    ]


def test_nothing_is_compiled_from_the_cache(tmp_path):
    """A program that the cache has is compiled again, and stored no second time."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    try:
        with costs.without_cache():
            jax.jit(lambda x: x * 3.0 + 1.0).lower(1.0).compile()
        assert not list(tmp_path.iterdir())
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert jax.config.jax_enable_compilation_cache
