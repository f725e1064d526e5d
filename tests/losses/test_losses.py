"""What every loss keeps: optax's values, true gradients, float32 for low precision, jit."""

import importlib.util
import inspect
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from findings import each, together

import fnopt.losses as losses

spec = importlib.util.spec_from_file_location("loss_cards", Path(__file__).with_name("cards.py"))
cards = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cards)
CARDS = dict(zip(cards.IDS, cards.CARDS))
names = sorted({name for name, *_ in cards.CARDS} | {"make_fenchel_young_loss"})


def typed(args, dtype):
    """Float arguments as arrays of a dtype."""
    return [
        jnp.asarray(a, dtype) if isinstance(a, np.ndarray) and a.dtype == np.float64 else a
        for a in args
    ]


def first(result):
    return result[0] if isinstance(result, tuple) else result


def test_every_public_loss_has_a_card_and_optax_has_no_other():
    public = {n for n in dir(losses) if inspect.isfunction(getattr(losses, n))}
    theirs = {n for n in dir(optax.losses) if inspect.isfunction(getattr(optax.losses, n))}
    assert public == theirs == set(names)


@pytest.mark.parametrize("name", names)
def test_positions_and_keywords_are_the_peers(name):
    ours = inspect.signature(getattr(losses, name)).parameters.values()
    theirs = inspect.signature(getattr(optax.losses, name)).parameters.values()
    said = lambda ps: [(p.name, p.kind, p.default) for p in ps]
    assert said(ours) == said(theirs)


def ours_and_theirs(card):
    name, args, kwargs, _ = card
    return getattr(losses, name)(*args, **kwargs), getattr(optax.losses, name)(*args, **kwargs)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_optax_agrees(standard_numerics, x64):
    arrays = {
        i: jax.tree.map(lambda a: jnp.asarray(a) if isinstance(a, np.ndarray) else a, card)
        for i, card in CARDS.items()
    }
    # a check of the peer's does not trace
    eager = [i for i, card in CARDS.items() if not card[2].get("apply_softmax", True)]
    found = together({
        i: lambda card=card: ours_and_theirs(card) for i, card in arrays.items() if i not in eager
    })  # fmt: skip
    found |= {i: ours_and_theirs(arrays[i]) for i in eager}

    def check(name, both):
        close = lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-6, atol=1e-9)
        jax.tree.map(close, *both)

    each(found, check)


def slopes(card):
    """By central differences along a random direction, and by the gradient."""
    name, args, kwargs, places = card
    args = [jnp.asarray(a) if isinstance(a, np.ndarray) else a for a in args]
    rng = np.random.default_rng(1)
    shape = jax.eval_shape(lambda *a: first(cards.loss(name)(*a, **kwargs)), *args).shape
    weights = jnp.asarray(rng.normal(size=shape))
    along = {i: jnp.asarray(rng.normal(size=args[i].shape)) for i in places}

    def moved(h):
        at = [a + h * along[i] if i in along else a for i, a in enumerate(args)]
        return jnp.sum(weights * first(cards.loss(name)(*at, **kwargs)))

    return jax.vmap(moved)(jnp.asarray([1e-6, -1e-6])), jax.grad(moved)(0.0)


def test_gradients_are_the_slopes(x64):
    """In double precision."""

    def check(name, found):
        (after, before), gradient = found
        np.testing.assert_allclose(gradient, (after - before) / 2e-6, rtol=1e-6, atol=1e-8)

    each(together({i: lambda card=card: slopes(card) for i, card in CARDS.items()}), check)


def narrow(name):
    """The two by turns."""
    return jnp.dtype(["bfloat16", "float16"][len(name) % 2])


def narrow_and_wide(card):
    """(value, gradients) of arguments in a narrow dtype, and of the same in float32."""
    name, args, kwargs, places = card
    if kwargs.get("apply_softmax") is False:
        args = (np.float64(map_probabilities(args[0])), *args[1:])
    low = typed(args, narrow(name))
    wide = [a.astype(jnp.float32) if a is not b else a for a, b in zip(low, args)]
    floats = tuple(i for i in places if low[i] is not args[i])

    def both(*args):
        result = cards.loss(name)(*args, **kwargs)
        total = lambda *a: jnp.sum(first(cards.loss(name)(*a, **kwargs)))
        return result, jax.grad(total, argnums=floats)(*args)

    return both(*low), both(*wide)


def test_low_precision_is_computed_in_float32():
    def check(i, found):
        (got, grads), (want, true) = found
        dtype = narrow(CARDS[i][0])
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(got))
        jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=2e-5, atol=2e-6), got, want)
        assert grads
        assert all(g.dtype == dtype for g in grads)
        for g, w in zip(grads, true):  # rounded once, at the end
            rtol = 2 * float(jnp.finfo(dtype).eps)
            np.testing.assert_allclose(np.float32(g), w, rtol=rtol, atol=2e-6)

    each(together({i: lambda card=card: narrow_and_wide(card) for i, card in CARDS.items()}), check)


def map_probabilities(p):
    """Probabilities that are exact in few bits."""
    return np.broadcast_to([0.25, 0.25, 0.5], p.shape)


PAIRS = [
    n
    for n in names
    if n not in ("smooth_labels", "make_fenchel_young_loss", "ntxent")
    and "ctc" not in n
    and "multiclass" not in n
    and "integer" not in n
]


@pytest.mark.parametrize("name", PAIRS)
def test_shapes_must_be_equal(name):
    a, b = jnp.zeros((4, 3)), jnp.zeros((4, 1), jnp.float32)
    if name == "sparsemax_loss":
        b = b.astype(jnp.int32)
    args = (a, b, a) if name == "triplet_margin_loss" else (a, b)
    with pytest.raises(ValueError, match=r"\(4, 3\).*\(4, 1\)"):
        cards.loss(name)(*args)


INTEGERS = [n for n in names if ("multiclass" in n or "integer" in n) and "dice" not in n]


@pytest.mark.parametrize("name", INTEGERS)
def test_class_indices_are_integers_of_the_shape(name):
    scores = jnp.zeros((4, 3))
    with pytest.raises(ValueError, match=f"{name}: labels must have an integer dtype, got float32"):
        cards.loss(name)(scores, jnp.zeros(4))
    with pytest.raises(ValueError, match=rf"{name}: labels must have shape \(4,\), got \(4, 3\)"):
        cards.loss(name)(scores, jnp.zeros((4, 3), jnp.int32))
    with pytest.raises(ValueError, match="must have a floating dtype, got int32"):
        cards.loss(name)(jnp.zeros((4, 3), jnp.int32), jnp.zeros(4, jnp.int32))


def test_class_indices_out_of_range_show():
    scores = np.zeros((4, 3), np.float32)
    labels = np.int32([0, 3, -1, 2])

    def found(name):
        loss = cards.loss(name)
        return (
            loss(scores, labels),
            loss(scores, np.uint8([0, 1, 2, 2])),
            loss(scores, [0, 1, 2, 2]),
        )

    def check(name, found):
        out, small, listed = found
        np.testing.assert_array_equal(np.isnan(out), [False, True, True, False])
        np.testing.assert_array_equal(small, listed)

    each(together({name: lambda name=name: found(name) for name in INTEGERS}), check)
