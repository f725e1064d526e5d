"""Meshes without devices, and the rule that splits params over them."""

import math
import re

import jax
import jax.numpy as jnp
import pytest

from fnopt.memory import meshes, shapes


def of(text):
    return meshes.abstract_mesh(meshes.sizes(text))


def test_sizes():
    assert meshes.sizes("data=64,model=8") == {"data": 64, "model": 8}
    assert list(meshes.sizes("model=1,fsdp=2,data=3")) == ["model", "fsdp", "data"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "of data (params whole), fsdp and model (params split); got ''"),
        ("data=2,pipe=2", "fsdp and model (params split); got 'pipe=2'"),
        ("data=2,", "got ''"),
        ("data", "data needs a size from 1 on, as data=8; got 'data'"),
        ("data=2,fsdp=x", "fsdp needs a size from 1 on, as fsdp=8; got 'fsdp=x'"),
        *((f"data={size}", "data needs a size") for size in ("", "0", "-2", "1.5", "3000000000")),
        ("data=2,data=3", "data is given twice"),
    ],
)
def test_bad_sizes(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        meshes.sizes(text)


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((4096, 16384), [None, "model"]),
        ((16384, 4096), ["model"]),
        ((4096, 4096), [None, "model"]),
        ((33, 4096, 16384), [None, None, "model"]),
        ((1001, 64), [None, "model"]),
        ((1001, 63), []),
        ((0, 63), []),
        ((4096,), []),
        ((), []),
    ],
)
def test_tensor_parallelism(shape, spec):
    assert meshes.spec(shape, {"data": 64, "model": 8}) == spec


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((4096, 16384), ["fsdp", "model"]),
        ((16384, 4096), ["model", "fsdp"]),
        ((33, 4096, 16384), [None, "fsdp", "model"]),
        ((4096,), ["fsdp"]),
        ((1001, 64), [None, "model"]),
        ((3,), []),
        ((), []),
    ],
)
def test_params_split_as_data_is(shape, spec):
    assert meshes.spec(shape, {"fsdp": 16, "model": 8}) == spec


def test_a_size_of_one_splits_nothing():
    assert meshes.spec((8, 8), {"fsdp": 1, "model": 1}) == []


def test_what_one_device_holds():
    params = meshes.split(shapes.transformer(7 * 10**9).params, of("data=64,model=8"))
    found = {name: x.shape for name, x in jax.tree.map(meshes.local, params["layer_0"]).items()}
    assert found["up"] == (4096, 2048)
    assert found["down"] == (2048, 4096)
    assert found["query"] == (4096, 512)
    assert found["norm_1"] == (4096,)
    assert meshes.local(params["embedding"]).shape == (10842, 4096)


def test_what_is_no_array_stays():
    params = meshes.split({"w": jnp.ones((4, 8)), "act": "gelu", "no": None}, of("model=4"))
    assert params["act"] == "gelu"
    assert params["no"] is None
    assert meshes.local(params["w"]).shape == (4, 2)


def test_words():
    def said(text):
        return meshes.words(meshes.split(shapes.transformer(10**6).params, of(text)))

    assert said("data=64,model=8") == "512 devices: data=64, model=8; 25 of 42 leaves are split"
    assert said("data=1") == "1 device: data=1; 0 of 42 leaves are split"


@pytest.mark.parametrize("text", ["data=8,model=8", "fsdp=8,model=8", "fsdp=16,data=2"])
def test_the_devices_hold_the_whole(text):
    mesh = of(text)
    for x in jax.tree.leaves(meshes.split(shapes.transformer(10**6).params, mesh)):
        split = math.prod(mesh.shape[name] for axis in meshes.names(x) for name in axis)
        assert meshes.local(x).size * split == x.size
