"""Imports run downhill only: a file's shelf may import from lower shelves, never from higher."""

import ast
from pathlib import Path

import fnopt

PACKAGE = Path(fnopt.__file__).parent

LEVELS = {
    "recipe": 0, "rule": 0, "tree": 0, "reductions": 0, "fusion": 0, "leaves": 0, "placement": 0,
    "splits": 0, "masks": 0, "mesh_axes": 0, "meetings": 0,
    "linalg": 0, "matrices": 0, "hidden_matrices": 0,
    "codecs": 0, "blocks": 0, "curves": 0, "rounding": 0, "projections": 0,
    "losses": 0, "mlp": 0,
    "hyperparameters": 1, "injection": 1, "storage": 1, "core": 1, "apply": 1,
    "schedules": 2, "transforms": 2, "state": 2, "summaries": 2, "surgery": 2, "sharding": 2,
    "wrappers": 3,
    "optimizers": 4, "solvers": 4, "testing": 4,
    "training": 5, "landscape": 5, "tuning": 5, "report": 5,
    "bench": 6, "memory": 6, "cli": 6, "__main__": 6, "__init__": 6,
}  # fmt: skip

FILES = sorted(PACKAGE.rglob("*.py"))


def shelf_of(path):
    """The shelf, or the terminal's for a shelf's command.py, which is a part of `cli`."""
    if path.stem == "command":
        return "cli"
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_shelves(path):
    """The shelves that a file imports at its top level, and whether inside a function too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "fnopt":
            parts = node.module.split(".")
            names = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
            yield from names
        elif isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                if parts[0] == "fnopt":
                    yield parts[1] if len(parts) > 1 else "__init__"


def uphill(path):
    """What a file imports from above its own shelf, in words."""
    own = shelf_of(path)
    if own not in LEVELS:
        yield f"{own} has no level: add it to LEVELS, and say in docs/design.md why"
        return
    for other in imported_shelves(path):
        level = LEVELS.get(other, LEVELS["__init__"])  # a public name lives in __init__
        if level > LEVELS[own]:
            yield f"{path.name} ({own}) imports {other}, which is higher"
        if own == "testing" and other == "optimizers":
            yield f"{path.name}: the conformance kit is independent of our optimizers"


def test_imports_run_downhill():
    assert not [words for path in FILES for words in uphill(path)]


def test_an_uphill_import_is_seen(tmp_path):
    file = tmp_path / "tree.py"
    file.write_text("from fnopt.optimizers.adam import adam\nfrom fnopt import core\nimport fnopt")
    assert list(imported_shelves(file)) == ["optimizers", "core", "__init__"]


def test_what_is_higher_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    file = tmp_path / "schedules.py"
    file.write_text("from fnopt.wrappers.sam import sam\nfrom fnopt import core")
    assert list(uphill(file)) == ["schedules.py (schedules) imports wrappers, which is higher"]
    file = tmp_path / "unknown.py"
    file.touch()
    assert "unknown has no level" in next(uphill(file))


def test_the_core_imports_nothing_but_jax():
    """At the top level of any file but the terminal's and the trainers' only jax and numpy."""
    allowed = {"jax", "numpy", "fnopt"}
    import sys

    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name.split(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [(node.module or "").split(".")[0]]
            for name in names:
                assert name in allowed or name in sys.stdlib_module_names, f"{path}: {name}"


def test_no_private_modules():
    assert not [p for p in FILES if p.stem.startswith("_") and not p.stem.startswith("__")]


def test_files_are_short():
    long = {
        str(p.relative_to(PACKAGE)): n
        for p in FILES
        if (n := len(p.read_text().splitlines())) > 400
    }
    assert not long


def test_optimizers_have_twins():
    tests = Path(__file__).parents[1] / "optimizers"
    for path in (PACKAGE / "optimizers").glob("[!_]*.py"):
        assert (tests / f"test_{path.name}").exists(), f"{path.name} has no oracle test"
