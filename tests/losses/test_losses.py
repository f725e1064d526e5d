"""What every loss keeps: optax's values, true gradients, float32 for low precision, jit."""

import importlib.util
import inspect
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnopt.losses as losses

spec = importlib.util.spec_from_file_location("loss_cards", Path(__file__).with_name("cards.py"))
cards = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cards)
every = pytest.mark.parametrize("card", cards.CARDS, ids=cards.IDS)
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


@every
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_optax_agrees(card, standard_numerics, x64):
    name, args, kwargs, _ = card
    args = [jnp.asarray(a) for a in args]
    kwargs = {k: jnp.asarray(v) if isinstance(v, np.ndarray) else v for k, v in kwargs.items()}
    static = {k: v for k, v in kwargs.items() if not isinstance(v, jax.Array)}
    arrays = {k: v for k, v in kwargs.items() if isinstance(v, jax.Array)}
    peer = lambda *a: getattr(optax.losses, name)(*a, **arrays, **static)
    if kwargs.get("apply_softmax", True):  # a check of the peer's does not trace
        peer = jax.jit(peer)
    want = peer(*args)
    got = jax.jit(lambda *a: cards.loss(name)(*a, **arrays, **static))(*args)
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-6, atol=1e-9), got, want)


@every
def test_gradients_are_the_slopes(card, x64):
    """Along a random direction, by central differences in double precision."""
    name, args, kwargs, places = card
    args = [jnp.asarray(a) if isinstance(a, np.ndarray) else a for a in args]
    rng = np.random.default_rng(1)
    shape = jax.eval_shape(lambda *a: first(cards.loss(name)(*a, **kwargs)), *args).shape
    weights = jnp.asarray(rng.normal(size=shape))
    along = {i: jnp.asarray(rng.normal(size=args[i].shape)) for i in places}

    @jax.jit
    def moved(h):
        at = [a + h * along[i] if i in along else a for i, a in enumerate(args)]
        return jnp.sum(weights * first(cards.loss(name)(*at, **kwargs)))

    slope = (moved(1e-6) - moved(-1e-6)) / 2e-6
    np.testing.assert_allclose(jax.jit(jax.grad(moved))(0.0), slope, rtol=1e-6, atol=1e-8)


@every
def test_low_precision_is_computed_in_float32(card):
    name, args, kwargs, places = card
    dtype = ["bfloat16", "float16"][len(name) % 2]  # the two by turns
    if kwargs.get("apply_softmax") is False:
        args = (np.float64(map_probabilities(args[0])), *args[1:])
    low = typed(args, jnp.dtype(dtype))
    wide = [a.astype(jnp.float32) if a is not b else a for a, b in zip(low, args)]
    floats = tuple(i for i in places if low[i] is not args[i])

    @jax.jit
    def both(*args):
        result = cards.loss(name)(*args, **kwargs)
        total = lambda *a: jnp.sum(first(cards.loss(name)(*a, **kwargs)))
        return result, jax.grad(total, argnums=floats)(*args)

    (got, grads), (want, true) = both(*low), both(*wide)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(got))
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=2e-5, atol=2e-6), got, want)
    assert all(g.dtype == jnp.dtype(dtype) for g in grads)
    for g, w in zip(grads, true):  # rounded once, at the end
        np.testing.assert_allclose(
            g.astype(jnp.float32), w, rtol=2 * float(jnp.finfo(dtype).eps), atol=2e-6
        )


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
    labels = jnp.array([0, 3, -1, 2])
    np.testing.assert_array_equal(
        jnp.isnan(cards.loss(name)(scores, labels)), [False, True, True, False]
    )
    np.testing.assert_array_equal(
        cards.loss(name)(scores, jnp.uint8([0, 1, 2, 2])),
        cards.loss(name)(scores, [0, 1, 2, 2]),
    )
