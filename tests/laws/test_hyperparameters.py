"""Every numeric hyperparameter of every factory has an example, and a range that it refuses."""

import law_subjects as subjects

from fnopt.testing.laws.mistakes import SUSPECTS


def test_every_kind_of_every_factory_is_tried():
    tried = {
        (builder.name, hyperparameter)
        for builder in subjects.SUBJECTS.values()
        for hyperparameter in builder.numbers(initial=True)
    }
    for name, factory in subjects.FACTORIES.items():
        for hyperparameter in factory.kinds:
            assert (name, hyperparameter) in tried, f"no example of {name}({hyperparameter}=...)"


def test_every_range_has_an_end():
    """So that L8, which tries the suspects outside it, has something to try."""
    for name, builder in subjects.SUBJECTS.items():
        for hyperparameter in builder.numbers(initial=True):
            kind = builder.kinds[hyperparameter]
            assert not kind.contains(float("nan")), (name, hyperparameter)
            assert not all(kind.contains(value) for value in SUSPECTS), (name, hyperparameter)
