"""`fnopt memory`: what it prints, and its one-line errors."""

import sys

import jax.numpy as jnp
import pytest

import fnopt
from fnopt import cli
from fnopt.memory import command
from fnopt.memory.plans import plan


def cells(text):
    """The printed table: a line's first word -> its cells."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    return {line[0]: line[1:] for line in lines}


@pytest.fixture(params=["rich", "plain"])
def output(request, monkeypatch, capsys):
    """Runs the command and returns what it printed, with rich and as if it were missing."""
    if request.param == "plain":
        monkeypatch.setitem(sys.modules, "rich", None)

    def run(*words):
        status = cli.main(["memory", *words])
        printed = capsys.readouterr()
        assert (status, printed.err) == (0, "")
        return printed.out

    return run


def test_a_count(output):
    text = output("--params", "7e9", "--dtype", "bfloat16", "--gradients-dtype", "float32")
    assert text.startswith("adamw(learning_rate=0.001, ")
    assert "6,999,998,464 parameters: a transformer of 33 layers, 4,096 wide" in text
    found = cells(text)
    n = "6,999,998,464"
    assert found["params"] == ["bfloat16", n, "2.000", "13.04"]
    assert found["gradients"] == ["float32", n, "4.000", "26.08"]
    assert found["state"] == ["8.000", "52.15"]
    assert found["mu"] == found["nu"] == ["float32", n, "4.000", "26.08"]
    assert found["scalars"] == ["3", "0.000", "0.00"]
    assert found["total"] == ["14.000", "91.27"]
    assert "Activations" in text


def test_hyperparameters(output):
    words = ["--params", "1M", "--optimizer", "adam", "--set", "b1=0", "--set", "nesterov=false"]
    text = output(*words)
    assert "b1=0" in text
    assert "mu" not in cells(text)
    assert cells(text)["nu"][2:] == ["4.000", "3.81"]


def test_real_shapes(output, tmp_path):
    file = tmp_path / "shapes.json"
    file.write_text('{"w": [[256, 128], "bfloat16"], "b": [128]}')
    found = cells(output("--shapes", str(file), "--optimizer", "lion"))
    assert found["mu"] == ["float32", "32,896", "4.000", "128.50"]
    half = cells(output("--shapes", str(file), "--optimizer", "lion", "--dtype", "bfloat16"))
    assert half["params"] == ["bfloat16", "32,896", "2.000", "64.25"]


def test_double_precision(output):
    found = cells(output("--params", "1e6", "--optimizer", "adam", "--dtype", "float64"))
    assert found["mu"][2] == "8.000"


@pytest.mark.parametrize(
    ("name", "dtypes", "most"),
    [("adamw_8bit", ("int8", "uint8"), 2.15), ("adamw_4bit", ("int4", "int4"), 1.15)],
)
def test_state_in_codes(output, name, dtypes, most):
    text = output("--params", "7e9", "--optimizer", name)
    lines = [line.split() for line in text.splitlines()]
    assert float(cells(text)["state"][0]) < most
    for field, dtype in zip(("mu", "nu"), dtypes):
        assert any(line[:2] == [field, dtype] for line in lines)
        assert any(line[:3] == [field, "scales", "float32"] for line in lines)


@pytest.mark.parametrize(
    ("remedy", "field", "size"),
    [("master_weights", "master", 4), ("split_master", "low", 2),
     ("kahan", "compensation", 2)],
)  # fmt: skip
def test_remedies(output, remedy, field, size):
    words = ["--params", "7e9", "--dtype", "bfloat16", "--optimizer", "lion", "--remedy", remedy]
    text = output(*words)
    assert text.startswith(f"{remedy}(optimizer=lion(")
    found = cells(text)
    assert found[f"{remedy}:"][0] == field
    assert found[f"{remedy}:"][3] == f"{size}.000"
    assert found["mu"][2] == "4.000"
    assert found["total"][0] == f"{8 + size}.000"


def test_a_remedy_of_another_version(monkeypatch, capsys):
    monkeypatch.delattr(fnopt, "kahan")
    assert cli.main(["memory", "--params", "1M", "--remedy", "kahan"]) == 2
    assert "this version of fnopt has none of that name" in capsys.readouterr().err


def test_a_mesh(output):
    text = output("--mesh", "data=64,model=8", "--params", "70e9", "--optimizer", "muon")
    assert "512 devices: data=64, model=8; 415 of 692 leaves are split" in text
    found = cells(text)
    n = "70,000,000,000"
    assert found["params"] == ["float32", n, "4.000", "260.77", "32.61"]
    assert found["state"] == ["4.202", "273.91", "34.27"]
    assert found["nu"] == ["float32", "3,526,835,200", "0.202", "13.14", "1.66"]
    assert found["gradients:"] == ["all-reduce", "data", "64.20"]
    assert found["optimizer:"] == ["all-gather", "model", "216.68"]
    assert found["total"] == ["280.88"]  # the last table's
    assert "By rings;" in text


def test_a_mesh_and_a_remedy(output):
    words = ["--params", "1e6", "--dtype", "bfloat16", "--remedy", "kahan", "--optimizer", "lion"]
    text = output(*words, "--mesh", "fsdp=16", "--gradients-dtype", "float32")
    assert cells(text)["kahan:"] == [
        "compensation",
        "bfloat16",
        "1,000,064",
        "2.000",
        "1.91",
        "122.08",
    ]
    assert cells(text)["params:"] == ["all-gather", "fsdp", "3.58"]
    assert "KiB/device" in text


def test_a_state_split_further(output):
    words = ["--params", "7e9", "--dtype", "bfloat16", "--mesh", "data=64,model=8"]
    text = output(*words, "--remedy", "master_weights", "--zero", "data")
    found = cells(text)
    assert found["params"] == ["bfloat16", "6,999,998,464", "2.000", "13.04", "1.63"]
    assert found["mu"][-1] == "0.05"
    assert found["master_weights:"][-1] == "0.05"
    assert found["gradients:"] == ["reduce-scatter", "data", "1.61"]
    assert found["updates:"] == ["all-gather", "data", "3.21"]


def test_a_mesh_of_one_device_sends_nothing(output):
    assert cells(output("--params", "1e6", "--mesh", "data=1"))["total"] == ["0.00"]


def test_units():
    def unit(size):
        return command.lines(plan(fnopt.sgd(1.0), {"w": jnp.ones(size, jnp.int8), "x": 1.0}))[0][-1]

    assert [unit(1), unit(2**20), unit(2**21)] == ["KiB", "MiB", "MiB"]


@pytest.mark.parametrize(
    ("text", "number"),
    [("7e9", 7 * 10**9), ("7B", 7 * 10**9), ("124M", 124 * 10**6), ("1_000_000", 10**6),
     ("200k", 200_000), ("1.5T", 15 * 10**11), ("1e15", 10**15)],
)  # fmt: skip
def test_counts(text, number):
    assert command._count(text) == number


@pytest.mark.parametrize("text", ["", "x", "nan", "inf", "-7e9", "199999", "1e16", "200000.5", "B"])
def test_bad_counts(text, capsys):
    assert cli.main(["memory", f"--params={text}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "expected a whole number from 200,000 to 1e15, as 7e9 or 124M" in line
    assert repr(text) in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--params", "1M", "--optimizer", "adm"], "unknown optimizer 'adm'; did you mean 'adam'?"),
        (["--params", "1M", "--set", "b1=2"], "adamw: b1 must be in [0, 1), got 2"),
        (["--params", "1M", "--set", "c=2"], "adamw has no hyperparameter 'c'"),
        (["--params", "1M", "--optimizer", "dpsgd"], "dpsgd needs --set l2_norm_clip=..."),
        (["--params", "1M", "--dtype", "float3"], "argument --dtype: invalid choice: 'float3'"),
        (["--params", "1M", "--remedy", "x"], "argument --remedy: invalid choice: 'x'"),
        (["--params", "1M", "--remedy", "kahan"], "--remedy kahan keeps nothing for such params"),
        (["--params", "1M", "--shapes", "x"], "argument --shapes: not allowed with"),
        (["--params", "1M", "--mesh", "pipe=2"], "argument --mesh: expected AXIS=N with commas"),
        (
            ["--params", "1M", "--zero", "data"],
            "--zero data: no axis of the mesh; there is no --mesh",
        ),
        (
            ["--params", "1M", "--mesh", "data=2,model=2", "--zero", "fsdp"],
            "--zero fsdp: no axis of the mesh; --mesh has data, model",
        ),
        (["--params", "1M", "--mesh", "data=0"], "argument --mesh: data needs a size from 1 on"),
        ([], "one of the arguments --params --shapes is required"),
        (["--shapes", "none.json"], "none.json: there is no such file or folder"),
    ],
)
def test_mistakes_are_one_line(words, message, capsys, workdir):
    assert cli.main(["memory", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_help_says_what_is_not_in_it(capsys):
    assert cli.main(["memory", "--help"]) == 0
    assert "Activations, updates and other temporaries are not in it." in capsys.readouterr().out
