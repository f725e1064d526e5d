"""The transformations that must keep the laws: every public factory, found from the package."""

import inspect

import jax
import jax.numpy as jnp
import optax

import fnopt
from fnopt.core import factories
from fnopt.leaves import is_inexact
from fnopt.optimizers.scion import Ball
from fnopt.projections import projection_box
from fnopt.testing import Builder

FACTORIES = factories(fnopt)


def add_params(updates, params):
    if params is None:
        raise ValueError("add_params needs params")
    return jax.tree.map(lambda u, p: u + 0.1 * p, updates, params)


def matrices(params):
    return jax.tree.map(lambda x: x.ndim > 1, params)


def by_ndim(params):
    return jax.tree.map(lambda x: "matrix" if x.ndim > 1 else "other", params)


def at_even_counts(count):
    return count % 2 == 0


def halve(update, param):
    return 0.5 * update


def twice(updates):
    """As the gradients of two single examples; what is no array stays."""
    return jax.tree.map(lambda u: jnp.stack([u, u]) if is_inexact(u) else u, updates)


def is_long(updates):
    return fnopt.global_norm(updates) > 1.0


def largest_entries(updates):
    return jax.tree.map(lambda u: jnp.max(jnp.abs(u), initial=0.0), updates)


def within_100(params):
    return projection_box(params, -100.0, 100.0)


# Every wrapper, around an optimizer of the caller's choice.
WRAPPERS = {
    "MultiSteps": lambda o: Builder(fnopt.MultiSteps, o, 2).allowing(1.1),
    "accumulate": lambda o: Builder(fnopt.accumulate, o, 2).allowing(1.1),
    "apply_if_finite": lambda o: Builder(fnopt.apply_if_finite, o, 5).allowing(1.1),
    "cautious": lambda o: Builder(fnopt.cautious, o).allowing(2.1),
    "asam": lambda o: Builder(fnopt.asam, o, rho=0.1).allowing(2.1),
    "conditionally_mask": lambda o: Builder(fnopt.conditionally_mask, o, at_even_counts).allowing(
        1.1
    ),
    "conditionally_transform": lambda o: Builder(
        fnopt.conditionally_transform, o, at_even_counts
    ).allowing(1.1),
    "dynamic_loss_scale": lambda o: Builder(fnopt.dynamic_loss_scale, o).allowing(1.1),
    "ema_params": lambda o: Builder(fnopt.ema_params, o, 0.9),
    "kahan": lambda o: Builder(fnopt.kahan, o).knowing(fnopt.master_params),
    "freeze": lambda o: Builder(fnopt.chain, o, fnopt.freeze(matrices)),
    "flatten": lambda o: Builder(fnopt.flatten, o).allowing(4.1),
    "grokfast": lambda o: Builder(fnopt.grokfast, o),
    "guard": lambda o: Builder(fnopt.guard, o, spike=8.0, max_consecutive=3).allowing(1.1),
    "lookahead": lambda o: Builder(fnopt.lookahead, o, 2, 0.5),
    "masked": lambda o: Builder(fnopt.masked, o, matrices),
    "master_weights": lambda o: Builder(fnopt.master_weights, o).knowing(fnopt.master_params),
    "mechanize": lambda o: Builder(fnopt.mechanize, o).allowing(2.1),
    "offload": lambda o: Builder(fnopt.offload, o),
    "orthograd": lambda o: Builder(fnopt.orthograd, o),
    "partition": lambda o: Builder(
        fnopt.partition, {"matrix": o, "other": fnopt.sgd(0.1)}, by_ndim, allow_unused=True
    ),
    "polyak_average": lambda o: Builder(fnopt.polyak_average, o),
    "route": lambda o: Builder(
        fnopt.route, {fnopt.where(min_ndim=2): o}, default=fnopt.lion(0.01), allow_unused=True
    ),
    "sam": lambda o: Builder(fnopt.sam, o).allowing(2.1),
    "schedule_free": lambda o: Builder(fnopt.schedule_free, o, 0.01),
    "selective_transform": lambda o: Builder(fnopt.selective_transform, o, freeze_mask=matrices),
    "split_master": lambda o: Builder(fnopt.split_master, o).knowing(fnopt.master_params),
    "split_real_and_imaginary": lambda o: Builder(fnopt.split_real_and_imaginary, o),
    # the codes of the last step are copied, for the params are computed after they are overwritten
    "store": lambda o: Builder(fnopt.store, o, {"mu": "int8"}, min_size=0).allowing(0.28),
    "share_matrices": lambda o: Builder(fnopt.share_matrices, o, "x"),
    "swa": lambda o: Builder(fnopt.swa, o, 1, 2),
    "zero": lambda o: Builder(fnopt.zero, o, "x").planning(
        lambda params: {"axis": fnopt.zero_plan(params, "x")}
    ),
}

# What they are wrapped around: a sign, a factored moment, a rate that the state finds.
MEMBERS = {
    "lion": fnopt.lion(0.01),
    "adafactor": fnopt.adafactor(0.01, min_dim_size_to_factor=2),
    "prodigy": fnopt.prodigy(),
}
WRAPPED = {
    f"{name} of {member}": wrap(optimizer)
    for name, wrap in WRAPPERS.items()
    for member, optimizer in MEMBERS.items()
}
# From 1e-6 the first steps are a few roundings of params near 1, so Prodigy's ⟨g, θ₀ − θ⟩ has two
# right digits in float32, whose further ones differ as the compiler contracts the interpolation.
WRAPPED["schedule_free of prodigy"] = WRAPPERS["schedule_free"](fnopt.prodigy(estim_lr0=1e-3))
WRAPPED_LAWS = ["L1", "L5", "L7", "L8", "L10", "L16", "L17"]

# Factories whose required arguments are not hyperparameters.
EXAMPLES = {
    **{name: wrap(fnopt.adam(0.01)) for name, wrap in WRAPPERS.items()},
    "freeze": Builder(fnopt.freeze, matrices),
    # a base without a rate of its own, so that there is one of the name
    "schedule_free": Builder(
        fnopt.schedule_free, fnopt.chain(fnopt.scale_by_adam(b1=0.0), fnopt.scale(-0.01)), 0.01
    ),
    "chain": Builder(fnopt.chain, fnopt.clip_by_global_norm(1.0), fnopt.adamw(0.01)),
    "monitor": Builder(
        fnopt.monitor,
        {
            "norm": fnopt.global_norm,
            "often_long": fnopt.measure_with_ema(is_long, 0.9),
            "largest": largest_entries,
        },
    ),
    "snapshot": Builder(fnopt.snapshot, "largest", largest_entries),
    "named_chain": Builder(fnopt.named_chain, clip=fnopt.clip(1.0), rule=fnopt.adam(0.01)),
    # a scalar's update is as long as the scalar, which a whole step would cancel
    "scale_by_lamb": Builder(fnopt.scale_by_lamb, weight_decay=0.1).stepping(-0.1),
    "stateless": Builder(fnopt.stateless, add_params),
    "stateless_with_tree_map": Builder(fnopt.stateless_with_tree_map, halve),
    "differentially_private_aggregate": Builder(
        fnopt.differentially_private_aggregate, 5.0, 0.0, key=0
    )
    .feeding(twice)
    .allowing(2.1),  # the two gradients are made inside the step
    "dpsgd": Builder(fnopt.dpsgd, 0.01, 5.0, 0.0, seed=0, momentum=0.9)
    .feeding(twice)
    .allowing(2.1),
    # with the hyperparameters that are None by default
    "nadamw": Builder(fnopt.nadamw, 0.01, momentum_decay=4e-3, mask=matrices),
    "scale_by_prodigy": Builder(fnopt.scale_by_prodigy, beta3=0.9),
    # the factors and bases of a matrix, four times as long as wide, are many times its size
    "soap": Builder(fnopt.soap, 0.01, shampoo_beta=0.9).allowing(30),
    **{
        name: Builder(getattr(fnopt, name), 0.9)
        for name in (
            "add_decayed_weights",
            "add_cautious_weight_decay",
            "add_independent_weight_decay",
            "add_weight_decay_to_start",
        )
    },
    # of a rank that divides no axis of the cube; draws are the same for each shape, in any order
    "scale_by_apollo": Builder(fnopt.scale_by_apollo, key=0, rank=2),
    "apollo": Builder(fnopt.apollo, 0.01, key=0, rank=2),
    "apollo_mini": Builder(fnopt.apollo_mini, 0.01, key=0),
    # a factor of the longer side is many times the matrix, and its successor likewise
    "psgd_kron": Builder(fnopt.psgd_kron, 0.01, key=0).allowing(25),
    # the singular value decomposition has the matrix and its factors
    "scale_by_galore": Builder(fnopt.scale_by_galore, rank=2).allowing(2.5),
    "galore": Builder(fnopt.galore, 0.01, rank=2, weight_decay=0.1).allowing(2.5),
    # a bounded set: from 1e20 float32 would not see the next update
    "project": Builder(fnopt.project, within_100),
    # with 1 and no rate a scalar steps by its own size: to zero, or near it as the rounding is
    "scale_by_trust_ratio": Builder(fnopt.scale_by_trust_ratio, trust_coefficient=0.5),
}


def quartic(params):
    """An objective whose Hessian is diag(1 + θ²) / 10."""
    squares = [jnp.real(p * jnp.conj(p)) for p in jax.tree.leaves(params)]
    return sum(jnp.sum(s / 2 + s**2 / 12) for s in squares) / 10


def logits(params):
    """Two logits for each of two rows, that every parameter has a part in."""
    total = jnp.asarray(sum(jnp.sum(jnp.real(p)) for p in jax.tree.leaves(params)) + 0.0)
    return jnp.array([[0.3, -0.2], [-0.15, 0.1]], total.dtype) * total


def curvature(updates, params):
    return {"hessian": jax.tree.map(lambda u: 0.5 + 0 * u if is_inexact(u) else u, updates)}


def logits_of_leaves(updates, params):
    """Too large, for each leaf as for a query of one head."""
    return {
        "max_logits": jax.tree.map(
            lambda p: jnp.full((1,), 150.0) if is_inexact(p) and jnp.ndim(p) else None, params
        )
    }


# Factories whose `update` needs extra arguments, and these.
EXTRAS = {
    **dict.fromkeys(("momo", "scale_by_momo", "momo_adam", "scale_by_momo_adam"), {"value": 1.5}),
    **dict.fromkeys(("polyak_sgd", "scale_by_polyak", "reduce_on_plateau"), {"value": 1.5}),
    **dict.fromkeys(
        ("sophia", "scale_by_sophia", "hutchinson_estimator_diag_hessian"),
        {"obj_fn": quartic, "key": jax.random.key(0)},
    ),
    "gauss_newton_bartlett_estimator_diag_hessian": {
        "logits_fn": logits,
        "key": jax.random.key(0),
    },
    **dict.fromkeys(("adahessian", "scale_by_adahessian"), curvature),
}


def by_rank(params):
    """A norm of Scion's for each number of dimensions."""
    balls = {1: Ball("sign", 0.5), 2: Ball("col", 3.0), 3: "conv"}
    return jax.tree.map(lambda p: balls.get(p.ndim, "bias"), params)


def numbered(params):
    """The first axis as inputs and the last as outputs, of all but vectors and scalars."""
    return jax.tree.map(
        lambda p: fnopt.MatrixDimensionNumbers(0, -1) if jnp.ndim(p) > 1 else None, params
    )


# PyTorch's layout, and each leaf's axes told.
OUT_IN = {"layout": "out_in", "dimension_numbers": numbered}

# Configurations in which a factory is another rule than by default.
CONFIGURATIONS = {
    "sgd with momentum": Builder(fnopt.sgd, 0.01, momentum=0.9),
    "sgd with an int8 trace": Builder(
        fnopt.sgd, 0.01, momentum=0.9, accumulator_dtype="int8"
    ).allowing(0.3),  # a CPU copies the narrow trace, whose old values the step still reads
    "sgd with nesterov": Builder(fnopt.sgd, 0.01, momentum=0.9, nesterov=True),
    "rmsprop centered": Builder(fnopt.rmsprop, 0.01, centered=True),
    "rmsprop with momentum": Builder(fnopt.rmsprop, 0.01, momentum=0.9, nesterov=True).allowing(
        1.1
    ),  # the quotient that the velocity and the step both read is stored, once
    "rmsprop with eps outside": Builder(fnopt.rmsprop, 0.01, eps_in_sqrt=False),
    "rmsprop corrected": Builder(fnopt.rmsprop, 0.01, bias_correction=True, eps_in_sqrt=False),
    "adam with nesterov": Builder(fnopt.adam, 0.01, nesterov=True),
    "adam without a mean": Builder(fnopt.adam, 0.01, b1=0.0),
    "adam with a bfloat16 mean": Builder(fnopt.adam, 0.01, mu_dtype=jnp.bfloat16).allowing(
        0.55
    ),  # the mean is copied likewise
    "adabelief with nesterov": Builder(fnopt.adabelief, 0.01, nesterov=True),
    "adahessian entry by entry": Builder(
        fnopt.adahessian, 0.01, hessian_power=0.5, spatial_averaging=False, weight_decay=0.1
    )
    .calling(curvature)
    .allowing(1.1),
    "amsgrad of the corrected": Builder(
        fnopt.amsgrad, 0.01, bias_correction_mu=False, max_of_corrected=True
    ),
    "dadapt_adamw corrected": Builder(
        fnopt.dadapt_adamw, weight_decay=0.1, growth_rate=2.0, bias_correction=True
    ),
    "ftrl regularized": Builder(fnopt.ftrl, 0.01, l1=0.1, l2=0.1).allowing(1.1),
    "lamb decayed": Builder(fnopt.lamb, 0.01, weight_decay=0.1, mask=matrices),
    "lars of one norm": Builder(fnopt.lars, 0.01, weight_decay=0.1, separate_norms=False),
    "mars_adamw of every leaf": Builder(fnopt.mars_adamw, 0.01, weight_decay=0.1, optimize_1d=True),
    "madgrad without momentum": Builder(fnopt.madgrad, 0.01, momentum=0.0, weight_decay=0.1),
    "momo adapting": Builder(
        fnopt.momo, weight_decay=0.1, lower_bound=-1.0, adapt_lower_bound=True
    ).calling(value=1.5),
    "momo_adam adapting": Builder(
        fnopt.momo_adam, weight_decay=0.1, lower_bound=-1.0, adapt_lower_bound=True
    ).calling(value=1.5),
    "adamw masked": Builder(fnopt.adamw, 0.01, weight_decay=0.1, mask=matrices),
    "adamw with independent decay": Builder(
        fnopt.adamw, 0.01, weight_decay=0.1, mask=fnopt.no_decay_on_vectors, decay="independent"
    ),
    "lion with cautious decay": Builder(fnopt.lion, 0.01, weight_decay=0.1, decay="cautious"),
    "add_weight_decay_to_start masked": Builder(fnopt.add_weight_decay_to_start, 0.9, matrices),
    "galore of other moments": Builder(
        fnopt.galore, 0.01, update_proj_gap=2, base_optimizer=fnopt.scale_by_lion()
    ).allowing(None),  # at full rank
    "adafactor factored": Builder(
        fnopt.adafactor,
        0.01,
        min_dim_size_to_factor=2,
        momentum=0.9,
        weight_decay_rate=0.1,
        clipping_threshold=1.0,
    ),
    "scale_by_adafactor decayed": Builder(
        fnopt.scale_by_adafactor, momentum=0.9, weight_decay_rate=0.1
    ),
    "dog decayed": Builder(fnopt.dog, weight_decay=0.1).allowing(1.1),
    "dowg decayed": Builder(fnopt.dowg, weight_decay=0.1, init_estim_sq_dist=1e-4).allowing(
        1.1
    ),  # the decayed gradient is stored, for its norm and the step
    "scale_by_dowg from a distance": Builder(fnopt.scale_by_dowg, 1e-4),
    "schedule_free_sgd decayed": Builder(
        fnopt.schedule_free_sgd, 0.01, warmup_steps=4, weight_decay=0.1
    ),
    "adan decoupled": Builder(fnopt.adan, 0.01, weight_decay=0.1, proximal=False),
    "adopt with nesterov": Builder(fnopt.adopt, 0.01, nesterov=True, weight_decay=0.1).allowing(
        1.1
    ),  # the normalized gradient, which the mean and the look-ahead read
    "kahan of sgd": Builder(fnopt.kahan, fnopt.sgd(0.5)).knowing(fnopt.master_params),
    "lars decayed": Builder(fnopt.lars, 0.01, weight_decay=0.1, nesterov=True),
    "master_weights of adamw": Builder(
        fnopt.master_weights, fnopt.adamw(0.01, weight_decay=0.1)
    ).knowing(fnopt.master_params),
    "MultiSteps of bfloat16 sums": Builder(
        fnopt.MultiSteps, fnopt.adam(0.01), 2, accumulator_dtype=jnp.bfloat16
    ).allowing(2.1),  # the sum before it is rounded, which the step is made from, and the updates
    "muon by its numbers": Builder(
        fnopt.muon,
        0.01,
        "polar_express",
        weight_decay=0.1,
        nesterov=False,
        scale="moonlight",
        **OUT_IN,
    ).allowing(3.6),
    "normuon by its numbers": Builder(
        fnopt.normuon,
        0.01,
        weight_decay=0.1,
        nesterov=False,
        scale="moonlight",
        **OUT_IN,
    ).allowing(3.6),
    "adamuon ahead": Builder(
        fnopt.adamuon,
        0.01,
        weight_decay=0.1,
        nesterov=True,
        **OUT_IN,
    ).allowing(3.6),
    "dion of rank 2": Builder(fnopt.dion, 0.01, rank=2, **OUT_IN).allowing(3.6),
    "mars_muon ahead": Builder(
        fnopt.mars_muon,
        0.01,
        weight_decay=0.1,
        nesterov=True,
        scale="spectral",
        **OUT_IN,
    ).allowing(4.6),
    "muon_clip of every leaf": Builder(fnopt.muon_clip, 0.01, query="", key=None)
    .calling(logits_of_leaves)
    .allowing(3.6),
    "psgd_kron by triangles": Builder(
        fnopt.psgd_kron,
        0.01,
        weight_decay=0.1,
        key=0,
        form="triangular",
        update_probability=0.5,
        max_size_triangular=3,
        **OUT_IN,
    ).allowing(25),
    "shampoo by Newton's roots": Builder(
        fnopt.shampoo, 0.01, b3=0.5, grafting="rmsprop", update_every=2, root="newton"
    ).allowing(36),  # the iteration has a matrix's powers besides
    "clip_attention_logits of every leaf": Builder(
        fnopt.clip_attention_logits, query="", key=None
    ).calling(logits_of_leaves),
    "nadam warmed up": Builder(fnopt.nadam, 0.01, momentum_decay=4e-3),
    "novograd with decay": Builder(fnopt.novograd, 0.01, weight_decay=0.1),
    "polyak_sgd sps+": Builder(fnopt.polyak_sgd, variant="sps+", f_min=0.5).calling(value=1.5),
    "prodigy sliced": Builder(
        fnopt.prodigy,
        betas=(0.8, 0.99),
        weight_decay=0.1,
        safeguard_warmup=True,
        growth_rate=2.0,
        slice_p=2,
        bias_correction=True,
        beta3=0.9,
    ).allowing(1.1),  # the slices, half of the gradients and of the params, are stored for a sum
    "radam with nesterov": Builder(fnopt.radam, 0.01, nesterov=True),
    "rprop with backtracking": Builder(fnopt.rprop, 0.01, backtracking=True).allowing(
        2.1
    ),  # the last steps are copied too
    "schedule_free_sgd with a bfloat16 z": Builder(
        fnopt.schedule_free_sgd, 0.01, state_dtype=jnp.bfloat16
    ).allowing(0.55),  # copied likewise
    "shampoo of sums in blocks": Builder(
        fnopt.shampoo,
        0.01,
        0.0,
        1.0,
        weight_decay=0.1,
        grafting="none",
        update_every=2,
        start_preconditioning_step=1,
        block_size=2,
        dimension_numbers=numbered,
    ).allowing(None),  # hundreds of thousands of factors for one leaf
    "scion with several norms": Builder(fnopt.scion, 0.01, norms=by_rank),
    "scion unconstrained": Builder(fnopt.scion, 0.01, 1.0, norms="row", constrained=False),
    "sm3 averaging": Builder(fnopt.scale_by_sm3, b2=0.9),
    "sophia with the Gauss-Newton-Bartlett estimator": Builder(
        fnopt.sophia,
        0.01,
        gamma=0.05,
        hessian_diagonal_fn=fnopt.gauss_newton_bartlett_estimator_diag_hessian(),
        bias_correction=True,
    ).calling(logits_fn=logits, key=jax.random.key(0)),
    "store of both moments": Builder(
        fnopt.store, fnopt.adamw(0.01), {"mu": "int8", "nu": "uint8"}, block=2, min_size=0
    ).allowing(2.6),  # of two entries a scale is the larger part
    "adamw_8bit of small leaves": Builder(fnopt.adamw_8bit, 0.01, min_size=0).allowing(0.53),
    "store in 4 bits": Builder(
        fnopt.store, fnopt.adamw(0.01), {"mu": "int4", "nu": "uint4"}, min_size=0
    ).allowing(0.28),
    "store in narrow floats": Builder(
        fnopt.store, fnopt.adamw(0.01), {"mu": "bfloat16", "nu": "bfloat16"}, min_size=0
    ).allowing(1.01),
    "store of iterates": Builder(
        fnopt.store, fnopt.schedule_free_sgd(0.01), {"z": "bfloat16", "x": "bfloat16"}, min_size=0
    ).allowing(1.01),
    "trace with nesterov": Builder(fnopt.trace, 0.9, nesterov=True),
    "adam scheduled": Builder(fnopt.adam, fnopt.schedules.cosine_decay_schedule(0.01, 100)),
    "adam tunable": Builder(fnopt.adam, fnopt.Tunable(0.01), b1=fnopt.Tunable(0.9)),
}

# An optax transformation inside a chain keeps the laws that the boundary gives it; its own
# numbers and its identity stay what they are.
FOREIGN = Builder(fnopt.chain, optax.scale_by_adam(), fnopt.scale_by_learning_rate(0.01))
FOREIGN_LAWS = ["L1", "L2", "L3", "L7", "L8", "L9", "L10", "L13", "L15", "L16", "L17"]


def required(factory):
    """The parameters that a call must give, apart from *args and **kwargs."""
    parameters = inspect.signature(factory).parameters.values()
    plain = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return [p.name for p in plain if p.default is p.empty]


def has_example(factory):
    """Whether a call can be made from the kinds alone."""
    parameters = inspect.signature(factory).parameters.values()
    variadic = any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)
    return not variadic and all(name in factory.kinds for name in required(factory))


def example_value(kind):
    """0.01 for a rate, else 0.9 if it may be, else the first number that may be."""
    candidates = (0.01,) if kind.tracked else (0.9, 0.5, 2.0, 10.0, 0.0, -1.0)
    return next(value for value in candidates if kind.contains(value))


# Arguments that have a default, without which the factory cannot be called all the same.
KEYED = dict.fromkeys(("add_noise", "noisy_sgd", "differentially_private_aggregate"), {"key": 0})


def from_kinds(factory):
    """A builder of the factory with each required hyperparameter at an example of its kind."""
    values = {name: example_value(factory.kinds[name]) for name in required(factory)}
    builder = Builder(factory, **values, **KEYED.get(factory.__name__, {}))
    if factory.__name__ in KEYED:
        builder = builder.drawing()
    extras = EXTRAS.get(factory.__name__)
    if extras is None:
        return builder
    return builder.calling(extras) if callable(extras) else builder.calling(**extras)


# What L18 allows a factory beyond the usual, by name; None where it promises nothing.
BOUNDS = {
    # the sum of squares is copied, for the params are computed after it is overwritten
    "scale_by_ftrl": 1.1,
    "ftrl": 1.1,
    # the normalized gradient, which its mean and its instability both read
    "scale_by_came": 1.1,
    "came": 1.1,
    # the start values' place in the step is read after the sums are overwritten
    "scale_by_cocob": 1.1,
    "cocob": 1.1,
    # the step needs the moment from before, which is copied, for it is overwritten first
    "scale_by_acprop": 1.1,
    "acprop": 1.1,
    "scale_by_adadelta": 1.1,
    "adadelta": 1.1,
    # the Hessian's diagonal itself, which is made inside the step
    "scale_by_adahessian": 1.1,
    "adahessian": 1.1,
    # a CPU stores the random bits, two words for each number, before and after their rounds
    "add_noise": 4.1,
    "noisy_sgd": 4.1,
    # the last gradient is copied, for the params are computed after it is overwritten
    "scale_by_optimistic_gradient": 1.1,
    "optimistic_gradient_descent": 1.1,
    # and Adam's direction is stored, which the state and the step both read
    "optimistic_adam_v2": 2.1,
    # the last signs are copied likewise
    "scale_by_rprop": 1.1,
    "rprop": 1.1,
    # Newton-Schulz has a matrix, its successor and their Gram matrix, here a quarter of them
    "scale_by_muon": 3.6,  # of one matrix also the momentum ahead, and the products at the end
    "muon": 3.6,
    "normuon": 3.6,
    "adamuon": 3.6,
    "dion": 3.6,
    "mars_muon": 4.6,
    "muon_clip": 3.6,
    # factors of the longer side are many times the matrix, and a decomposition has three of them
    "shampoo": 20,
    "scale_by_scion": 2.8,  # the matrices of equal sides are put together
    "scion": 2.8,
    # copies of the codes of the last step
    "adamw_8bit": 0.53,
    "adamw_4bit": 0.28,
    "adamw_bf16_state": 1.01,
    "lion_8bit": 0.28,
    # one byte for each entry of the largest leaf says whether it is NaN
    "zero_nans": 0.26,
}

BY_KINDS = {
    name: from_kinds(factory).allowing(BOUNDS.get(name, 0.25))
    for name, factory in FACTORIES.items()
    if has_example(factory)
}
SUBJECTS = BY_KINDS | EXAMPLES | CONFIGURATIONS
