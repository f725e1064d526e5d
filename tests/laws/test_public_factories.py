"""Every law for every public factory, and for configurations that are other rules."""

import functools

import law_subjects as subjects
import pytest

from fnopt.testing import LAWS, check
from fnopt.testing.laws import Subject


def test_every_public_factory_is_a_subject():
    missing = subjects.FACTORIES.keys() - subjects.BY_KINDS.keys() - subjects.EXAMPLES.keys()
    assert not missing, f"give an example of {sorted(missing)} in subjects.EXAMPLES"
    assert len(subjects.FACTORIES) >= 25
    unknown = subjects.EXAMPLES.keys() - subjects.FACTORIES.keys()
    assert not unknown, f"no public factories: {sorted(unknown)}"


@functools.lru_cache(maxsize=2)
def subject(name):
    """One for all laws, which come one after another, so that they share its compiled steps."""
    return Subject((subjects.SUBJECTS | subjects.WRAPPED)[name])


@pytest.mark.parametrize("law", LAWS.values(), ids=lambda law: law.code)
@pytest.mark.parametrize("name", subjects.SUBJECTS)
def test_law(name, law):
    check(subject(name), {law.code: law})


@pytest.mark.parametrize("code", subjects.WRAPPED_LAWS)
@pytest.mark.parametrize("name", subjects.WRAPPED)
def test_law_of_a_wrapper(name, code):
    check(subject(name), {code: LAWS[code]})


def test_every_wrapper_is_wrapped_around_all_members():
    folder = {
        name
        for name, factory in subjects.FACTORIES.items()
        if factory.__module__.startswith("fnopt.wrappers.")
    }
    parts = {"return_to_slow_weights"}  # of a chain, and no wrapper
    assert folder - parts == set(subjects.WRAPPERS)


@pytest.mark.parametrize("code", subjects.FOREIGN_LAWS)
def test_law_with_an_optax_member(code, standard_numerics):
    check(subjects.FOREIGN, {code: LAWS[code]})
