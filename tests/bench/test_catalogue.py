"""The catalogue page is what the package says today."""

from pathlib import Path

import pytest

import fnopt
from fnopt import losses, schedules
from fnopt.bench import catalogue
from fnopt.core import factories
from fnopt.training import choices

PAGE = Path(__file__).parents[2] / "docs" / "catalogue.md"
STEPS = catalogue.steps_on(PAGE.read_text())


def test_the_page_is_not_stale():
    text = PAGE.read_text()
    fresh, lines = catalogue.page(catalogue.steps_on(text)).splitlines(), text.splitlines()
    different = [line for line in fresh if line not in lines]
    different += [line for line in lines if line not in fresh]
    assert fresh == lines, f"run python -m fnopt.bench.catalogue; it differs in: {different[:3]}"


def test_every_factory_stands_on_it():
    text = PAGE.read_text()
    assert not [name for name in factories(fnopt) if f"`{name}`" not in text]
    names = [*catalogue.functions(schedules), *catalogue.functions(losses)]
    assert {"wsd_schedule", "ctc_loss"} <= set(names)
    assert not [name for name in names if f"`{name}`" not in text]


@pytest.mark.parametrize("entry", catalogue.optimizers(STEPS), ids=lambda entry: entry.names[0])
def test_optimizers_say_everything(entry):
    assert all(entry), [name for name, value in entry._asdict().items() if not value]
    assert len(entry.line) < 120
    assert (PAGE.parent / entry.path).exists()


def test_states_are_counted():
    expected = {"sgd": "0", "lion": "4", "adam": "8", "adafactor": "0.03", "mars_adamw": "12"}
    assert {name: catalogue.state_bytes(name) for name in expected} == expected


@pytest.mark.parametrize("name", ["adam", "lion", "polyak_sgd"])
def test_the_steps_on_the_page_are_those_counted(name):
    assert float(catalogue.step_bytes(name)) == pytest.approx(float(STEPS[name]), rel=0.02)


def test_every_step_is_counted():
    missing = set(choices.optimizers()) - set(STEPS)
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
