"""`fnopt report`: one file, with everything in it and nothing from outside."""

import json
from html.parser import HTMLParser

import pytest

from fnopt.cli import main
from fnopt.report.command import read_runs
from fnopt.report.page import LAYERS
from fnopt.training.runs import append_row, write_summary
from fnopt.training.settings import Settings
from fnopt.training.step import LAYER_METRICS

STATE = {
    "rows": [
        {"path": "[0]['w']", "shape": "float32[3,2]", "rule": "adam<x>", "state": "mu", "bytes": 48,
         "sharding": "-"},
    ],
    "param_bytes": 24,
    "state_bytes": 60,
}  # fmt: skip


def write(folder, layers=False, epochs=3, **more):
    folder.mkdir(parents=True, exist_ok=True)
    write_summary(folder, {"settings": Settings().as_json(), "status": "finished",
                           "optimizer": "adam(learning_rate=0.001)", "state": STATE,
                           "data": {"name": "digits", "features": 64, "classes": ["0", "1"]},
                           "test_accuracy": 0.9, "versions": {"jax": "9"}} | more)  # fmt: skip
    for epoch in range(1, epochs + 1):
        row = {"epoch": epoch, "step": 4 * epoch, "train_loss": 1 / epoch, "test_loss": 2 / epoch,
               "train_accuracy": 0.8, "test_accuracy": 0.7, "grad_norm": 1.0, "update_norm": 0.1,
               "learning_rate": 1e-3}  # fmt: skip
        if layers:
            row |= {f"{metric}/0/w": 0.5 / epoch for metric in LAYER_METRICS}
        append_row(folder, row)


class Reader(HTMLParser):
    """Collects tags and text; a tag that is not closed in its turn is an error."""

    def __init__(self):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "line"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read(file):
    reader = Reader()
    reader.feed(file.read_text(encoding="utf-8"))
    assert reader.open == []
    return reader


def test_a_run(tmp_path, capsys):
    write(tmp_path / "run", layers=True)
    assert main(["report", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out == f"wrote {tmp_path / 'run' / 'report.html'}\n"
    page = read(tmp_path / "run" / "report.html")
    for words in ("adam on digits", "90.00%", "Loss", "Accuracy", "adam<x>", "[0]['w']",
                  "state 60 bytes: 2.50 of the parameters", "jax version", "batch_size",
                  *LAYERS.values()):  # fmt: skip
        assert words in page.text
    assert sum(tag == "svg" for tag, _ in page.tags) == 8
    assert set(LAYERS) == set(LAYER_METRICS)


def test_nothing_from_outside(tmp_path):
    write(tmp_path, layers=True)
    main(["report", str(tmp_path), "--out", str(tmp_path / "a.html")])
    page = read(tmp_path / "a.html")
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in page.tags}
    assert not {"src", "href"} & {name for _, given in page.tags for name in given}
    assert "url(" not in (tmp_path / "a.html").read_text()


def test_a_comparison_and_a_stopped_run(tmp_path):
    compared = Settings(compare=("adam", "sgd", "lion")).as_json()
    write(tmp_path, epochs=0, settings=compared)
    write(tmp_path / "adam")
    write(tmp_path / "sgd", stopped="the loss became nan & so on", epochs=1)
    assert [run.name for run in read_runs(tmp_path)] == ["adam", "sgd"]
    assert main(["report", str(tmp_path)]) == 0
    page = read(tmp_path / "report.html")
    assert "sgd stopped: the loss became nan & so on" in page.text
    assert "Rules and state of sgd" in page.text


def test_a_run_without_a_recorded_state(tmp_path):
    write(tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    del summary["state"]
    write_summary(tmp_path, summary)
    assert main(["report", str(tmp_path)]) == 0
    assert "did not record its state" in read(tmp_path / "report.html").text


@pytest.mark.parametrize("epochs", [None, 0])
def test_what_cannot_be_reported(tmp_path, epochs, capsys):
    if epochs is not None:
        write(tmp_path, epochs=epochs)
    assert main(["report", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no epoch to report yet" in line or "is not a run folder" in line


def test_settings_are_escaped(tmp_path):
    write(tmp_path, settings=Settings(set=("learning_rate=<i>",)).as_json())
    assert main(["report", str(tmp_path)]) == 0
    assert "<i>" not in (tmp_path / "report.html").read_text()
    assert "learning_rate=<i>" in read(tmp_path / "report.html").text
