"""Every law for every public factory, and for configurations that are other rules."""

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


@pytest.mark.parametrize("name", subjects.SUBJECTS)
def test_laws(name):
    """All laws in one test, for they share the compiled steps; the error lists every breach."""
    check(Subject(subjects.SUBJECTS[name]))


def covering_laws(name):
    """A third of the wrappers' laws, so that every pair of wrapper, member and law occurs."""
    wrapper, member = name.split(" of ")
    place = list(subjects.WRAPPERS).index(wrapper) + list(subjects.MEMBERS).index(member)
    return [code for i, code in enumerate(subjects.WRAPPED_LAWS) if (place + i) % 3 == 0]


@pytest.mark.parametrize("name", subjects.WRAPPED)
def test_laws_of_a_wrapper(name):
    check(Subject(subjects.WRAPPED[name]), {code: LAWS[code] for code in covering_laws(name)})


# All combinations of wrapper, member and law: each of the three pairs is covered above.
@pytest.mark.sweep
@pytest.mark.parametrize("name", subjects.WRAPPED)
def test_other_laws_of_a_wrapper(name):
    rest = set(subjects.WRAPPED_LAWS) - set(covering_laws(name))
    check(Subject(subjects.WRAPPED[name]), {code: LAWS[code] for code in sorted(rest)})


def test_the_covering_set_has_every_pair():
    triples = {
        (*name.split(" of "), code) for name in subjects.WRAPPED for code in covering_laws(name)
    }
    wrappers, members, codes = subjects.WRAPPERS, subjects.MEMBERS, subjects.WRAPPED_LAWS
    assert {(w, m) for w, m, _ in triples} == {(w, m) for w in wrappers for m in members}
    assert {(w, c) for w, _, c in triples} == {(w, c) for w in wrappers for c in codes}
    assert {(m, c) for _, m, c in triples} == {(m, c) for m in members for c in codes}


def test_every_wrapper_is_wrapped_around_all_members():
    folder = {
        name
        for name, factory in subjects.FACTORIES.items()
        if factory.__module__.startswith("fnopt.wrappers.")
    }
    parts = {"return_to_slow_weights"}  # of a chain, and no wrapper
    assert folder - parts == set(subjects.WRAPPERS)


def test_laws_with_an_optax_member(standard_numerics):
    check(Subject(subjects.FOREIGN), {code: LAWS[code] for code in subjects.FOREIGN_LAWS})
