"""Losses where they are hard: huge and infinite logits, ties, zeros, masks, empty rows."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from findings import each, together
from jax.scipy.special import logsumexp

import fnopt.losses as losses

spec = importlib.util.spec_from_file_location("corner_cards", Path(__file__).with_name("cards.py"))
cards = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cards)

inf = float("inf")
labels = np.int32([0, 1, 2])
onehot = np.eye(3, dtype=np.float32)


def finite(tree):
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


def test_huge_logits():
    fs = {
        "softmax": lambda x: losses.softmax_cross_entropy(x, onehot),
        "integer": lambda x: losses.softmax_cross_entropy_with_integer_labels(x, labels),
        "poly": lambda x: losses.poly_loss_cross_entropy(x, onehot),
        "sparsemax": lambda x: losses.multiclass_sparsemax_loss(x / 2, labels),
        "sigmoid": lambda x: losses.sigmoid_binary_cross_entropy(x, onehot),
        "focal": lambda x: losses.sigmoid_focal_loss(x, onehot, gamma=0.5),
        "log_cosh": lambda x: losses.log_cosh(x),
        "huber": lambda x: losses.huber_loss(x),
        "ranking": lambda x: losses.ranking_softmax_loss(x, onehot),
        "cosine": lambda x: losses.cosine_similarity(x, onehot),
    }
    sizes = (1e4, 1e30, 3e38)
    x = np.stack([size * np.float32([[1, -1, 0], [1, -1, 0], [0, 0, 0]]) for size in sizes])

    def of_all(f, x):
        gradient = jax.grad(lambda x: jnp.sum(f(x) / 4))
        return [(f(one), gradient(one)) for one in x]

    found = together({name: lambda x, f=f: of_all(f, x) for name, f in fs.items()}, x)

    def check(name, found):
        for size, (value, gradient) in zip(sizes, found):
            assert finite(gradient), size
            assert (size > 1e38) or finite(value), size
        if name == "integer":
            for value, _ in found:
                np.testing.assert_allclose(value[np.array([0, 2])], [0, np.log(3)], rtol=1e-6)

    each(found, check)


def test_huge_logits_in_low_precision():
    fs = {
        "softmax": lambda x: losses.softmax_cross_entropy(x, onehot),
        "integer": lambda x: losses.softmax_cross_entropy_with_integer_labels(x, labels),
        "poly": lambda x: losses.poly_loss_cross_entropy(x, onehot),
        "sparsemax": lambda x: losses.multiclass_sparsemax_loss(x, labels),
        "multiclass hinge": lambda x: losses.multiclass_hinge_loss(x, labels),
        "sigmoid": lambda x: losses.sigmoid_binary_cross_entropy(x, onehot),
        "focal": lambda x: losses.sigmoid_focal_loss(x, onehot),
        "hinge": lambda x: losses.hinge_loss(x, 2 * onehot - 1),
        "log_cosh": losses.log_cosh,
        "huber": losses.huber_loss,
        "cosine": lambda x: losses.cosine_distance(x, onehot),
        "dice": lambda x: losses.dice_loss(x, onehot),
    }
    sizes = {"bfloat16": 1e30, "float16": 6e4}
    ones = np.array([[1.0, -1, 0], [-1, 1, 0], [0, 0, 0]])
    xs = {dtype: np.asarray(size * ones, jnp.dtype(dtype)) for dtype, size in sizes.items()}

    def pulled(f, x):
        value, pullback = jax.vjp(f, x)
        return value, *pullback(jnp.ones_like(value))

    def check(name, found):
        for dtype, (value, gradient) in found.items():
            assert gradient.dtype == jnp.dtype(dtype)
            assert finite(np.float32(value))
            assert finite(np.float32(gradient))

    each(
        together({
            name: lambda xs, f=f: {dtype: pulled(f, x) for dtype, x in xs.items()}
            for name, f in fs.items()
        }, xs),
        check,
    )  # fmt: skip


def test_digits_survive_large_logits():
    """log Σ exp x - x_y taken as it stands would be off by 5e-4 here."""
    x = np.float32([10000.0, 10000.5, 9990.0])
    want = np.log(np.exp(-0.5) + 1 + np.exp(-10.5))
    fs = {
        "softmax": lambda x: losses.softmax_cross_entropy(x, onehot[1]),
        "integer": lambda x: losses.softmax_cross_entropy_with_integer_labels(x, 1),
    }
    check = lambda name, got: np.testing.assert_allclose(got, want, rtol=1e-6)
    each(together(fs, x), check)


def test_zero_times_infinity_is_zero():
    x, y = np.float32([0.0, -inf, 1.0]), np.float32([0.25, 0.0, 0.75])
    log_p = np.float32([np.log(0.25), -inf, np.log(0.75)])

    def of_logits(f):
        def found(x, y):
            whole, part = (jax.value_and_grad(f, (0, 1))(*at) for at in ((x, y), (x[::2], y[::2])))
            return whole, part, f(x, onehot[1])

        return found

    def check_logits(name, found):
        (value, gradients), (want, (slope, _)), at_infinity = found
        np.testing.assert_allclose(value, want, rtol=1e-6)
        np.testing.assert_allclose(gradients[0][::2], slope, atol=1e-6)
        assert finite(gradients)
        assert at_infinity == inf

    names = ("softmax_cross_entropy", "safe_softmax_cross_entropy")
    each(together({n: of_logits(getattr(losses, n)) for n in names}, x, y), check_logits)
    integer = losses.softmax_cross_entropy_with_integer_labels
    assert finite(jax.jit(jax.grad(integer))(x, np.int32(2)))

    def check_divergence(name, found):
        value, gradients = found
        np.testing.assert_allclose(value, 0, atol=1e-7)
        assert finite(gradients)

    names = ("kl_divergence", "generalized_kl_divergence", "kl_divergence_with_log_targets")
    seconds = {name: log_p if "log" in name else y for name in names}
    fs = {
        name: lambda p, t, n=name: jax.value_and_grad(getattr(losses, n), (0, 1))(p, t[n])
        for name in names
    }
    each(together(fs, log_p, seconds), check_divergence)


def test_what_is_masked_has_no_say_even_if_it_is_not_a_number():
    mask = np.array([[True, True, False], [False, False, False]])
    bad, nan = (np.where(mask, x, np.nan).astype(np.float32) for x in (0.5, 0.25))

    def value_and_gradients(f):
        total = lambda x, y: jnp.sum(f(x, y, where=mask))
        return lambda x, y: (f(x, y, where=mask), jax.grad(total, argnums=(0, 1))(x, y))

    def check(name, found):
        assert finite(found)

    fs = (
        losses.softmax_cross_entropy,
        losses.poly_loss_cross_entropy,
        losses.kl_divergence,
        losses.generalized_kl_divergence,
        losses.kl_divergence_with_log_targets,
        losses.cosine_similarity,
        losses.ranking_softmax_loss,
    )
    each(together({f.__name__: value_and_gradients(f) for f in fs}, bad, nan), check)

    @jax.jit
    def others(x):
        y = np.int32([0, 7])
        f = lambda x: losses.softmax_cross_entropy_with_integer_labels(x, y, where=mask)
        smooth = losses.smooth_labels(onehot[:2], 0.1, where=mask)
        nothing = losses.ranking_softmax_loss(x, nan, where=np.zeros((2, 3), bool))
        return f(x), jax.grad(lambda x: jnp.sum(f(x)))(x), smooth, nothing

    value, gradient, smooth, nothing = others(bad)
    np.testing.assert_allclose(value, [np.log(2), 0], rtol=1e-6)
    np.testing.assert_allclose(gradient, [[-0.5, 0.5, 0], [0, 0, 0]], rtol=1e-6)
    assert finite(smooth)
    assert nothing == 0


def test_not_a_number_is_not_hidden():
    x, y = np.float32([[0.0, np.nan, 1.0], [0.0, 0.0, 0.0]]), np.int32([0, 0])
    labeled = (
        losses.softmax_cross_entropy_with_integer_labels,
        losses.multiclass_hinge_loss,
        losses.multiclass_perceptron_loss,
        losses.multiclass_sparsemax_loss,
    )
    single = (losses.log_cosh, losses.huber_loss, losses.squared_error)
    fs = {f.__name__: lambda x, f=f: f(x, y) for f in labeled}
    fs |= {f.__name__: lambda x, f=f: jnp.stack([f(x[0, 1]), f(x[0, 0])]) for f in single}
    ranking = lambda x: losses.ranking_softmax_loss(x, onehot[:2])[None]

    def check(name, found):
        np.testing.assert_array_equal(np.isnan(found), [True, False][: len(found)])

    each(together(fs | {"ranking": ranking}, x), check)


def test_gradients_at_zero_and_at_ties():
    """At kinks the mean of both sides, so that a classifier of zeros moves."""
    zero, label = np.zeros(3, np.float32), np.int32(1)
    ends = lambda end: np.float32([end, -end])
    slopes = lambda f: jax.vmap(jax.grad(f))
    tie = np.float32([1 / 3, -2 / 3, 1 / 3])
    # name: the gradient, at what, and what it is
    cases = {
        "huber": (slopes(losses.huber_loss), zero, zero),
        "log_cosh": (slopes(losses.log_cosh), zero, zero),
        "log_cosh twice": (slopes(jax.grad(losses.log_cosh)), zero, zero + 1),
        "the seam of huber": (
            slopes(lambda e: losses.huber_loss(e, delta=2.0)),
            ends(2.0),
            ends(2.0),
        ),
        "the seam within log_cosh": (slopes(losses.log_cosh), ends(1.0), np.tanh(ends(1.0))),
        "hinge": (jax.grad(lambda x: losses.hinge_loss(x, 1.0)), np.float32(1), -0.5),
        "perceptron": (jax.grad(lambda x: losses.perceptron_loss(x, -1.0)), np.float32(0), 0.5),
        "sparsemax": (
            slopes(lambda x: losses.sparsemax_loss(x, True)),
            np.float32([1, -1, 0]),
            [0.0, -1.0, -0.5],
        ),
    }
    multiclass = {"perceptron": tie, "hinge": np.float32([0.5, -1, 0.5]), "sparsemax": tie}
    for name, wanted in multiclass.items():
        f = getattr(losses, f"multiclass_{name}_loss")
        cases["multiclass " + name] = (jax.grad(lambda x, f=f: f(x, label)), zero, wanted)

    def check(name, found):
        wanted = cases[name][2]
        exact = "log_cosh" not in name and "multiclass" not in name
        np.testing.assert_allclose(found, wanted, rtol=0 if exact else 1e-6)

    at = {name: x for name, (_, x, _) in cases.items()}
    fs = {name: lambda at, n=name, f=f: f(at[n]) for name, (f, _, _) in cases.items()}
    each(together(fs, at), check)


def test_zero_vectors():
    a, b = np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)

    def of_pair(f):
        total = lambda u, v: f(u, v).sum()
        both = lambda u, v: (f(u, v), jax.grad(total, (0, 1))(u, v))
        return lambda a, b: [both(a, b), both(b, a), both(a, a)]

    def check(name, found):
        for value, gradients in found:
            assert finite(value)
            assert not any(g.any() for g in gradients)

    fs = (losses.cosine_similarity, losses.cosine_distance)
    each(together({f.__name__: of_pair(f) for f in fs}, a, b), check)

    @jax.jit
    def others(a, b):
        total = lambda *t: losses.triplet_margin_loss(*t, eps=0.0).sum()
        triplet = jax.grad(total, argnums=(0, 1, 2))
        contrastive = jax.grad(losses.ntxent)(a, np.int32([0, 0]))
        return contrastive, triplet(a, a, a), triplet(a, a, b)

    assert all(map(finite, others(a, b)))


def test_vectors_of_any_length():
    scales = np.float32([1e-30, 1e-15, 1e15, 1e30])
    a, b = np.float32([3.0, 4.0]), np.float32([4.0, 3.0])

    @jax.jit
    @jax.vmap
    def found(scale):
        gradient = jax.grad(losses.cosine_similarity)(scale * a, b)
        return losses.cosine_similarity(scale * a, scale * b), gradient * scale

    value, gradient = found(scales)
    np.testing.assert_allclose(value, [0.96] * 4, rtol=1e-6)
    assert finite(gradient)


def test_triplet_of_odd_degree_counts_absolute_differences():
    a, p, n = jnp.array([0.0, 0]), jnp.array([1.0, -1]), jnp.array([-3.0, 3])
    got = losses.triplet_margin_loss(a, p, n, norm_degree=1, eps=0.0, margin=5.0)
    np.testing.assert_allclose(got, 2 - 6 + 5)


def test_small_errors_keep_their_digits():
    np.testing.assert_allclose(losses.log_cosh(jnp.float32(1e-4)), 5e-9, rtol=1e-5)
    np.testing.assert_allclose(
        losses.sigmoid_binary_cross_entropy(jnp.float32(20), 1), np.exp(-20), rtol=1e-5
    )


def test_contrastive_without_pairs_or_without_negatives():
    x = np.float32(np.random.default_rng(0).normal(size=(4, 3)))
    found = jax.jit(jax.value_and_grad(losses.ntxent))
    for y in (np.arange(4, dtype=np.int32), np.zeros(4, np.int32)):
        value, gradient = found(x, y)
        assert value == 0
        assert not gradient.any()


def test_dice_of_nothing_is_zero():
    nothing = jnp.zeros((2, 4, 1))
    f = lambda p: losses.dice_loss(p, nothing, smooth=0.0, apply_softmax=False)
    np.testing.assert_array_equal(f(nothing), [0, 0])
    assert finite(jax.grad(lambda p: f(p).sum())(nothing))
    np.testing.assert_allclose(
        losses.binary_dice_loss(nothing[..., 0] + 0.5, nothing[..., 0], apply_sigmoid=False),
        1 - 1 / 2,
    )
    with pytest.raises(ValueError, match="must be probabilities"):
        losses.dice_loss(jnp.ones((2, 4, 3)), jnp.ones((2, 4, 3)), apply_softmax=False)
    with pytest.raises(ValueError, match="reduction must be mean, sum or none"):
        losses.dice_loss(nothing, nothing, reduction="max")
    with pytest.raises(ValueError, match=r"class_weights must have shape \(1,\), got \(3,\)"):
        losses.dice_loss(nothing, nothing, class_weights=jnp.ones(3))


def test_generalized_dice_is_not_silenced_by_an_absent_class():
    targets = onehot[np.array([[0, 0, 1, 1]])]
    loss = jax.jit(losses.multiclass_generalized_dice_loss)
    assert loss(-20 * targets, targets) > loss(20 * targets, targets) + 0.1


def brute_force_ctc(log_p, labels, blank):
    """Over all paths."""
    import itertools

    frames, K = log_p.shape
    total = -inf
    for path in itertools.product(range(K), repeat=frames):
        merged = [k for k, _ in itertools.groupby(path)]
        if [k for k in merged if k != blank] == list(labels):
            total = np.logaddexp(total, sum(log_p[t, k] for t, k in enumerate(path)))
    return -total


def test_ctc_is_the_sum_over_all_alignments():
    wanted = [[], [1], [1, 1], [2, 1], [1, 1, 2], [2, 2, 2]]
    x = np.float32(np.random.default_rng(0).normal(size=(1, 5, 3)))
    log_p = x[0] - np.log(np.exp(x[0]).sum(-1, keepdims=True))
    y = np.int32([[*labels, *[99] * (4 - len(labels))] for labels in wanted])
    absent = np.float32([[0.0] * len(labels) + [1.0] * (4 - len(labels)) for labels in wanted])

    def loss(x, y, absent):
        return losses.ctc_loss(x, jnp.zeros((1, 5)), y[None], absent[None])[0]

    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(loss), (None, 0, 0)))(x, y, absent)
    paths = [brute_force_ctc(log_p, labels, 0) for labels in wanted]
    np.testing.assert_allclose(values, paths, rtol=1e-5)
    assert finite(gradients)


def test_fenchel_young():
    loss = losses.make_fenchel_young_loss(logsumexp)
    x = np.float32(np.random.default_rng(0).normal(size=(2, 4, 3)))
    y = np.broadcast_to(onehot[0], (2, 4, 3))

    @jax.jit
    def found(x, y):
        gradient = jax.grad(lambda x: loss(x, y).sum())(x)
        return loss(x, y), losses.softmax_cross_entropy(x, y), gradient, jax.nn.softmax(x)

    got, wanted, gradient, p = found(x, y)
    np.testing.assert_allclose(got, wanted, rtol=1e-5)
    np.testing.assert_allclose(gradient, p - y, atol=1e-6)
    scaled = losses.make_fenchel_young_loss(lambda s, t: t * logsumexp(s / t))
    narrow = jax.ShapeDtypeStruct(x.shape, jnp.bfloat16)
    assert jax.eval_shape(lambda x: scaled(x, y, 2.0), narrow).shape == (2, 4)
    with pytest.raises(ValueError, match=r"\(2, 4, 3\).*\(4, 3\)"):
        loss(x, y[0])


def test_fenchel_young_gradients_are_the_slopes(x64):
    """By central differences in double precision."""
    loss = losses.make_fenchel_young_loss(lambda s: logsumexp(s) + 0.5 * jnp.sum(s * s))
    rng = np.random.default_rng(0)
    x, y, along, cotangent = (jnp.asarray(rng.normal(size=n)) for n in ((4, 3),) * 3 + (4,))
    total = jax.jit(lambda h: jnp.sum(cotangent * loss(x + h * along, y)))
    slope = (total(1e-6) - total(-1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(total)(0.0), slope, rtol=1e-6)


def test_numbers_out_of_range_are_named():
    x = jnp.zeros((2, 3))
    for call, words in (
        (lambda: losses.huber_loss(x, delta=0.0), "huber_loss: delta must be > 0, got 0"),
        (
            lambda: losses.huber_loss(x, delta=float("nan")),
            "huber_loss: delta must be > 0, got nan",
        ),
        (lambda: losses.huber_loss(x, delta=x), r"delta must be a scalar, got shape \(2, 3\)"),
        (lambda: losses.smooth_labels(x, 1.5), "smooth_labels: alpha must be >= 0 and <= 1"),
        (lambda: losses.smooth_labels(x.astype(int), 0.1), "labels must have a floating dtype"),
        (lambda: losses.sigmoid_focal_loss(x, x, gamma=-1.0), "gamma must be >= 0"),
        (lambda: losses.ntxent(x, jnp.zeros(2, int), 0.0), "temperature must be > 0"),
        (lambda: losses.ntxent(x, jnp.zeros(3, int)), r"labels must have shape \(2,\), got \(3,\)"),
        (lambda: losses.softmax_cross_entropy(x, x, axis=2), "axis 2 does not fit"),
        (lambda: losses.softmax_cross_entropy(x, x, axis=(0, -2)), "does not fit"),
        (
            lambda: losses.softmax_cross_entropy(x, x, where=jnp.ones(3, bool)),
            r"where must have shape \(2, 3\) or \(2,\), got \(3,\)",
        ),
        (lambda: losses.triplet_margin_loss(x, x, x, norm_degree=0.5), "norm_degree must be >= 1"),
        (lambda: losses.squared_error(x.astype(complex)), "predictions must have a floating dtype"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_hyperparameters_may_be_traced():
    x = jnp.array([0.5, 3.0])
    slope = jax.jit(jax.grad(lambda d: losses.huber_loss(x, delta=d).sum()))(1.0)
    np.testing.assert_allclose(slope, 3 - 1)
