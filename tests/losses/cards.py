"""One card per loss: arguments that fit it, and which of them have a derivative."""

import numpy as np

import fnopt.losses as losses

rng = np.random.default_rng(0)


def normal(*shape):
    return rng.normal(size=shape)


def simplex(*shape):
    e = np.exp(rng.normal(size=shape))
    return e / e.sum(-1, keepdims=True)


def integers(high, *shape):
    return rng.integers(0, high, size=shape).astype(np.int32)


def onehot(labels, n):
    return np.eye(n)[labels]


signs = np.sign(normal(4, 3))
mask = np.array([[1, 1, 0], [1, 1, 1], [0, 0, 0], [0, 1, 1]], bool)
rows = np.array([1, 1, 0, 1], bool)
log_p = np.log(simplex(4, 3))
ctc = (
    normal(3, 9, 5),
    np.array([[0] * 9, [0] * 7 + [1] * 2, [0] * 9]),
    np.array([[1, 2, 2, 3], [4, 4, 0, 0], [1, 0, 0, 0]], np.int32),
    np.array([[0] * 4, [0, 0, 1, 1], [0, 1, 1, 1]]),
)
map_4x3x3 = onehot(integers(3, 2, 4, 3), 3)

# (name, args, kwargs, positions of the arguments to differentiate by)
CARDS = [
    ("softmax_cross_entropy", (normal(4, 3), simplex(4, 3)), {}, (0, 1)),
    ("softmax_cross_entropy", (normal(4, 3), simplex(4, 3)), {"axis": 0}, (0, 1)),
    ("softmax_cross_entropy", (normal(4, 3), simplex(4, 3)), {"axis": None}, (0, 1)),
    ("softmax_cross_entropy", (normal(4, 3), simplex(4, 3)), {"where": rows}, (0,)),
    ("safe_softmax_cross_entropy", (normal(4, 3), simplex(4, 3)), {}, (0, 1)),
    ("softmax_cross_entropy_with_integer_labels", (normal(4, 3), integers(3, 4)), {}, (0,)),
    (
        "softmax_cross_entropy_with_integer_labels",
        (normal(3, 4), integers(3, 4)),
        {"axis": 0},
        (0,),
    ),
    (
        "softmax_cross_entropy_with_integer_labels",
        (normal(2, 3, 4), integers(12, 2)),
        {"axis": (2, 1)},
        (0,),
    ),
    (
        "softmax_cross_entropy_with_integer_labels",
        (normal(4, 3), np.array([1, 2, 0, 1])),
        {"where": mask},
        (0,),
    ),
    ("sigmoid_binary_cross_entropy", (normal(4, 3), rng.uniform(size=(4, 3))), {}, (0, 1)),
    ("sigmoid_focal_loss", (normal(4, 3), rng.uniform(size=(4, 3))), {}, (0, 1)),
    (
        "sigmoid_focal_loss",
        (normal(4, 3), integers(2, 4, 3)),
        {"alpha": 0.25, "gamma": 0.5},
        (0,),
    ),
    ("poly_loss_cross_entropy", (normal(4, 3), simplex(4, 3)), {}, (0, 1)),
    (
        "poly_loss_cross_entropy",
        (normal(4, 3), simplex(4, 3)),
        {"epsilon": -1.0, "axis": 0},
        (0, 1),
    ),
    ("kl_divergence", (log_p, simplex(4, 3)), {}, (0, 1)),
    ("kl_divergence", (log_p, simplex(4, 3)), {"axis": (0, 1), "where": mask}, (0, 1)),
    ("kl_divergence_with_log_targets", (log_p, np.log(simplex(4, 3))), {}, (0, 1)),
    ("kl_divergence_with_log_targets", (log_p, normal(4, 3)), {"axis": 0, "where": mask}, (0, 1)),
    ("generalized_kl_divergence", (normal(4, 3), simplex(4, 3) + 1), {}, (0, 1)),
    ("generalized_kl_divergence", (normal(4, 3), simplex(4, 3)), {"where": mask}, (0, 1)),
    ("convex_kl_divergence", (normal(4, 3), simplex(4, 3)), {}, (0, 1)),
    ("ctc_loss", ctc, {}, (0,)),
    ("ctc_loss", ctc, {"blank_id": 3, "log_epsilon": -1e4}, (0,)),
    ("ctc_loss_with_forward_probs", ctc, {}, (0,)),
    ("hinge_loss", (normal(4, 3), signs), {}, (0,)),
    ("perceptron_loss", (normal(4, 3), signs), {}, (0,)),
    ("sparsemax_loss", (2 * normal(4, 3), integers(2, 4, 3)), {}, (0,)),
    ("multiclass_hinge_loss", (normal(4, 3), integers(3, 4)), {}, (0,)),
    ("multiclass_perceptron_loss", (normal(4, 3), integers(3, 4)), {}, (0,)),
    ("multiclass_sparsemax_loss", (normal(6, 5), integers(5, 6)), {}, (0,)),
    ("squared_error", (normal(4, 3), normal(4, 3)), {}, (0, 1)),
    ("squared_error", (normal(4, 3),), {}, (0,)),
    ("l2_loss", (normal(4, 3), normal(4, 3)), {}, (0, 1)),
    ("huber_loss", (2 * normal(4, 3), normal(4, 3)), {"delta": 0.7}, (0, 1)),
    ("log_cosh", (2 * normal(4, 3), normal(4, 3)), {}, (0, 1)),
    ("cosine_similarity", (normal(4, 3), normal(4, 3)), {}, (0, 1)),
    ("cosine_similarity", (normal(4, 3), normal(4, 3)), {"axis": 0, "epsilon": 9.0}, (0, 1)),
    ("cosine_distance", (normal(4, 3), normal(4, 3)), {"axis": None, "where": mask}, (0, 1)),
    ("ranking_softmax_loss", (normal(4, 3), integers(4, 4, 3)), {}, (0,)),
    (
        "ranking_softmax_loss",
        (normal(4, 3), rng.uniform(size=(4, 3))),
        {"where": mask, "weights": rng.uniform(size=(4, 3))},
        (0, 1),
    ),
    (
        "ranking_softmax_loss",
        (normal(4, 3), simplex(4, 3)),
        {"where": mask, "reduce_fn": None},
        (0,),
    ),
    ("smooth_labels", (simplex(4, 3), 0.1), {}, (0,)),
    ("smooth_labels", (simplex(4, 3), 0.1), {"axis": 0, "where": mask}, (0,)),
    ("dice_loss", (normal(2, 4, 3, 3), map_4x3x3), {}, (0, 1)),
    (
        "dice_loss",
        (simplex(2, 4, 3, 3), map_4x3x3),
        {
            "apply_softmax": False,
            "class_weights": np.array([1.0, 2.0, 3.0]),
            "alpha": 0.3,
            "beta": 0.7,
            "reduction": "none",
            "ignore_background": True,
        },
        (1,),
    ),
    ("dice_loss", (normal(2, 4, 1), integers(2, 2, 4)), {"reduction": "sum", "smooth": 0.1}, (0,)),
    ("dice_loss", (normal(2, 4, 3), normal(2, 4, 3)), {"axis": (0, 1)}, (0,)),
    ("multiclass_generalized_dice_loss", (normal(2, 4, 3, 3), map_4x3x3), {}, (0,)),
    ("binary_dice_loss", (normal(2, 4), integers(2, 2, 4)), {}, (0,)),
    ("ntxent", (normal(6, 3), np.array([0, 1, 0, 1, 2, 2], np.int32)), {}, (0,)),
    ("ntxent", (normal(6, 3), np.array([0, 0, 0, 1, 1, 2], np.int32)), {"temperature": 0.5}, (0,)),
    ("triplet_margin_loss", (normal(4, 3), normal(4, 3), normal(4, 3)), {}, (0, 1, 2)),
    (
        "triplet_margin_loss",
        (normal(4, 3), normal(4, 3), normal(4, 3)),
        {"axis": 0, "norm_degree": 4, "margin": 0.5},
        (0, 1, 2),
    ),
]
IDS = [f"{i}-{name}" for i, (name, *_) in enumerate(CARDS)]


def loss(name):
    return getattr(losses, name)
