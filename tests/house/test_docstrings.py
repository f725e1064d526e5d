"""Every public name is documented, and every doctest is true."""

import doctest
import importlib
import inspect
import pkgutil
import re

import pytest

import fnopt
from fnopt.core import factories

MODULES = sorted(
    m.name for m in pkgutil.walk_packages(fnopt.__path__, "fnopt.") if "__main__" not in m.name
)


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name):
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} does not say what it is for"
    result = doctest.testmod(module)
    assert result.failed == 0


@pytest.mark.parametrize("name", [n for n in vars(fnopt) if not n.startswith("_")])
def test_public_names_have_docstrings(name):
    assert inspect.getdoc(getattr(fnopt, name))


@pytest.mark.parametrize("name", list(factories(fnopt)))
def test_factories_document_their_hyperparameters(name):
    factory = factories(fnopt)[name]
    document = f"{inspect.getdoc(factory)}\n{inspect.getmodule(factory).__doc__}"
    for other in re.findall(r"See `(\w+)`\.", document):
        document += inspect.getdoc(factories(fnopt)[other])
    for parameter in factory.kinds:
        assert parameter in document, f"{name}: {parameter} is not documented"


@pytest.mark.parametrize(
    "name", [n for n, f in factories(fnopt).items() if "learning_rate" in f.kinds]
)
def test_optimizers_name_memory_and_source(name):
    factory = factories(fnopt)[name]
    if ".optimizers." in factory.__module__:
        document = inspect.getmodule(factory).__doc__
        assert "Memory:" in document
        assert "Source:" in document
