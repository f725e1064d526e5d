"""Makes `matrix_oracles.py` importable: what the oracles of matrix optimizers share."""

import importlib.util
import sys
from pathlib import Path

spec = importlib.util.spec_from_file_location(
    "matrix_oracles", Path(__file__).with_name("matrix_oracles.py")
)
sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules[spec.name])
