"""The command of a few steps, its page and picture, and what is called within."""

import functools
from pathlib import Path

import pytest

from fnopt import cli
from fnopt.bench import precision, precision_page, real, text
from fnopt.bench.precision import Row, Section
from fnopt.bench.text import standard_library

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks" / "precision.md"
BASE = Row(2.0, 0.01, 1.0, 0.0, 1.5, 1.0, 4.0, 8.0)


def section(**losses):
    rows = {name: BASE._replace(loss=loss, ratio=loss / 2) for name, loss in losses.items()}
    return Section(10, 3, {0.001: 2.5, 0.01: 2.0}, {"f32": BASE, **rows})


@pytest.fixture
def read_once(monkeypatch):
    """The digits are the same for each run."""
    monkeypatch.setattr(real, "load_digits", functools.cache(real.load_digits))


def test_the_command_tries_every_setting(capsys, read_once):
    assert cli.main(["bench", "precision", "--tasks", "digits_mlp", "--steps", "3"]) == 0
    out = capsys.readouterr().out
    found = precision_page.sections_on(out)["digits_mlp"]
    assert list(found.rows) == list(precision.SETTINGS)
    assert (found.steps, found.seeds) == (3, 3)
    assert list(found.rates) == list(precision.RATES)
    assert min(found.rates.values()) == found.rows["f32"].loss
    assert "Made by `fnopt bench precision`:" in out
    for name, row in found.rows.items():
        assert row.ratio == pytest.approx(1, abs=0.01), name  # three steps lose little
        assert row.params == (2 if name.startswith("bf16") else 4)
    state = {name: row.state for name, row in found.rows.items()}
    assert state["f32"] == state["bf16"] == state["bf16 stochastic"] == 8
    assert state["bf16 kahan"] == state["bf16 split_master"] == 10
    assert state["bf16 master_weights"] == 12
    assert state["f32 adamw_4bit"] < state["f32 adamw_8bit"] < state["f32 adamw_bf16_state"] < 8
    assert state["bf16 master_weights 8bit"] == pytest.approx(state["f32 adamw_8bit"] + 4, abs=0.01)


def test_a_page_that_is_there_gets_what_is_measured(capsys, tmp_path, read_once):
    page = tmp_path / "page.md"
    words = ["bench", "precision", "--steps", "2", "--seeds", "1", "--out", str(page)]
    assert cli.main([*words, "--tasks", "digits_mlp", "--only", "f32"]) == 0
    assert capsys.readouterr().out == f"wrote {page}\n"
    assert page.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    old = precision_page.sections_on(page.read_text())
    assert cli.main([*words, "--tasks", "digits_mlp", "--only", "bf16"]) == 0
    assert cli.main([*words, "--tasks", "digits_convolutional", "--only", "f32"]) == 0
    new = precision_page.sections_on(page.read_text())
    assert {name: list(s.rows) for name, s in new.items()} == {
        "digits_mlp": ["f32", "bf16"],
        "digits_convolutional": ["f32"],
    }
    assert new["digits_mlp"].rows["f32"] == old["digits_mlp"].rows["f32"]
    written = page.read_text()
    assert f"Made by `fnopt bench precision --out {page}`" in written
    assert "](page.png)" in written


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["precision", "--only", "bf61"], "unknown setting 'bf61'; did you mean 'bf16'?"),
        (["precision", "--tasks", "character"], "unknown task 'character'; did you mean 'charact"),
        (["precision", "--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["precision", "--rounds", "2"], "--rounds is an option of fnopt bench costs"),
        (["costs", "--tasks", "digits_mlp"], "--tasks is an option of fnopt bench precision"),
        (["precision", "--out", "/nowhere/a.md"], "--out /nowhere/a.md: there is no folder /no"),
    ],
)
def test_mistakes(capsys, words, message):
    assert cli.main(["bench", *words]) == 2
    assert capsys.readouterr().err.startswith(f"fnopt bench: {message}")


def test_a_python_without_its_sources_is_one_line(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(text, "standard_library", lambda: standard_library(str(tmp_path)))
    assert cli.main(["bench", "precision", "--tasks", "characters", "--steps", "1"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == f"fnopt bench: text: {tmp_path} has not the sources of the standard library"


def test_the_committed_page_has_every_task_and_setting():
    page = PAGE.read_text()
    found = precision_page.sections_on(page)
    assert list(found) == list(precision.TASKS)
    for task, results in found.items():
        assert list(results.rows) == list(precision.SETTINGS), task
        assert results.seeds >= 3
    assert "Made by `fnopt bench precision --out docs/benchmarks/precision.md`" in page
    assert (PAGE.parent / "precision.png").exists()


@pytest.mark.parametrize("task", precision.TASKS)
def test_8_bit_state_and_master_weights_are_within_on_the_committed_page(task):
    found = precision_page.sections_on(PAGE.read_text())[task]
    promised = ("f32 adamw_8bit", "bf16 master_weights", "bf16 split_master")
    assert not set(promised) & set(precision.outside(found))


def test_a_page_is_read_as_it_is_written():
    sections = {"digits_mlp": section(bf16=2.5), "characters": section()}
    page = precision_page.page(sections, "fnopt bench precision", "precision.png")
    assert precision_page.sections_on(page) == sections
    assert "Not within: bf16 (1.250)." in page


def test_within_is_one_deviation_or_one_percent_above_the_base():
    rows = {"bf16": 2.019, "bf16 kahan": 2.021, "bf16 stochastic": 1.5, "f32 adamw_4bit": 2.2}
    found = section(**rows)
    assert found.rate == 0.01
    assert found.allowed == pytest.approx(2.02)
    assert precision.outside(found) == ["bf16 kahan", "f32 adamw_4bit"]
    wide = found._replace(rows={**found.rows, "f32": BASE._replace(deviation=0.1)})
    assert wide.allowed == pytest.approx(2.1)
    lost = section(bf16=float("nan"))
    assert precision.outside(lost) == ["bf16"]


def test_rows_of_other_runs_are_not_kept():
    old, new = section(bf16=2.1), section(**{"bf16 kahan": 2.0})
    assert list(precision.joined(old, new).rows) == ["f32", "bf16", "bf16 kahan"]
    assert precision.joined(None, new) == new
    for other in (old._replace(steps=9), old._replace(seeds=2), old._replace(rates={0.1: 1.0})):
        assert precision.joined(other, new) == new
