"""Runs a script of examples/ by its name; makes `tests/forks.py` importable."""

import importlib.util
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

if "forks" not in sys.modules:
    spec = importlib.util.spec_from_file_location("forks", Path(__file__).parents[1] / "forks.py")
    sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[spec.name])


@pytest.fixture
def example():
    """Runs examples/NAME.py with fewer steps, and gives the numbers of its `main`."""

    def run(name, out, steps):
        spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found = module.main(["--steps", str(steps), "--out", str(out)])
        assert (out / f"{name}.png").stat().st_size > 5_000
        return found

    return run
