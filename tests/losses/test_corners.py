"""Losses where they are hard: huge and infinite logits, ties, zeros, masks, empty rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp

import fnopt.losses as losses

inf = float("inf")
labels = jnp.array([0, 1, 2])
onehot = jnp.eye(3)


def finite(tree):
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("size", [1e4, 1e30, 3e38])
def test_huge_logits(size):
    x = size * jnp.array([[1.0, -1, 0], [1, -1, 0], [0, 0, 0]])
    for f in (
        lambda x: losses.softmax_cross_entropy(x, onehot),
        lambda x: losses.softmax_cross_entropy_with_integer_labels(x, labels),
        lambda x: losses.poly_loss_cross_entropy(x, onehot),
        lambda x: losses.multiclass_sparsemax_loss(x / 2, labels),
        lambda x: losses.sigmoid_binary_cross_entropy(x, onehot),
        lambda x: losses.sigmoid_focal_loss(x, onehot, gamma=0.5),
        lambda x: losses.log_cosh(x),
        lambda x: losses.huber_loss(x),
        lambda x: losses.ranking_softmax_loss(x, onehot),
        lambda x: losses.cosine_similarity(x, onehot),
    ):
        gradient = jax.grad(lambda x: jnp.sum(f(x) / 4))(x)
        assert finite(gradient)
        assert (size > 1e38) or finite(f(x))
    loss = losses.softmax_cross_entropy_with_integer_labels(x, labels)
    np.testing.assert_allclose(loss[jnp.array([0, 2])], [0, np.log(3)], rtol=1e-6)


@pytest.mark.parametrize(("dtype", "size"), [("bfloat16", 1e30), ("float16", 6e4)])
def test_huge_logits_in_low_precision(dtype, size):
    x = jnp.asarray(size * np.array([[1.0, -1, 0], [-1, 1, 0], [0, 0, 0]]), dtype)
    for f in (
        lambda x: losses.softmax_cross_entropy(x, onehot),
        lambda x: losses.softmax_cross_entropy_with_integer_labels(x, labels),
        lambda x: losses.poly_loss_cross_entropy(x, onehot),
        lambda x: losses.multiclass_sparsemax_loss(x, labels),
        lambda x: losses.multiclass_hinge_loss(x, labels),
        lambda x: losses.sigmoid_binary_cross_entropy(x, onehot),
        lambda x: losses.sigmoid_focal_loss(x, onehot),
        lambda x: losses.hinge_loss(x, 2 * onehot - 1),
        losses.log_cosh,
        losses.huber_loss,
        lambda x: losses.cosine_distance(x, onehot),
        lambda x: losses.dice_loss(x, onehot),
    ):
        value, pullback = jax.vjp(f, x)
        (gradient,) = pullback(jnp.ones_like(value))
        assert gradient.dtype == jnp.dtype(dtype)
        assert finite(value)
        assert finite(gradient)


def test_digits_survive_large_logits():
    """log Σ exp x - x_y taken as it stands would be off by 5e-4 here."""
    x = jnp.array([10000.0, 10000.5, 9990.0])
    want = np.log(np.exp(-0.5) + 1 + np.exp(-10.5))
    for got in (
        losses.softmax_cross_entropy(x, onehot[1]),
        losses.softmax_cross_entropy_with_integer_labels(x, jnp.int32(1)),
    ):
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_zero_times_infinity_is_zero():
    x = jnp.array([0.0, -inf, 1.0])
    y = jnp.array([0.25, 0.0, 0.75])
    for f in (losses.softmax_cross_entropy, losses.safe_softmax_cross_entropy):
        np.testing.assert_allclose(f(x, y), f(x[::2], y[::2]), rtol=1e-6)
        np.testing.assert_allclose(jax.grad(f)(x, y)[::2], jax.grad(f)(x[::2], y[::2]), atol=1e-6)
        assert finite(jax.grad(f, argnums=(0, 1))(x, y))
        assert f(x, onehot[1]) == inf
    integer = losses.softmax_cross_entropy_with_integer_labels
    assert finite(jax.grad(integer)(x, jnp.int32(2)))
    log_p = jnp.log(y)
    for f in (losses.kl_divergence, losses.generalized_kl_divergence):
        np.testing.assert_allclose(f(log_p, y), 0, atol=1e-7)
        assert finite(jax.grad(f, argnums=(0, 1))(log_p, y))
    f = losses.kl_divergence_with_log_targets
    np.testing.assert_allclose(f(log_p, log_p), 0, atol=1e-7)
    assert finite(jax.grad(f, argnums=(0, 1))(log_p, log_p))


def test_what_is_masked_has_no_say_even_if_it_is_not_a_number():
    mask = jnp.array([[True, True, False], [False, False, False]])
    bad, nan = jnp.where(mask, 0.5, jnp.nan), jnp.where(mask, 0.25, jnp.nan)
    for f in (
        losses.softmax_cross_entropy,
        losses.poly_loss_cross_entropy,
        losses.kl_divergence,
        losses.generalized_kl_divergence,
        losses.kl_divergence_with_log_targets,
        losses.cosine_similarity,
        losses.ranking_softmax_loss,
    ):
        assert finite(f(bad, nan, where=mask))
        total = lambda x, y: jnp.sum(f(x, y, where=mask))
        assert finite(jax.grad(total, argnums=(0, 1))(bad, nan))
    f = lambda x: losses.softmax_cross_entropy_with_integer_labels(x, jnp.array([0, 7]), where=mask)
    np.testing.assert_allclose(f(bad), [np.log(2), 0], rtol=1e-6)
    np.testing.assert_allclose(
        jax.grad(lambda x: jnp.sum(f(x)))(bad), [[-0.5, 0.5, 0], [0, 0, 0]], rtol=1e-6
    )
    assert finite(losses.smooth_labels(jnp.eye(3)[:2], 0.1, where=mask))
    assert losses.ranking_softmax_loss(bad, nan, where=jnp.zeros((2, 3), bool)) == 0


def test_not_a_number_is_not_hidden():
    x = jnp.array([[0.0, jnp.nan, 1.0], [0.0, 0.0, 0.0]])
    y = jnp.array([0, 0])
    for f in (
        losses.softmax_cross_entropy_with_integer_labels,
        losses.multiclass_hinge_loss,
        losses.multiclass_perceptron_loss,
        losses.multiclass_sparsemax_loss,
    ):
        np.testing.assert_array_equal(jnp.isnan(f(x, y)), [True, False])
    for f in (losses.log_cosh, losses.huber_loss, losses.squared_error):
        assert jnp.isnan(f(jnp.nan))
    assert jnp.isnan(losses.ranking_softmax_loss(x, onehot[:2]))


def test_gradients_at_zero_and_at_ties():
    zero = jnp.zeros(3)
    assert not jax.grad(lambda e: losses.huber_loss(e).sum())(zero).any()
    assert not jax.grad(lambda e: losses.log_cosh(e).sum())(zero).any()
    np.testing.assert_allclose(jax.grad(jax.grad(losses.log_cosh))(0.0), 1)
    for e in (2.0, -2.0):  # the seam of Huber's loss
        np.testing.assert_allclose(jax.grad(lambda e: losses.huber_loss(e, delta=2.0))(e), e)
    for e in (1.0, -1.0):  # the seam within log_cosh
        np.testing.assert_allclose(jax.grad(losses.log_cosh)(e), np.tanh(e), rtol=1e-6)
    # Kinks: the mean of both sides, so that a classifier of zeros moves.
    assert jax.grad(losses.hinge_loss)(1.0, 1.0) == -0.5
    assert jax.grad(losses.perceptron_loss)(0.0, -1.0) == 0.5
    gradient = jax.grad(losses.multiclass_perceptron_loss)(zero, jnp.int32(1))
    np.testing.assert_allclose(gradient, [1 / 3, -2 / 3, 1 / 3], rtol=1e-6)
    gradient = jax.grad(losses.multiclass_hinge_loss)(zero, jnp.int32(1))
    np.testing.assert_allclose(gradient, [0.5, -1, 0.5], rtol=1e-6)
    gradient = jax.grad(losses.multiclass_sparsemax_loss)(zero, jnp.int32(1))
    np.testing.assert_allclose(gradient, [1 / 3, -2 / 3, 1 / 3], rtol=1e-6)
    for x, slope in ((1.0, 0.0), (-1.0, -1.0), (0.0, -0.5)):
        assert jax.grad(losses.sparsemax_loss)(x, True) == slope


def test_zero_vectors():
    a, b = jnp.zeros((2, 3)), jnp.ones((2, 3))
    for f in (losses.cosine_similarity, losses.cosine_distance):
        for pair in ((a, b), (b, a), (a, a)):
            assert finite(f(*pair))
            gradient = jax.grad(lambda u, v: f(u, v).sum(), argnums=(0, 1))(*pair)
            assert not any(g.any() for g in gradient)
    assert finite(jax.grad(losses.ntxent)(a, jnp.array([0, 0])))
    triplet = jax.grad(lambda *t: losses.triplet_margin_loss(*t, eps=0.0).sum(), argnums=(0, 1, 2))
    assert finite(triplet(a, a, a))
    assert finite(triplet(a, a, b))


@pytest.mark.parametrize("scale", [1e-30, 1e-15, 1e15, 1e30])
def test_vectors_of_any_length(scale):
    a, b = jnp.array([3.0, 4.0]), jnp.array([4.0, 3.0])
    np.testing.assert_allclose(losses.cosine_similarity(scale * a, scale * b), 0.96, rtol=1e-6)
    assert finite(jax.grad(losses.cosine_similarity)(scale * a, b) * scale)


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
    x = jax.random.normal(jax.random.key(0), (4, 3))
    for y in (jnp.arange(4), jnp.zeros(4, jnp.int32)):
        value, gradient = jax.value_and_grad(losses.ntxent)(x, y)
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
    targets = jax.nn.one_hot(jnp.array([[0, 0, 1, 1]]), 3)
    right, wrong = 20 * targets, -20 * targets
    loss = losses.multiclass_generalized_dice_loss
    assert loss(wrong, targets) > loss(right, targets) + 0.1


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


@pytest.mark.parametrize("wanted", [[], [1], [1, 1], [2, 1], [1, 1, 2], [2, 2, 2]])
def test_ctc_is_the_sum_over_all_alignments(wanted):
    x = jax.random.normal(jax.random.key(0), (1, 5, 3))
    y = jnp.array([[*wanted, *[99] * (4 - len(wanted))]])
    absent = jnp.array([[0.0] * len(wanted) + [1.0] * (4 - len(wanted))])
    want = brute_force_ctc(np.asarray(jax.nn.log_softmax(x[0])), wanted, 0)
    f = jax.jit(jax.value_and_grad(lambda x: losses.ctc_loss(x, jnp.zeros((1, 5)), y, absent)[0]))
    value, gradient = f(x)
    np.testing.assert_allclose(value, want, rtol=1e-5)
    assert finite(gradient)


def test_fenchel_young():
    loss = losses.make_fenchel_young_loss(logsumexp)
    x, y = jax.random.normal(jax.random.key(0), (2, 4, 3)), jnp.broadcast_to(onehot[0], (2, 4, 3))
    np.testing.assert_allclose(loss(x, y), losses.softmax_cross_entropy(x, y), rtol=1e-5)
    np.testing.assert_allclose(
        jax.grad(lambda x: loss(x, y).sum())(x), jax.nn.softmax(x) - y, atol=1e-6
    )
    scaled = losses.make_fenchel_young_loss(lambda s, t: t * logsumexp(s / t))
    assert scaled(x.astype(jnp.bfloat16), y, 2.0).shape == (2, 4)
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
