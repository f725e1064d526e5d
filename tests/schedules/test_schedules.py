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


@every
def test_ends(name):
    schedule, (_, _, values, _) = build(name), CARDS[name]
    jitted = jax.jit(schedule)
    for count, value in values.items():
        for got in (schedule(count), jitted(jnp.int32(count))):
            assert got.shape == ()
            assert got.dtype == jnp.float32
            assert not got.weak_type
            np.testing.assert_allclose(got, np.float32(value), rtol=1e-7, atol=0)


@pytest.mark.parametrize("name", [n for n in CARDS if hasattr(optax, n)])
def test_optax_agrees(name, standard_numerics):
    args, kwargs, _, last = CARDS[name]
    theirs = getattr(optax, name)(*args, **kwargs)
    counts = np.arange(last + 1)
    want = [float(theirs(c)) for c in counts[::3]]
    np.testing.assert_allclose(jax.jit(build(name))(counts)[::3], want, rtol=1e-5, atol=2e-7)


@every
def test_identity(name):
    one, other = build(name), build(name)
    assert one is not other
    assert one == other
    assert (one != other) is False
    assert hash(one) == hash(other)
    back = pickle.loads(pickle.dumps(one))
    assert back == one
    np.testing.assert_array_equal(back(3), one(3))
    assert copy.deepcopy(one) == one
    assert repr(one).startswith(name + "(")
    assert one.name == name


@every
def test_counts_of_every_kind(name):
    schedule, last = build(name), CARDS[name][3]
    value = float(schedule(5))
    for count in (jnp.int32(5), jnp.uint32(5), jnp.float32(5), np.int64(5), jnp.asarray(5)):
        np.testing.assert_allclose(schedule(count), value, rtol=1e-6)
    counts = jnp.arange(last)
    table = jax.vmap(schedule)(counts)
    np.testing.assert_allclose(table[5], value, rtol=1e-6)
    np.testing.assert_array_equal(schedule(counts), table)
    scanned = jax.lax.scan(lambda c, _: (c + 1, schedule(c)), jnp.int32(0), length=last)[1]
    np.testing.assert_allclose(scanned, table, rtol=1e-6)
    for huge in (2**31 - 1, jnp.int32(2**31 - 1), 10**12):
        assert np.isfinite(schedule(huge))
        assert schedule(huge) >= 0


@every
def test_double_precision(name, x64):
    schedule, (_, _, values, last) = build(name), CARDS[name]
    for count, value in values.items():
        got = jax.jit(schedule)(count)
        assert got.dtype == jnp.float64
        np.testing.assert_allclose(got, value, rtol=1e-15)
    with jax.enable_x64(False):
        single = np.asarray(schedule(np.arange(last)))
    np.testing.assert_allclose(single, schedule(np.arange(last)), rtol=2e-6, atol=1e-7)


@every
def test_derivative_by_the_count_is_finite(name):
    slope = jax.vmap(jax.grad(build(name)))(jnp.arange(60, dtype=jnp.float32))
    assert np.isfinite(slope).all()


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


@pytest.mark.parametrize("name", [n for n in CARDS if n != "join_schedules"])
def test_traced_arguments(name):
    """Built inside jit, grad and vmap from arrays, a schedule is the same and has derivatives."""
    args, kwargs, _, last = CARDS[name]
    numbers, put = flat((args, kwargs))
    assert numbers
    factory, counts = getattr(schedules, name), jnp.arange(0, last, 7)

    def total(numbers):
        args, kwargs = put(numbers)
        return factory(*args, **kwargs)(counts)

    numbers = [jnp.float32(n) for n in numbers]
    np.testing.assert_allclose(jax.jit(total)(numbers), build(name)(counts), rtol=2e-5, atol=1e-6)
    derivative = jax.jit(jax.jacrev(total))(numbers)
    assert all(np.isfinite(d).all() for d in derivative)
    batched = [jnp.stack([n, 0.9 * n]) for n in numbers]
    both = jax.vmap(total)(batched)
    np.testing.assert_allclose(both[0], build(name)(counts), rtol=2e-5, atol=1e-6)


def test_traced_steps():
    @jax.jit
    def warm(warmup, total):
        return schedules.warmup_cosine_decay_schedule(0.0, 1.0, warmup, total)(jnp.arange(20))

    want = schedules.warmup_cosine_decay_schedule(0.0, 1.0, 5, 15)(jnp.arange(20))
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
