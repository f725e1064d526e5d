"""Makes `tests/forks.py` importable."""

import importlib.util
import sys
from pathlib import Path

if "forks" not in sys.modules:
    spec = importlib.util.spec_from_file_location("forks", Path(__file__).parents[1] / "forks.py")
    sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[spec.name])
