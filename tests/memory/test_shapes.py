"""Shapes of models: made for a count, or read from files."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnopt import cli
from fnopt.bench import trees
from fnopt.memory import shapes
from fnopt.training.errors import CommandError


def described(found):
    return {name: f"{x.dtype}{list(x.shape)}" for name, x in found.params.items()}


# A transformer


@pytest.mark.parametrize(
    "parameters", [200_000, 300_000, 1_000_000, 1_572_863, 124_000_000, 7 * 10**9, 4 * 10**11]
)
def test_a_transformer_of_a_count(parameters):
    found = shapes.transformer(parameters)
    leaves = jax.tree.leaves(found.params)
    rows, width = found.params["embedding"].shape
    assert abs(trees.size(found.params) - parameters) <= width / 2
    assert width % 128 == 0
    assert rows > 0
    assert all(n % 128 == 0 for x in leaves if x.shape[0] != rows for n in x.shape)
    assert rows * width < 0.5 * parameters
    layers = sum(name.startswith("layer_") for name in found.params)
    assert found.words.startswith(f"a transformer of {layers} layer")


def test_a_transformer_of_seven_billion():
    found = shapes.transformer(7 * 10**9, jnp.bfloat16)
    assert found.words == "a transformer of 33 layers, 4,096 wide, its embedding of 86,736 rows"
    assert found.params["layer_32"]["up"] == jax.ShapeDtypeStruct((4096, 16384), jnp.bfloat16)


# Files


def safetensors(file, header, data=b""):
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return file


HEADER = {
    "__metadata__": {"format": "pt"},
    "a.weight": {"dtype": "BF16", "shape": [3, 4], "data_offsets": [0, 24]},
    "a.ids": {"dtype": "I64", "shape": [2], "data_offsets": [24, 40]},
    "a.scale": {"dtype": "F32", "shape": [], "data_offsets": [40, 44]},
}
FOUND = {"a.weight": "bfloat16[3, 4]", "a.ids": "int64[2]", "a.scale": "float32[]"}


def test_a_safetensors_file(tmp_path):
    file = safetensors(tmp_path / "a.safetensors", HEADER, bytes(44))
    found = shapes.read(file)
    assert described(found) == FOUND
    assert found.words == f"3 arrays of {file}"


def test_the_header_is_enough(tmp_path):
    assert described(shapes.read(safetensors(tmp_path / "a.safetensors", HEADER))) == FOUND


def test_dtypes_of_safetensors_are_known_to_jax(tmp_path):
    for name, dtype in shapes.SAFETENSORS.items():
        header = {"x": {"dtype": name, "shape": [4]}, "y": {"dtype": "F32", "shape": [1]}}
        found = shapes.read(safetensors(tmp_path / "a.safetensors", header))
        assert found.params["x"].dtype == jnp.dtype(dtype)


def test_a_folder_of_safetensors(tmp_path):
    safetensors(tmp_path / "model-1-of-2.safetensors", HEADER)
    second = {"b": {"dtype": "F16", "shape": [5]}}
    safetensors(tmp_path / "model-2-of-2.safetensors", second)
    assert described(shapes.read(tmp_path)) == FOUND | {"b": "float16[5]"}


def test_json(tmp_path):
    file = tmp_path / "shapes.json"
    text = '{"w": [3, 4], "b": [[4], "bfloat16"], "s": [], "layer": {"h": [[], "BF16"], "k": [2]}}'
    file.write_text(text)
    wanted = {
        "w": "float32[3, 4]", "b": "bfloat16[4]", "s": "float32[]", "layer/h": "bfloat16[]",
        "layer/k": "float32[2]",
    }  # fmt: skip
    assert described(shapes.read(file)) == wanted


def test_a_dtype_that_is_asked_for_is_of_the_real_floats(tmp_path):
    file = tmp_path / "shapes.json"
    file.write_text('{"w": [[3], "float32"], "i": [[3], "int32"], "c": [[3], "complex64"]}')
    found = described(shapes.read(file, jnp.bfloat16))
    assert found == {"w": "bfloat16[3]", "i": "int32[3]", "c": "complex64[3]"}


# Runs and checkpoints


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = ["--epochs", "1", "--hidden", "16", "--dtype", "bfloat16", "--out", str(folder)]
    assert cli.main(["train", *words]) == 0
    return folder


def test_a_run(run):
    assert described(shapes.read(run)) == {
        "[0]['b']": "bfloat16[16]",
        "[0]['w']": "bfloat16[64, 16]",
        "[1]['b']": "bfloat16[10]",
        "[1]['w']": "bfloat16[16, 10]",
    }


@pytest.mark.parametrize("place", ["checkpoints/1", "checkpoints/1/state"])
def test_a_runs_checkpoint_has_params_and_more(run, place):
    found = described(shapes.read(run / place))
    assert found["params/0/w"] == "bfloat16[64, 16]"
    assert len(found) == 4


def test_a_checkpoint_of_params_alone(tmp_path):
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        params = {"a": [np.ones((3, 2), np.float32)], "b": jnp.ones(4, jnp.bfloat16)}
        checkpointer.save((tmp_path / "it").resolve(), params)
    assert described(shapes.read(tmp_path / "it")) == {"a/0": "float32[3, 2]", "b": "bfloat16[4]"}


def test_a_comparison(tmp_path):
    settings = {"compare": ["adam", "sgd"]}
    (tmp_path / "summary.json").write_text(json.dumps({"settings": settings}))
    with pytest.raises(CommandError, match=re.escape(f"give one of its runs, as {tmp_path}/adam")):
        shapes.read(tmp_path)


# Mistakes


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "", "neither JSON nor a .safetensors file"),
        ("a.bin", b"\xff\xfe\x00", "neither JSON nor a .safetensors file"),
        ("a.json", "[1, 2]", "expected an object of {name: shape}"),
        ("a.json", "{}", "expected an object of {name: shape}"),
        ("a.json", '{"w": "3x4"}', 'w must have a shape, as [3, 4], or one and a dtype'),
        ("a.json", '{"w": [3, -4]}', "it has [3, -4]"),
        ("a.json", '{"w": [3, 4.5]}', "it has [3, 4.5]"),
        ("a.json", '{"w": [true]}', "it has [true]"),
        ("a.json", '{"w": null}', "it has null"),
        ("a.json", '{"w": [[3], "float33"]}', 'w has an unknown dtype "float33"'),
        ("a.json", '{"w": [[3], "object"]}', 'w has an unknown dtype "object"'),
        ("a.json", '{"w": [[3], 4]}', "w has an unknown dtype 4"),
        ("a.json", '{"w": [[3], "int8"]}', "it has no float array, so nothing to train"),
        ("a.json", '{"weight_map": {"w": "a.safetensors"}}', "give the folder that it is in"),
        ("a.safetensors", b"", "not a readable .safetensors file"),
        ("a.safetensors", b"\x04\x00\x00\x00\x00\x00\x00\x00{", "not a readable .safetensors"),
        ("a.safetensors", b"\xff" * 20, "not a readable .safetensors file"),
        ("a.safetensors", b"\x02" + bytes(7) + b"[]", "expected an object"),
    ],
)  # fmt: skip
def test_mistakes_in_files(tmp_path, name, content, message):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CommandError, match=re.escape(message)) as error:
        shapes.read(file)
    assert str(file) in str(error.value)


def test_no_file_and_no_model(tmp_path):
    with pytest.raises(CommandError, match="there is no such file or folder"):
        shapes.read(tmp_path / "none.json")
    with pytest.raises(CommandError, match=r"is no folder of `fnopt train`, no orbax checkpoint"):
        shapes.read(tmp_path)


def test_a_damaged_checkpoint(tmp_path):
    (tmp_path / "_METADATA").write_text("{")
    with pytest.raises(CommandError, match="is damaged"):
        shapes.read(tmp_path)
