"""Params as shapes alone: a transformer of a number of parameters, or those of a real model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import leaves, tree
from fnopt.bench import trees
from fnopt.training.errors import CommandError
from fnopt.training.options import require
from fnopt.training.runs import read_summary

LEAST = 200_000
"""The smallest transformer has one layer of width 128."""

SAFETENSORS = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "F6_E2M3": "float6_e2m3fn", "F6_E3M2": "float6_e3m2fn", "F4": "float4_e2m1fn",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
    "BOOL": "bool", "C64": "complex64",
}  # fmt: skip
"""The dtypes of .safetensors files, as JAX calls them."""


class Shapes(NamedTuple):
    """Abstract params, and words that say whose they are."""

    params: Any
    words: str


def transformer(parameters: int, dtype: Any = jnp.float32) -> Shapes:
    """A transformer of so many parameters, to within half its width.

    Its width is a multiple of 128, about 128 times the number of its layers; a layer has 12·width²
    parameters in six matrices, biases and norms. What the layers leave, 5% or more, is the
    embedding.

    Args:
      parameters: at least `LEAST`.
      dtype: of all of them.
    """
    width = 128 * max(1, int((parameters * 128 / 12) ** (1 / 3) / 128))
    of_layer = trees.size(trees.transformer(1, width))
    layers = max(1, int(0.95 * parameters / of_layer))
    rows = round((parameters - layers * of_layer - width) / width)
    params = {
        "embedding": jax.ShapeDtypeStruct((rows, width), dtype),
        "norm": jax.ShapeDtypeStruct((width,), dtype),
        **trees.transformer(layers, width, dtype),
    }
    few = "layer" if layers == 1 else "layers"
    words = f"a transformer of {layers:,} {few}, {width:,} wide, its embedding of {rows:,} rows"
    return Shapes(params, words)


def read(path: Path, dtype: Any = None) -> Shapes:
    """The shapes that a file or folder tells.

    Args:
      path: a .safetensors file, of which the header alone is read, or a folder of them; a JSON
        file of {name: shape} or {name: [shape, dtype]}; a folder of `fnopt train`; an orbax
        checkpoint.
      dtype: of the real float arrays; the file's own where None, float32 where it has none.

    Raises:
      CommandError: it is none of these, or is damaged.
    """
    if not path.exists():
        raise CommandError(f"{path}: there is no such file or folder")
    try:
        found = _of_folder(path) if path.is_dir() else _of_file(path)
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror or error}") from None
    params = {
        name: leaves.cast(x, dtype)
        if dtype is not None and jnp.issubdtype(x.dtype, jnp.floating)
        else x
        for name, x in found.items()
    }
    if not any(leaves.is_inexact(x) for x in params.values()):
        raise CommandError(f"{path}: it has no float array, so nothing to train")
    few = "array" if len(params) == 1 else "arrays"
    return Shapes(params, f"{len(params):,} {few} of {path}")


def _of_folder(path: Path) -> dict[str, Any]:
    if (path / "summary.json").is_file():
        return _of_run(path)
    checkpoints = [p for p in (path, *sorted(path.iterdir())) if (p / "_METADATA").is_file()]
    if checkpoints:
        return _of_orbax(checkpoints[0])
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise CommandError(
            f"{path} is no folder of `fnopt train`, no orbax checkpoint, and has no .safetensors "
            "files"
        )
    return {name: x for file in files for name, x in _of_safetensors(file).items()}


def _of_run(folder: Path) -> dict[str, Any]:
    """The params of a run, as its summary has them."""
    summary = read_summary(folder)
    if names := summary["settings"].get("compare"):
        raise CommandError(
            f"{folder} is a comparison; give one of its runs, as {folder / names[0]}"
        )
    found = {}
    for row in summary.get("state", {}).get("rows", []):
        if described := re.fullmatch(r"(\w+)\[([\d,]*)\]", row["shape"]):
            shape = [int(n) for n in described[2].split(",") if n]
            found[row["path"]] = _leaf(folder, row["path"], shape, described[1])
    return found


def _of_orbax(folder: Path) -> dict[str, Any]:
    """The arrays below `params` of a checkpoint, by its metadata; all if nothing has that name."""
    require({"orbax.checkpoint": "orbax-checkpoint"})
    from absl import logging

    logging.set_verbosity(logging.FATAL)  # orbax tells its every step
    import orbax.checkpoint as ocp

    try:
        with ocp.StandardCheckpointer() as checkpointer:
            metadata: Any = checkpointer.metadata(folder.resolve())
        pairs = jax.tree_util.tree_flatten_with_path(metadata.item_metadata.tree)[0]
    except Exception as error:
        raise CommandError(f"{folder} is damaged ({type(error).__name__})") from None
    found = {
        tree.path_name(path): jax.ShapeDtypeStruct(x.shape, jnp.dtype(x.dtype))
        for path, x in pairs
        if getattr(x, "shape", None) is not None
    }
    return {name: x for name, x in found.items() if name.startswith("params/")} or found


def _of_file(file: Path) -> dict[str, Any]:
    if file.suffix == ".safetensors":
        return _of_safetensors(file)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        raise CommandError(f"{file}: neither JSON nor a .safetensors file") from None
    if isinstance(found, Mapping) and "weight_map" in found:
        raise CommandError(f"{file}: an index without shapes; give the folder that it is in")
    return _of_json(file, found)


def _of_safetensors(file: Path) -> dict[str, Any]:
    """By the header: its length in eight bytes, little end first, then JSON."""
    with file.open("rb") as raw:
        size = int.from_bytes(raw.read(8), "little")
        header = raw.read(size) if 2 <= size <= file.stat().st_size - 8 else b""
    try:
        found = json.loads(header)
    except ValueError:
        raise CommandError(f"{file}: not a readable .safetensors file (no header)") from None
    return _of_json(file, found)


def _of_json(file: Path, found: Any) -> dict[str, Any]:
    if not isinstance(found, Mapping) or not found:
        raise CommandError(f"{file}: expected an object of {{name: shape}}")
    return dict(_entries(file, found, ""))


def _entries(file: Path, found: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, entry in found.items():
        name = prefix + key
        if name == "__metadata__":
            continue
        if isinstance(entry, Mapping) and "shape" not in entry:
            yield from _entries(file, entry, f"{name}/")
        elif isinstance(entry, Mapping):
            yield name, _leaf(file, name, entry["shape"], entry.get("dtype", "float32"))
        elif isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], list):
            yield name, _leaf(file, name, *entry)
        else:
            yield name, _leaf(file, name, entry, "float32")


def _leaf(file: Path, name: str, shape: Any, dtype: Any) -> Any:
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise CommandError(
            f"{file}: {name} must have a shape, as [3, 4], or one and a dtype, as "
            f'[[3, 4], "bfloat16"]; it has {json.dumps(shape)}'
        )
    try:
        known = jnp.dtype(SAFETENSORS.get(dtype, dtype))
        good = known == jnp.bool_ or jnp.issubdtype(known, jnp.number)
    except TypeError:
        good = False
    if not good or not isinstance(dtype, str):
        raise CommandError(f"{file}: {name} has an unknown dtype {json.dumps(dtype)}")
    return jax.ShapeDtypeStruct(tuple(shape), known)
