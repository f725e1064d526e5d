"""Hyperparameters changed between steps: in every wrapper, of every factory, in a population."""

import jax
import jax.numpy as jnp
import law_subjects as subjects
import numpy as np
import pytest

import fnopt
from fnopt import Tunable
from fnopt.testing.laws import Subject
from fnopt.testing.laws.subject import differences, gradients_of, params_of

STEPS = 6
BEFORE, AFTER = {"learning_rate": 0.01, "b1": 0.9}, {"learning_rate": 0.03, "b1": 0.5}


def adam(**values):
    return fnopt.adam(**{name: Tunable(value) for name, value in values.items()}, eps=1e-4)


def names_in(state):
    """The public names of adam's two hyperparameters in a wrapper's state."""
    found = {}
    for name in BEFORE:
        places = [n for n in fnopt.hyperparameters(state) if n.rsplit("/")[-1] == name]
        found[name] = max(places, key=len)  # a wrapper's own rate stands further out
    return found


def chain_of(optimizer):
    return subjects.Builder(fnopt.chain, fnopt.clip_by_global_norm(1.0), optimizer)


def mechanized(optimizer):
    """From a scale at which float32 params move in a few steps."""
    return subjects.Builder(fnopt.mechanize, optimizer, s_init=0.1)


WRAPPERS = subjects.WRAPPERS | {"chain": chain_of, "mechanize": mechanized}
FACTORIES = {name: subjects.EXAMPLES.get(name, b) for name, b in subjects.BY_KINDS.items()}


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_change_reaches_through_a_wrapper(name):
    """Set after `init`, it is as if it had been given so; set later, nothing is traced again."""
    subject = Subject(WRAPPERS[name](adam(**BEFORE)))
    other = Subject(WRAPPERS[name](adam(**AFTER)))
    start = params_of()

    def run(subject, changes):
        traces = []

        @jax.jit
        def step(params, state, gradients):
            traces.append(1)
            return subject.step(params, state, gradients)

        params, state = start, subject.init(start)
        for i in range(STEPS):
            if i in changes:
                names = names_in(state)
                values = {names[key]: value for key, value in changes[i].items()}
                state = fnopt.set_hyperparameters(state, **values)
            params, state = step(params, state, gradients_of(step=i))
        assert len(traces) == 1
        return params

    plain, changed = run(subject, {}), run(subject, {0: AFTER})
    assert not list(differences(changed, run(other, {}), 1e-5))
    assert list(differences(changed, plain, 1e-3))
    late = run(subject, {3: AFTER})
    assert list(differences(late, plain, 1e-3))
    assert list(differences(late, changed, 1e-3))


@pytest.mark.parametrize("name", FACTORIES)
def test_injection_into_every_factory(name):
    builder = FACTORIES[name]
    injected = fnopt.inject_hyperparams(builder.factory)
    optimizer = injected(*builder.bound.args, **builder.bound.kwargs)
    params = params_of()
    state = optimizer.init(params)
    assert builder.numbers().keys() <= fnopt.hyperparameters(state).keys()
    state = fnopt.set_hyperparameters(state, **builder.numbers())
    extras = builder.extras(params, params)
    updates = builder.feed(params)
    jax.eval_shape(lambda u, s: optimizer.update(u, s, params, **extras), updates, state)


@pytest.mark.parametrize("name", ["chain", "partition", "masked", "guard", "accumulate"])
def test_a_population_is_as_its_members(name):
    subject = Subject(WRAPPERS[name](adam(**BEFORE)))
    params = params_of()
    rates = jnp.array([1e-3, 1e-2, 1e-1])
    key = names_in(subject.init(params))["learning_rate"]

    def run(rate):
        state = fnopt.set_hyperparameters(subject.init(params), **{key: rate})
        trained = params
        for i in range(4):
            trained, state = subject.step(trained, state, gradients_of(step=i))
        return trained

    together = jax.jit(jax.vmap(run))(rates)
    for i, rate in enumerate(rates):
        alone = run(rate)
        assert not list(differences(jax.tree.map(lambda x: x[i], together), alone, 1e-5))
    assert np.ptp(np.asarray(together["layer"]["kernel"]), axis=0).all()
