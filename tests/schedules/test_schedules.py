"""What every schedule keeps: its ends, identity, dtypes, jit, vmap and grad, and optax's values."""

import copy
import importlib.util
import inspect
import pickle
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from findings import each, together

import fnopt
import fnopt.schedules as schedules
from fnopt.schedules.schedule import factories

spec = importlib.util.spec_from_file_location("cards", Path(__file__).with_name("cards.py"))
cards = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cards)
CARDS, build = cards.CARDS, cards.build
every = pytest.mark.parametrize("name", CARDS)


def test_every_public_schedule_has_a_card():
    assert set(factories(schedules)) == set(CARDS)


def test_optax_has_no_other():
    theirs = {name for name in dir(optax.schedules) if name[0].islower()}
    assert len(theirs) >= 15
    injections = {"inject_hyperparams", "inject_stateful_hyperparams"}  # here: Tunable
    assert theirs - injections <= set(CARDS)


@pytest.mark.parametrize("name", factories(fnopt))
def test_the_docstring_says_what_the_ends_are(name):
    assert "\n\nEnds: " in inspect.getdoc(factories(fnopt)[name])


# One word for one thing, in every schedule.
WORDS = {
    "init_value", "peak_value", "end_value", "value",  # at count 0, at the top, at the end, always
    "warmup_steps", "stable_steps", "decay_steps", "transition_steps", "transition_begin",
    "up_steps", "down_steps", "total_steps", "step_size", "timescale",
    "boundaries", "boundaries_and_scales", "milestones", "fractions_and_values",
    "decay_rate", "gamma", "power", "exponent", "alpha", "multiplier", "staircase",
    "pct_start", "pct_final", "div_factor", "final_div_factor",
    "mode", "shape", "interpolate_type", "schedules", "cosine_kwargs",
}  # fmt: skip


def test_arguments_have_the_same_names_throughout():
    signatures = [inspect.signature(f) for f in factories(schedules).values()]
    assert {name for signature in signatures for name in signature.parameters} == WORDS


def at(counts):
    """name -> a function that gives the schedule's values at its counts."""
    return {name: lambda name=name: jax.vmap(build(name))(counts[name]) for name in counts}


def typed(name, got, dtype=jnp.float32):
    assert (got.shape, got.dtype, got.weak_type) == ((), dtype, False), name


def test_ends():
    counts = {name: jnp.asarray(list(card[2]), jnp.int32) for name, card in CARDS.items()}

    def check(name, got):
        schedule, values = build(name), CARDS[name][2]
        typed(name, jax.eval_shape(schedule, jnp.int32(0)))
        np.testing.assert_allclose(got, np.float32(list(values.values())), rtol=1e-7, atol=0)
        for count, value in values.items():
            with jax.disable_jit():
                got = schedule(count)
            typed(name, got)
            np.testing.assert_allclose(got, np.float32(value), rtol=1e-7, atol=0)

    each(together(at(counts)), check)


def test_optax_agrees(standard_numerics):
    names = [name for name in CARDS if hasattr(optax, name)]
    counts = {name: jnp.arange(CARDS[name][3] + 1)[::3] for name in names}

    def theirs(name):
        args, kwargs, _, _ = CARDS[name]
        return jax.vmap(getattr(optax, name)(*args, **kwargs))(counts[name])

    ours = at(counts)
    both = {name: lambda name=name: (ours[name](), theirs(name)) for name in names}

    def check(name, found):
        np.testing.assert_allclose(*found, rtol=1e-5, atol=2e-7)

    each(together(both), check)


@every
def test_identity(name):
    one, other = build(name), build(name)
    assert one is not other
    assert one == other
    assert (one != other) is False
    assert hash(one) == hash(other)
    back = pickle.loads(pickle.dumps(one))
    assert back == one
    with jax.disable_jit():
        np.testing.assert_array_equal(back(3), one(3))
    assert copy.deepcopy(one) == one
    assert repr(one).startswith(name + "(")
    assert one.name == name


def test_counts_of_every_kind():
    kinds = [*map(jnp.asarray, (np.int32(5), np.uint32(5), np.float32(5))), np.int64(5)]

    def tables(name):
        schedule, last = build(name), CARDS[name][3]
        scanned = jax.lax.scan(lambda c, _: (c + 1, schedule(c)), jnp.int32(0), length=last)[1]
        counts = jnp.arange(last)
        return jax.vmap(schedule)(counts), schedule(counts), scanned

    def check(name, found):
        schedule, (table, values, scanned) = build(name), found
        with jax.disable_jit():
            value = float(schedule(5))
            for count in (*kinds, jnp.asarray(5)):
                np.testing.assert_allclose(schedule(count), value, rtol=1e-6)
            for huge in (2**31 - 1, jnp.int32(2**31 - 1), 10**12):
                assert np.isfinite(schedule(huge))
                assert schedule(huge) >= 0
        np.testing.assert_allclose(table[5], value, rtol=1e-6)
        np.testing.assert_array_equal(values, table)
        np.testing.assert_allclose(scanned, table, rtol=1e-6)

    each(together({name: lambda name=name: tables(name) for name in CARDS}), check)


def test_double_precision(x64):
    counts = {name: np.arange(card[3]) for name, card in CARDS.items()}
    with jax.enable_x64(False):
        single = together(at(counts))
    ends = {name: jnp.asarray(list(card[2])) for name, card in CARDS.items()}
    double = together(at({name: np.concatenate([ends[name], counts[name]]) for name in CARDS}))

    def check(name, got):
        typed(name, jax.eval_shape(build(name), 3), jnp.float64)
        values = list(CARDS[name][2].values())
        np.testing.assert_allclose(got[: len(values)], values, rtol=1e-15)
        np.testing.assert_allclose(single[name], got[len(values) :], rtol=2e-6, atol=1e-7)

    each(double, check)


def test_derivative_by_the_count_is_finite():
    counts = np.arange(60, dtype=np.float32)
    slopes = {name: lambda name=name: jax.vmap(jax.grad(build(name)))(counts) for name in CARDS}

    def check(name, slope):
        assert np.isfinite(slope).all()

    each(together(slopes), check)


def flat(value):
    """The float leaves of a card's arguments, and a function that puts others in their place."""
    leaves, treedef = jax.tree.flatten(value)
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, float)]

    def put(numbers):
        new = list(leaves)
        for i, number in zip(places, numbers):
            new[i] = number
        return treedef.unflatten(new)

    return [leaves[i] for i in places], put


def traced(name, numbers):
    """(values, those of the schedule with these numbers, derivatives, values of two at once)."""
    args, kwargs, _, last = CARDS[name]
    _, put = flat((args, kwargs))
    counts = jnp.arange(0, last, 7)

    def values(numbers):
        args, kwargs = put(numbers)
        return getattr(schedules, name)(*args, **kwargs)(counts)

    batched = [jnp.stack([n, 0.9 * n]) for n in numbers]
    both = jax.vmap(values)(batched)
    return values(numbers), build(name)(counts), jax.jacrev(values)(numbers), both


def test_traced_arguments():
    """Built inside jit, grad and vmap from arrays, a schedule is the same and has derivatives."""
    numbers = {name: flat(card[:2])[0] for name, card in CARDS.items() if name != "join_schedules"}
    assert all(numbers.values())
    numbers = {name: [np.float32(n) for n in ns] for name, ns in numbers.items()}

    def check(name, found):
        got, wanted, derivative, both = found
        np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=1e-6)
        assert all(np.isfinite(d).all() for d in derivative)
        np.testing.assert_allclose(both[0], wanted, rtol=2e-5, atol=1e-6)

    each(together({n: lambda ns, n=n: traced(n, ns[n]) for n in numbers}, numbers), check)


def test_traced_steps():
    @jax.jit
    def warm(warmup, total):
        return schedules.warmup_cosine_decay_schedule(0.0, 1.0, warmup, total)(jnp.arange(20))

    want = jax.jit(schedules.warmup_cosine_decay_schedule(0.0, 1.0, 5, 15))(jnp.arange(20))
    np.testing.assert_allclose(warm(5, 15), want, atol=1e-6)


def test_low_precision_arguments_do_not_lower_the_value():
    schedule = schedules.linear_schedule(jnp.bfloat16(1.0), jnp.float16(0.0), 1000)
    np.testing.assert_allclose(schedule(1), 0.999, rtol=1e-6)


@pytest.mark.parametrize("name", [n for n in CARDS if hasattr(optax, n)])
def test_positions_and_keywords_are_the_peers(name):
    ours = inspect.signature(getattr(schedules, name)).parameters
    theirs = inspect.signature(getattr(optax, name)).parameters
    assert list(ours) == list(theirs)
    for key, parameter in theirs.items():
        assert ours[key].default == parameter.default
