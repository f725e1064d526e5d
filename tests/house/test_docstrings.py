"""Every public name is documented, and every doctest is true."""

import doctest
import importlib
import inspect
import pkgutil
import re

import fnopt
from fnopt.core import factories


def test_every_module_says_what_it_is_for_and_its_doctests_are_true():
    findings = []
    for found in pkgutil.walk_packages(fnopt.__path__, "fnopt."):
        if "__main__" in found.name:
            continue
        module = importlib.import_module(found.name)
        if not module.__doc__:
            findings.append(f"{found.name} has no docstring")
        if failed := doctest.testmod(module).failed:
            findings.append(f"{found.name}: {failed} doctests fail")
    assert not findings


def test_public_names_have_docstrings():
    names = [name for name in vars(fnopt) if not name.startswith("_")]
    assert len(names) > 200
    assert not [name for name in names if not inspect.getdoc(getattr(fnopt, name))]


def test_factories_document_their_hyperparameters():
    findings = []
    for name, factory in factories(fnopt).items():
        document = f"{inspect.getdoc(factory)}\n{inspect.getmodule(factory).__doc__}"
        for other in re.findall(r"See `(\w+)`\.", document):
            document += inspect.getdoc(factories(fnopt)[other])
        findings += [f"{name}({kind}=...)" for kind in factory.kinds if kind not in document]
    assert not findings, f"not documented: {findings}"


def test_optimizers_name_memory_and_source():
    findings = []
    for name, factory in factories(fnopt).items():
        if ".optimizers." in factory.__module__ and "learning_rate" in factory.kinds:
            document = inspect.getmodule(factory).__doc__
            lacking = [word for word in ("Memory:", "Source:") if word not in document]
            findings += [f"{name} has no {word}" for word in lacking]
    assert not findings
