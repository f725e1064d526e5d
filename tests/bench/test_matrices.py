"""The command of a few steps on a small network, its page and picture, and the search of a rate."""

import math
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import fnopt
from fnopt import cli
from fnopt.bench import matrices, matrices_page, models, real, text
from fnopt.bench.matrices import BASE, Results, Row
from fnopt.bench.text import standard_library

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks" / "matrices.md"
SMALL = models.Sizes(context=8, width=8, layers=1, heads=2)


QUICK = matrices.Entry(0.02, lambda rate, steps, other: fnopt.sgd(matrices.falling(rate, steps)))
FALLBACK = matrices.Entry(0.02, lambda rate, steps, other: other)


@pytest.fixture
def small(monkeypatch):
    """A small network, and optimizers that compile quickly."""
    quick = {BASE: QUICK, "schedule_free_adamw": QUICK, "muon": FALLBACK}
    monkeypatch.setattr(matrices, "OPTIMIZERS", quick)
    monkeypatch.setattr(matrices, "SIZES", SMALL)
    monkeypatch.setattr(matrices, "HELD_OUT", 4)
    monkeypatch.setattr(matrices, "MOST", 4)


def task(seed=0, steps=50):
    return real.characters(seed, steps=steps, rows=2, held_out=4, sizes=SMALL)


def row(last, *, first=4.0, cost=1.0, rates=None):
    curve = tuple(np.linspace(first, last, matrices.POINTS).round(4).tolist())
    return Row(rates or {0.01: 2.5, 0.02: 2.0, 0.04: 2.25}, last + 0.1, 0.01, cost, curve)


def test_a_page_that_is_there_gets_what_is_measured(capsys, tmp_path, small):
    page = tmp_path / "page.md"
    words = ["bench", "matrices", "--steps", "50", "--seeds", "2", "--out", str(page)]
    assert cli.main([*words, "--only", "schedule_free_adamw"]) == 0
    assert capsys.readouterr().out == f"wrote {page}\n"
    assert page.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    old = matrices_page.results_on(page.read_text())
    assert list(old.rows) == [BASE, "schedule_free_adamw"]
    assert (old.steps, old.seeds) == (50, 2)
    assert old.milliseconds > 0
    page.write_text(page.read_text() + f"\n{matrices_page.NOTES}\n\nBy hand.\n")
    assert cli.main([*words, "--only", "muon"]) == 0
    written = page.read_text()
    new = matrices_page.results_on(written)
    assert list(new.rows) == [BASE, "schedule_free_adamw", "muon"]
    assert {name: new.rows[name] for name in old.rows} == old.rows
    assert new.rows["muon"].cost > 0
    assert written.endswith(f"\n{matrices_page.NOTES}\n\nBy hand.\n")
    assert f"Made by `fnopt bench matrices --out {page}`" in written
    assert "](page.png)" in written


@pytest.mark.parametrize("name", matrices.OPTIMIZERS)
def test_every_optimizer_makes_a_run(name):
    """Of shapes alone, but for its first params."""
    one, entry = task(steps=2), matrices.OPTIMIZERS[name]
    optimizer = entry.make(entry.middle, 10, matrices.adamw(0.1))
    state = jax.eval_shape(optimizer.init, one.init)
    updates, after = jax.eval_shape(optimizer.update, one.init, state, one.init)
    shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    assert shapes(updates) == shapes(one.init)
    assert shapes(after) == shapes(state)


def test_a_run_is_the_loop():
    """Of the fallback, which has its own rate."""
    one = task()
    program = matrices.Program(FALLBACK, one, 50, 0.01)
    found = program.run(0.02, one)
    optimizer = matrices.adamw(matrices.falling(0.01, 50))
    params, state, losses = one.init, optimizer.init(one.init), []
    step = jax.jit(jax.value_and_grad(one.loss))
    update = jax.jit(optimizer.update)
    for batch in one.batches:
        value, gradients = step(params, batch)
        updates, state = update(gradients, state, params)
        params = fnopt.apply_updates(params, updates)
        losses.append(value)
    np.testing.assert_allclose(found.losses, losses, rtol=1e-4)
    np.testing.assert_allclose(found.final, one.loss(params, one.whole), rtol=1e-4)
    assert found.seconds > 0
    assert len(list(program.parts(0.5, one))) == matrices.PARTS


def test_a_search_ends_when_the_best_has_neighbours():
    tried = []

    def loss_at(rate):
        tried.append(rate)
        return abs(math.log(rate / 0.08))

    found = matrices.search(0.02, loss_at)
    assert tried == [0.01, 0.02, 0.04, 0.08, 0.16]
    assert list(found) == sorted(tried)
    assert matrices.best(found) == 0.08
    assert list(matrices.search(0.3, loss_at)) == [0.0375, 0.075, 0.15, 0.3, 0.6]
    assert len(matrices.search(1.0, lambda rate: -rate)) == matrices.MOST


def test_a_run_without_a_number_is_the_worst():
    losses = {0.5: 3.0, 1.0: 2.0, 2.0: math.nan}
    assert matrices.search(1.0, losses.__getitem__) == pytest.approx(losses, nan_ok=True)
    assert matrices.best({1.0: math.nan, 2.0: 5.0}) == 2.0


def test_the_curve_is_of_means():
    losses = np.arange(100.0)
    found = matrices.curve(losses)
    assert len(found) == matrices.POINTS
    assert found[0] == 1.5  # the first four
    assert found[-1] == losses[-10:].mean()
    assert matrices.curve(losses[:1]) == (0.0,) * matrices.POINTS


def test_steps_that_are_needed_lie_between_points():
    fast = row(2.0)
    rows = {BASE: row(3.0), "muon": fast._replace(cost=1.5), "slow": row(3.5)}
    found = Results(100, 3, 10.0, rows)
    assert found.needed(BASE) == 1.0
    at = 0.5 * (matrices.POINTS - 1) + 1  # of the points, the first at one
    assert found.needed("muon") == pytest.approx(at / matrices.POINTS)
    assert found.time_needed("muon") == pytest.approx(1.5 * at / matrices.POINTS)
    assert found.needed("slow") == math.inf


def test_a_page_is_read_as_it_is_written():
    rates = {0.01: 2.5, 0.02: 2.0, 2e-5: math.nan}
    rows = {BASE: row(3.0), "muon": row(2.5, cost=1.25), "schedule_free_adamw": row(3.5)}
    results = Results(100, 3, 12.5, rows)
    page = matrices_page.page(results, "fnopt bench matrices", "matrices.png")
    assert matrices_page.results_on(page) == results
    assert page.count(f"| {matrices_page.NEVER} |") == 2
    assert matrices_page.notes_on(page) == ""
    assert matrices_page.results_on(page.replace(sys.version.split()[0], "3.1")) is None
    assert matrices_page.results_on("# Another page\n") is None
    lost = Results(100, 3, 12.5, {BASE: row(3.0, rates=rates)})
    read = matrices_page.results_on(matrices_page.page(lost, "fnopt bench matrices", "a.png"))
    assert read.rows[BASE].rates == pytest.approx(rates, nan_ok=True)
    assert read.rows[BASE].rate == 0.02


def test_results_of_other_runs_are_not_kept(monkeypatch):
    """Other steps or seeds, or another rate of the base, which is the fallback's."""
    monkeypatch.setattr(matrices, "Program", lambda *given: None)
    monkeypatch.setattr(
        matrices, "tuned", lambda name, *given: (row(3.0), matrices.Run(None, 0, 1))
    )
    monkeypatch.setattr(real, "characters", lambda seed, **given: None)
    old = Results(10, 2, 1.0, {BASE: row(3.0), "muon": row(2.5)})

    def after(old, *names):
        *_, last = matrices.measure(names, 2, 10, old)
        return list(last.rows)

    assert after(old, BASE) == after(old, "muon") == [BASE, "muon"]
    assert after(old, "schedule_free_adamw") == [BASE, "schedule_free_adamw", "muon"]
    assert after(None, "schedule_free_adamw") == [BASE, "schedule_free_adamw"]
    elsewhere = {**old.rows, BASE: row(3.0, rates={0.5: 1.0})}
    for other in (old._replace(steps=9), old._replace(seeds=1), old._replace(rows=elsewhere)):
        assert after(other, BASE) == [BASE]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["matrices", "--only", "moun"], "unknown optimizer 'moun'; did you mean 'muon'?"),
        (["matrices", "--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["matrices", "--tasks", "a"], "--tasks is an option of fnopt bench precision"),
        (["costs", "--steps", "2"], "--steps is an option of fnopt bench precision and matrices"),
    ],
)
def test_mistakes(capsys, words, message):
    assert cli.main(["bench", *words]) == 2
    assert capsys.readouterr().err.startswith(f"fnopt bench: {message}")


def test_a_python_without_its_sources_is_one_line(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(text, "standard_library", lambda: standard_library(str(tmp_path)))
    assert cli.main(["bench", "matrices", "--steps", "1"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == f"fnopt bench: text: {tmp_path} has not the sources of the standard library"


def test_the_committed_page_has_every_optimizer():
    page = PAGE.read_text()
    found = matrices_page.results_on(page, anywhere=True)
    missing = matrices.OPTIMIZERS.keys() - found.rows.keys()
    assert not missing, f"fnopt bench matrices --only ... adds {missing}"
    assert (found.steps, found.seeds) == (matrices.STEPS, 3)
    for name, row in found.rows.items():
        assert min(row.rates) < row.rate < max(row.rates), name
    assert "Made by `fnopt bench matrices --out docs/benchmarks/matrices.md`" in page
    assert matrices_page.notes_on(page)
    assert (PAGE.parent / "matrices.png").exists()


def test_those_on_matrices_need_fewer_steps_on_the_committed_page():
    found = matrices_page.results_on(PAGE.read_text(), anywhere=True)
    for name in found.rows.keys() - {BASE, "schedule_free_adamw"}:
        assert found.needed(name) < 1, name
        assert found.rows[name].loss < found.rows[BASE].loss, name
