"""Runs a script of examples/ by its name."""

import importlib.util
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


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
