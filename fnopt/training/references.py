"""What `MODULE:NAME` refers to: a function of anyone's, named on a command line."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import re
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from fnopt.training.errors import CommandError


def find(reference: str) -> Any:
    """What `MODULE:NAME` refers to; the name may have dots.

    Raises:
      CommandError: there is no such module or name; it offers the nearest.
    """
    module, _, path = reference.partition(":")
    if not (re.fullmatch(r"\w+(\.\w+)*", module) and path) or module.endswith(".py"):
        raise CommandError(f"expected MODULE:NAME, as optax:adamw, got {reference!r}")
    found: Any = import_module(module)
    where = module
    for name in path.split("."):
        if not hasattr(found, name):
            public = [word for word in dir(found) if not word.startswith("_")]
            raise CommandError(f"{where} has no {name!r}{hint(name, public)}")
        found, where = getattr(found, name), f"{where}.{name}"
    return found


def import_module(name: str) -> ModuleType:
    """The module of that name.

    Raises:
      CommandError: there is none, or it raises as it is imported: it says where.
    """
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        missing = getattr(error, "name", None) or ""
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{missing}."):
            said = f"no module named {missing!r}{hint(missing, siblings(missing))}"
        else:
            said = f"importing {name} raised {described(error)}"
        raise CommandError(said) from None


def siblings(missing: str) -> list[str]:
    """The modules that could have been meant."""
    parent = missing.rpartition(".")[0]
    places = getattr(sys.modules.get(parent), "__path__", []) if parent else None
    return [f"{parent}.{m.name}".strip(".") for m in pkgutil.iter_modules(places)]


def described(error: BaseException) -> str:
    """An exception and where it was raised: `NameError: name 'x' is not defined (a.py, line 3)`."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    file, line, said = last.filename, last.lineno, str(error)
    if isinstance(error, SyntaxError):
        file, line, said = error.filename or file, error.lineno, error.msg
    return f"{type(error).__name__}: {said} ({Path(file).name}, line {line})"


def hint(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'adam'?` if there is a name like it."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
