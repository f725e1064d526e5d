"""Every numeric hyperparameter of every factory: as schedule, as Tunable, and out of range."""

import functools

import jax.numpy as jnp
import law_subjects as subjects
import pytest

import fnopt
from fnopt.testing.laws import Evidence, Subject
from fnopt.testing.laws.hyperparameters import constantly, trajectory
from fnopt.testing.laws.mistakes import SUSPECTS, out_of_range
from fnopt.testing.laws.subject import differences


def test_every_kind_of_every_factory_is_tried():
    tried = {
        (builder.name, hyperparameter)
        for builder in subjects.SUBJECTS.values()
        for hyperparameter in builder.numbers(initial=True)
    }
    for name, factory in subjects.FACTORIES.items():
        for hyperparameter in factory.kinds:
            assert (name, hyperparameter) in tried, f"no example of {name}({hyperparameter}=...)"


def array(value):
    return jnp.float32(value)


@functools.lru_cache(maxsize=2)
def as_numbers(name):
    """The updates of a few steps, with every hyperparameter given as a number."""
    return trajectory(Subject(subjects.SUBJECTS[name]), jnp.float32, 2)


@pytest.mark.parametrize("make", [constantly, fnopt.Tunable, array], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", subjects.SUBJECTS)
def test_schedule_and_tunable_act_as_the_number(name, make):
    """All hyperparameters at once; one by one where that is not so, to say which."""
    builder = subjects.SUBJECTS[name]
    numbers = builder.numbers()
    wanted = as_numbers(name)

    def found(names):
        given = Subject(builder, **{name: make(numbers[name]) for name in names})
        return list(differences(trajectory(given, jnp.float32, 2), wanted, 1e-3))

    together = found(numbers)
    assert not together, {name: found([name]) for name in numbers}


@pytest.mark.parametrize("name", subjects.SUBJECTS)
def test_values_out_of_range_are_refused(name):
    builder = subjects.SUBJECTS[name]
    evidence = Evidence()
    out_of_range(Subject(builder), evidence)
    assert not evidence.breaches
    for hyperparameter in builder.numbers(initial=True):
        kind = builder.kinds[hyperparameter]
        assert not kind.contains(float("nan"))
        assert not all(kind.contains(value) for value in SUSPECTS)
