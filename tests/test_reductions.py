"""What reduces over leaves that are in parts, inside `shard_map` and `pmap`: as on one device."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

import fnopt
from fnopt.core import factories
from fnopt.testing.laws.subject import dead, differences, not_finite

STEPS = 20
SHAPES = {"wide": (8, 24), "bias": (16,), "gain": ()}
SQUARE = {"two": (8, 8)} | SHAPES
BLOCKS = {"one": (8, 8)} | SQUARE
AXIS = jax.P("data")


def numbers(seed, *leading, shapes=SHAPES):
    """Multiples of 1/256, so that their sums over devices are exact in any order."""
    rng = np.random.default_rng(seed)

    def leaf(shape):
        return np.float32(np.round(256 * rng.normal(size=(*leading, *shape))) / 256)

    return {name: leaf(shape) for name, shape in shapes.items()}


def mesh():
    return jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))


def trained(optimizer, params, gradients, extras=lambda g: {}):
    """The params after as many steps as there are gradients, all one program."""

    def step(carry, gradient):
        params, state = carry
        updates, state = optimizer.update(gradient, state, params, **extras(gradient))
        return (fnopt.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, optimizer.init(params)), gradients)[0][0]


# Leaves in parts, each along its first dimension; a scalar on every device

SPLIT = {name: AXIS if shape else jax.P() for name, shape in BLOCKS.items()}


def hessian(gradients):
    return {"hessian": jax.tree.map(lambda g: 0.5 + jnp.abs(g), gradients)}


def value(gradients):
    return {"value": 1.5}


def blocks(name, shape):
    """Along the first axis one, half as many as devices, as many as rows; of a vector two."""
    counts = {"one": (1, 2), "two": (2, 8), "wide": (8, 3), "bias": (2,), "gain": ()}
    return counts[name]


IN_PARTS = {
    "apollo": (fnopt.apollo, (0.01,), {"key": 0, "rank": 3, "update_proj_gap": 7}),
    "apollo_mini": (fnopt.apollo_mini, (0.01,), {"key": 0}),
    "galore": (fnopt.galore, (0.01,), {"rank": 3, "update_proj_gap": 7}),
    "adafactor": (fnopt.adafactor, (0.01, 2), {"momentum": 0.9, "weight_decay_rate": 0.1}),
    "adam_mini": (fnopt.adam_mini, (0.01,), {"blocks": blocks}),
    "adamw_4bit": (fnopt.adamw_4bit, (0.01,), {"min_size": 0, "block": 5}),
    "adamw_8bit": (fnopt.adamw_8bit, (0.01,), {"min_size": 16, "block": 4}),
    "adamw_bf16_state": (fnopt.adamw_bf16_state, (0.01,), {}),
    "add_noise": (fnopt.add_noise, (0.01, 0.55, 0), {}),
    "adahessian": (fnopt.adahessian, (0.01,), {}, hessian),
    "adaptive_grad_clip": (fnopt.adaptive_grad_clip, (0.01,), {}),
    "apply_if_finite": (fnopt.apply_if_finite, (fnopt.adam(0.01), 30), {}),
    "asam": (fnopt.asam, (fnopt.adam(0.01),), {}),
    "came": (fnopt.came, (0.01,), {}),
    "cautious": (fnopt.cautious, (fnopt.adam(0.01),), {}),
    "centralize": (fnopt.centralize, (), {}),
    "clip_by_block_rms": (fnopt.clip_by_block_rms, (0.5,), {}),
    "clip_by_global_norm": (fnopt.clip_by_global_norm, (1.0,), {}),
    "dadapt_adamw": (fnopt.dadapt_adamw, (), {"estim_lr0": 1e-3}),
    "dog": (fnopt.dog, (), {"init_step": ("heuristic", 1e-3)}),
    "dowg": (fnopt.dowg, (), {"init_estim_sq_dist": 1e-4}),
    "dynamic_loss_scale": (fnopt.dynamic_loss_scale, (fnopt.adam(0.01),), {}),
    "fromage": (fnopt.fromage, (0.01,), {}),
    "guard": (fnopt.guard, (fnopt.adam(0.01),), {"spike": 1.05, "max_consecutive": 30}),
    "lamb": (fnopt.lamb, (0.01,), {"weight_decay": 0.1}),
    "lars": (fnopt.lars, (1.0,), {"weight_decay": 0.1}),
    "lion_8bit": (fnopt.lion_8bit, (0.01,), {"min_size": 0}),
    "mars_adamw": (fnopt.mars_adamw, (0.01,), {}),
    "mars_lion": (fnopt.mars_lion, (0.01,), {}),
    "mechanize": (fnopt.mechanize, (fnopt.adam(0.01),), {"s_init": 1e-3}),
    "momo": (fnopt.momo, (), {}, value),
    "momo_adam": (fnopt.momo_adam, (), {}, value),
    "noisy_sgd": (fnopt.noisy_sgd, (0.1,), {"key": 0}),
    "normalize_by_update_norm": (fnopt.normalize_by_update_norm, (), {}),
    "novograd": (fnopt.novograd, (0.01,), {}),
    "orthograd": (fnopt.orthograd, (fnopt.adam(0.01),), {}),
    "polyak_sgd": (fnopt.polyak_sgd, (), {}, value),
    "prodigy": (fnopt.prodigy, (), {"estim_lr0": 1e-3}),
    "sam": (fnopt.sam, (fnopt.adam(0.01),), {}),
    "scale_by_distance_over_gradients": (
        fnopt.scale_by_distance_over_gradients,
        (1e-3,),
        {"global_scale": -1.0},
    ),
    "scale_by_factored_rms": (fnopt.scale_by_factored_rms, (), {"min_dim_size_to_factor": 2}),
    "scale_by_param_block_norm": (fnopt.scale_by_param_block_norm, (), {}),
    "scale_by_param_block_rms": (fnopt.scale_by_param_block_rms, (), {}),
    "scale_by_trust_ratio": (fnopt.scale_by_trust_ratio, (), {}),
    "sm3": (fnopt.sm3, (0.1,), {}),
    "store": (fnopt.store, (fnopt.momentum(0.01), {"trace": "dynamic8"}), {"min_size": 0}),
    "stable_adamw": (fnopt.stable_adamw, (0.01,), {"weight_decay": 0.1}),
}


# Looked at within the optimizer that they are the rule of.
PARTS_OF_THESE = {
    "scale_by_apollo": "apollo",
    "scale_by_galore": "galore",
    "scale_by_adafactor": "adafactor",
    "scale_by_adahessian": "adahessian",
    "scale_by_adam_mini": "adam_mini",
    "scale_by_came": "came",
    "scale_by_dadapt_adamw": "dadapt_adamw",
    "scale_by_dog": "dog",
    "scale_by_dowg": "dowg",
    "scale_by_fromage": "fromage",
    "scale_by_lamb": "lamb",
    "scale_by_lars": "lars",
    "scale_by_mars": "mars_adamw",
    "scale_by_momo": "momo",
    "scale_by_momo_adam": "momo_adam",
    "scale_by_novograd": "novograd",
    "scale_by_polyak": "polyak_sgd",
    "scale_by_prodigy": "prodigy",
    "scale_by_sm3": "sm3",
    "scale_by_stable_adam": "stable_adamw",
}


# In tests/test_draws_in_parts.py.
DRAWS = {
    "differentially_private_aggregate",
    "dpsgd",
    "hutchinson_estimator_diag_hessian",
}

# In tests/optimizers/test_in_parts.py.
MATRICES = {
    "adamuon",
    "dion",
    "mars_muon",
    "muon",
    "normuon",
    "psgd_kron",
    "scion",
    "shampoo",
    "soap",
}
MATRICES |= {"muon_clip", "clip_attention_logits", "scale_by_muon", "scale_by_scion"}


def test_every_factory_that_is_told_of_parts_is_looked_at():
    told = {
        name
        for name, factory in factories(fnopt).items()
        if "axis_name" in inspect.signature(factory).parameters
    }
    assert told == {*IN_PARTS, *PARTS_OF_THESE, *DRAWS, *MATRICES}


# The others have no rule that tells rows from columns.
LEAVES = {"adam_mini": BLOCKS} | dict.fromkeys(
    ("apollo", "apollo_mini", "galore", "adafactor", "came", "sm3", "scale_by_factored_rms"), SQUARE
)


def both(name, params, gradients, **how):
    """The params after all steps in parts, and of whole leaves: one program."""
    factory, args, kwargs, *extras = IN_PARTS[name]
    extras = extras[0] if extras else lambda g: {}
    whole, part = factory(*args, **kwargs), factory(*args, **kwargs, axis_name="data")
    split = {key: SPLIT[key] for key in params}
    each = {key: jax.P(None, *place) for key, place in split.items()}
    run = jax.shard_map(
        lambda *trees: trained(part, *trees, extras=extras),
        mesh=mesh(),
        in_specs=(split, each),
        out_specs=split,
        **how,
    )
    return jax.jit(lambda *trees: (run(*trees), trained(whole, *trees, extras=extras)))(
        params, gradients
    )


# A program each, and what they reduce is what another one's test does: its name.
LIKE = {
    "adamw_4bit": "adamw_8bit",
    "add_noise": "noisy_sgd",
    "apollo_mini": "apollo",
    "apply_if_finite": "guard",
    "dowg": "dog",
    "mars_lion": "mars_adamw",
    "momo_adam": "momo",
    "normalize_by_update_norm": "clip_by_global_norm",
    "polyak_sgd": "momo",
    "sam": "asam",
    "scale_by_distance_over_gradients": "dog",
    "scale_by_factored_rms": "adafactor",
    "scale_by_param_block_norm": "scale_by_param_block_rms",
    "scale_by_trust_ratio": "lamb",
    "store": "adamw_8bit",
}
ALL = [pytest.param(name, marks=[pytest.mark.sweep] * (name in LIKE)) for name in IN_PARTS]


@pytest.mark.parametrize("name", ALL)
def test_steps_in_parts_are_those_of_whole_leaves(name):
    shapes = LEAVES.get(name, SHAPES)
    params, gradients = numbers(0, shapes=shapes), numbers(1, STEPS, shapes=shapes)
    if name in ("guard", "apply_if_finite", "dynamic_loss_scale"):  # in the part of one device
        gradients["wide"][7, 5, 3] = np.inf
    got, wanted = jax.device_get(both(name, params, gradients))
    assert list(differences(got, wanted)) == []
    assert list(not_finite(got)) == []
    assert not list(dead(jax.tree.map(np.subtract, got, params), params))


def without_scalars(t):
    return {name: x for name, x in t.items() if name != "gain"}


UNTYPED = [
    "adafactor",
    "adam_mini",
    "adamw_4bit",
    "adamw_8bit",
    "apply_if_finite",
    "clip_by_global_norm",
    "lamb",
    "noisy_sgd",
    "prodigy",
    "store",
]


@pytest.mark.parametrize("name", UNTYPED[::2])
def test_where_types_do_not_tell_all_leaves_are_in_parts(name):
    params, gradients = without_scalars(numbers(0)), without_scalars(numbers(1, STEPS))
    got, wanted = both(name, params, gradients, check_vma=False)
    assert list(differences(got, wanted)) == []


@pytest.mark.parametrize("name", UNTYPED[1::2])
def test_in_pmap_all_leaves_are_in_parts(name):
    params, gradients = without_scalars(numbers(0)), without_scalars(numbers(1, STEPS))
    factory, args, kwargs = IN_PARTS[name]
    part, whole = factory(*args, **kwargs, axis_name="data"), factory(*args, **kwargs)
    cut = jax.tree.map(lambda p: p.reshape(4, -1, *p.shape[1:]), params)
    cuts = jax.tree.map(lambda g: g.reshape(STEPS, 4, -1, *g.shape[2:]), gradients)
    run = jax.pmap(
        lambda *trees: trained(part, *trees), axis_name="data", in_axes=(0, 1), out_axes=0
    )
    got = jax.tree.map(lambda x, p: np.reshape(x, p.shape), run(cut, cuts), params)
    wanted = jax.jit(lambda *trees: trained(whole, *trees))(params, gradients)
    assert list(differences(got, wanted)) == []


def test_leaves_in_parts_over_two_axes_and_over_one():
    """Over both mesh axes, over one of them and over none: each is counted once."""
    places = {"one": jax.P(("data", "model")), "two": jax.P("model"), "wide": jax.P()}
    tree = numbers(0, shapes={name: BLOCKS[name] for name in places})
    axes = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)

    def local(tree):
        norm = fnopt.global_norm(tree, axis_name=("data", "model"))
        slope = jax.grad(lambda t: fnopt.global_norm(t, axis_name=("data", "model")))(tree)
        return norm, slope

    run = jax.shard_map(local, mesh=axes, in_specs=(places,), out_specs=(jax.P(), places))
    got, slope = jax.jit(run)(tree)
    wanted, slope_wanted = jax.jit(jax.value_and_grad(fnopt.global_norm))(tree)
    np.testing.assert_allclose(got, wanted, rtol=1e-6)
    assert list(differences(slope, slope_wanted)) == []
