"""The catalogue page is what the package says today."""

from pathlib import Path

import pytest

import fnopt
from fnopt import losses, schedules
from fnopt.bench import catalogue
from fnopt.core import factories
from fnopt.training import choices

PAGE = Path(__file__).parents[2] / "docs" / "catalogue.md"


@pytest.fixture(scope="module")
def steps():
    """Name -> the bytes of a step, as the page says."""
    return catalogue.steps_on(PAGE.read_text())


@pytest.fixture(scope="module")
def entries(steps):
    """The optimizers' entries, which take a trace of each."""
    return catalogue.optimizers(steps)


def test_the_page_is_not_stale(entries, steps, monkeypatch):
    monkeypatch.setattr(catalogue, "optimizers", lambda given: entries)
    fresh, lines = catalogue.page(steps).splitlines(), PAGE.read_text().splitlines()
    different = [line for line in fresh if line not in lines]
    different += [line for line in lines if line not in fresh]
    assert fresh == lines, f"run python -m fnopt.bench.catalogue; it differs in: {different[:3]}"


def test_every_factory_stands_on_it():
    text = PAGE.read_text()
    assert not [name for name in factories(fnopt) if f"`{name}`" not in text]
    names = [*catalogue.functions(schedules), *catalogue.functions(losses)]
    assert {"wsd_schedule", "ctc_loss"} <= set(names)
    assert not [name for name in names if f"`{name}`" not in text]


def unsaid(entry):
    """What an entry leaves empty, says at length, or names although it is not there."""
    found = [name for name, value in entry._asdict().items() if not value]
    found += ["a line of 120"] * (len(entry.line) >= 120)
    return found + ["a file that is not there"] * (not (PAGE.parent / entry.path).exists())


def test_optimizers_say_everything(entries):
    assert sum(len(entry.names) for entry in entries) == len(choices.optimizers())
    found = {entry.names[0]: unsaid(entry) for entry in entries}
    assert not {name: words for name, words in found.items() if words}


def test_states_are_counted():
    expected = {"sgd": "0", "lion": "4", "adam": "8", "adafactor": "0.03", "mars_adamw": "12"}
    assert {name: catalogue.state_bytes(name) for name in expected} == expected


@pytest.mark.parametrize("name", ["adam", "lion", "polyak_sgd"])
def test_the_steps_on_the_page_are_those_counted(name, steps):
    assert float(catalogue.step_bytes(name)) == pytest.approx(float(steps[name]), rel=0.02)


def test_every_step_is_counted(steps):
    missing = set(choices.optimizers()) - set(steps)
    assert not missing, f"run python -m fnopt.bench.catalogue, which counts {missing}"


def test_sentences_and_paragraphs():
    text = """Adam: a mean, e.g. of 2.5 gradients. Then more.

        m ← g

    Good for: this
    and that.
    Caveat: none.
    Memory: two values.

    Source: nobody.
    """
    text = "\n".join(line.strip() for line in text.splitlines())
    assert catalogue.first_sentence(text) == "Adam: a mean, e.g. of 2.5 gradients."
    assert catalogue.first_sentence("No stop\nhere") == "No stop here"
    assert catalogue.paragraph(text, "Good for") == "this and that."
    assert catalogue.paragraph(text, "Memory") == "two values."
    assert catalogue.paragraph(text, "Source") == "nobody."
    assert catalogue.paragraph("nothing", "Source") == ""


def test_cells():
    linked = "[arXiv 1412.6980](https://arxiv.org/abs/1412.6980)"
    assert catalogue.cell("|g|, arXiv 1412.6980.") == rf"\|g\|, {linked}."
    table = catalogue.table(("a", "b"), [("1", "2")])
    assert table == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"
