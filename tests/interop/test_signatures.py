"""The same names take the same arguments: every public function beside optax's of its name.

optax's arguments have the same names, defaults and places here. What differs is listed, each with
its reason; a difference that is not listed fails, and so does a listed one that is gone. What
fnopt adds comes after optax's arguments or by keyword alone.
"""

import inspect
import re
from pathlib import Path

import optax
import pytest
from optax import contrib

import fnopt
import fnopt.losses
import fnopt.projections


def functions(module):
    """A module's own public functions; deprecated names, made on demand, are not among them."""
    return {
        name: value
        for name, value in vars(module).items()
        if callable(value) and not inspect.isclass(value) and not name.startswith("_")
    }


@pytest.fixture(scope="module")
def pairs():
    """Name -> fnopt's function and optax's."""
    return {
        name: (ours, functions(library)[name])
        for home, libraries in (
            (fnopt, (contrib, optax)),
            (fnopt.losses, (optax.losses,)),
            (fnopt.projections, (optax.projections,)),
        )
        for name, ours in functions(home).items()
        for library in libraries
        if name in functions(library)
    }


def positional(parameters):
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def differences(ours, theirs):
    """(what differs, argument): absent here, another default, by keyword alone, another place."""
    here, there = (inspect.signature(f).parameters for f in (ours, theirs))
    places_here, places_there = positional(here.values()), positional(there.values())
    for name, parameter in there.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if name not in here:
            yield "absent", name
            continue
        if here[name].default != parameter.default:
            yield "default", name
        if name in places_there and name not in places_here:
            yield "keyword", name
    shared = [name for name in places_there if name in places_here]
    for name, place in zip(places_here, shared):
        if name != place:
            yield "place", place
            return


DIFFERENCES = {
    ("absent", "hyperparam_dtype"): (
        "hyperparameters are never rounded to another dtype",
        "inject_hyperparams",
    ),
    ("default", "dtype_momentum"): (
        "None is the compute dtype, which is float64 for float64 params",
        "adafactor",
    ),
    ("default", "learning_rate"): (
        "optax's None ascends; the paper of Adadelta has 1",
        "adadelta scale_by_learning_rate",
    ),
    ("default", "eps_root"): ("the authors' code has no ε inside the root", "adan"),
    ("default", "alpha"): (
        "5 as in the authors' JAX code and in optax's own ademamix, whose rule has 6",
        "scale_by_ademamix",
    ),
    ("default", "clip_value_fn"): (
        "the same function, but one with a name, so that equal calls are equal",
        "adopt scale_by_adopt",
    ),
    ("default", "hessian_diagonal_fn"): (
        "the same estimator, but without a constant key: each estimate is given one",
        "sophia",
    ),
    ("absent", "param_dtype"): (
        "the start is kept in the compute dtype",
        "scale_by_distance_over_gradients",
    ),
    ("keyword", "global_scale"): (
        "its place in optax is behind param_dtype",
        "scale_by_distance_over_gradients",
    ),
    ("default", "base_optimizer"): (
        "the same rule, Adam's, given itself in place of None",
        "galore scale_by_galore",
    ),
    ("absent", "weight_dimension_numbers"): (
        "leading axes are a stack of matrices; Muon has dimension_numbers",
        "galore scale_by_galore scale_by_muon",
    ),
    ("absent", "verbose"): ("rules do not print", "sophia"),
    ("absent", "print_win_rate_every_n_steps"): ("rules do not print", "sophia"),
    ("absent", "mode"): ("other functions than the sign are not Lion's", "scale_by_lion"),
    ("absent", "smooth_beta"): ("other functions than the sign are not Lion's", "scale_by_lion"),
    ("default", "mask"): ("or mask_fn, for what is callable and no function", "masked"),
    ("default", "param_labels"): ("or labels_fn, for what is no function", "partition"),
    ("default", "adv_optimizer"): ("the paper's adversary", "sam"),
    ("default", "ns_coeffs"): ("the same triple, by its name", "muon scale_by_muon"),
    ("absent", "adam_learning_rate"): ("give a whole optimizer as the fallback", "muon"),
    ("absent", "adam_b1"): ("give a whole optimizer as the fallback", "muon"),
    ("absent", "adam_b2"): ("give a whole optimizer as the fallback", "muon"),
    ("absent", "adam_weight_decay"): ("give a whole optimizer as the fallback", "muon"),
    ("absent", "eps"): (
        "a zero gradient gives zero, a tiny one its direction",
        "muon scale_by_muon",
    ),
    ("absent", "adaptive"): ("its length is the step's, which is not Muon's", "muon scale_by_muon"),
    ("absent", "preconditioning"): (
        "the other ways to a norm below 1 are for fewer steps: ns_coeffs has better ones",
        "muon scale_by_muon",
    ),
    ("absent", "adam_eps_root"): ("give a whole optimizer as the fallback", "muon"),
    ("absent", "consistent_rms"): ("scale is moonlight", "muon"),
    ("absent", "muon_weight_dimension_numbers"): (
        "dimension_numbers, as in all matrix optimizers",
        "muon",
    ),
    ("absent", "decay_rate_fn"): ("decay_rate may be a schedule", "scale_by_factored_rms"),
}


def test_the_arguments_are_optaxs(pairs):
    """Not listed, or listed and gone."""
    found = {(*what, name) for name, pair in pairs.items() for what in differences(*pair)}
    listed = {(*what, name) for what, (_, names) in DIFFERENCES.items() for name in names.split()}
    assert sorted(found ^ listed) == []


def test_every_listed_difference_is_of_a_shared_name(pairs):
    names = {name for _, listed in DIFFERENCES.values() for name in listed.split()}
    assert names <= set(pairs)
    assert len(pairs) > 150


def test_the_adopt_bounds_are_one_function(pairs):
    ours, theirs = (
        inspect.signature(f).parameters["clip_value_fn"].default for f in pairs["adopt"]
    )
    assert ours(16.0) == theirs(16.0) == 2.0


def test_the_page_lists_every_shared_name(pairs):
    page = Path(__file__).parents[2] / "docs" / "from-optax.md"
    section = page.read_text().split("## The same names")[1].split("They take the same")[0]
    listed = set(re.findall(r"`(\w+)`", section))
    shared = {name for name, (ours, _) in pairs.items() if getattr(fnopt, name, None) is ours}
    assert listed == shared | {"GradientTransformation", "losses", "projections"}


# What a difference must look like


def test_each_kind_of_difference_is_seen():
    def theirs(a, b=1, c=2, *, d=3):
        pass

    def found(ours):
        return list(differences(ours, theirs))

    assert found(lambda a, b=1, c=2, *, d=3: 0) == []
    assert found(lambda a, b=1, c=2, e=0, *, d=3: 0) == []
    assert found(lambda a, b=1, *, d=3: 0) == [("absent", "c")]
    assert found(lambda a, b=1, c=9, *, d=3: 0) == [("default", "c")]
    assert found(lambda a, b=1, *, c=2, d=3: 0) == [("keyword", "c")]
    assert found(lambda a, c=2, b=1, *, d=3: 0) == [("place", "b")]
    assert found(lambda a, e=0, b=1, c=2, *, d=3: 0) == [("place", "b")]
