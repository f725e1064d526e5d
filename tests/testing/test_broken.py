"""Every law catches what breaks it, and lets plain gradient descent pass where it can."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

import fnopt
from fnopt.testing import LAWS, Builder, LawError, check, check_masked, check_norm, report
from fnopt.testing.laws import BROKEN, KEPT, NOT_APPLICABLE, Subject, placement
from fnopt.testing.laws.widths import stays_wide

spec = importlib.util.spec_from_file_location("toys", Path(__file__).with_name("toys.py"))
toys = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toys)

BREAKERS = [
    ("L1", toys.drifting_momentum, "was bfloat16[4,3] and became float32[4,3]"),
    ("L2", toys.stalling_second_moment, "of the bfloat16 run against the float32 run"),
    ("L3", toys.rounded_hyperparameter, "bfloat16 params: state['decay'] is bfloat16[]"),
    ("L4", toys.clip_by_rounded_norm, "16 and 24 ones, bfloat16 scalars against float32 scalars"),
    ("L5", toys.signs_by_division, "float16 params: step 1: the update of ['cube'] is nan"),
    ("L5", toys.infinite_slope, "the derivative of the updates by a gradient of zero"),
    ("L6", toys.overflowing_squares, "the state's ['layer']['kernel'] is inf"),
    ("L6", toys.frozen_by_a_spike, "layer/kernel with the huge entry does not move"),
    ("L7", toys.sgd, "a tree with the leaf integers="),
    ("L8", toys.sgd, "a gradient of shape (3,) for a parameter of (4, 3): is accepted silently"),
    ("L9", toys.keeps_the_params, "shares the buffer of params['layer']['kernel']"),
    ("L9", toys.keeps_one_buffer_twice, "shares the buffer of state['one']['cube']"),
    ("L10", toys.at_home, "state['layer']['kernel'] is on"),
    ("L11", toys.deaf, "decay set from 0.9 to 0.45"),
    ("L11", toys.unreadable, "learning_rate cannot be read"),
    ("L12", toys.sgd, "two equal calls give unequal optimizers"),
    ("L13", toys.counting_schedules_only, "learning_rate as a schedule: the structure"),
    ("L13", toys.nameless, "positions instead of names"),
    ("L14", toys.averages_in_float32, "was bfloat16[4,3] and became float32[4,3]"),
    ("L15", toys.keeps_state_for_everything, "there is state for them"),
    ("L16", toys.counts_in_python, "the same call again, after another"),
    ("L16", toys.depends_on_the_order, "a dataclass"),
    ("L17", toys.reads_the_values, "jax.eval_shape(init, params)"),
    ("L18", toys.sorts, "of the params' bytes, expected at most 0.25"),
]


@pytest.mark.parametrize(
    ("code", "toy", "words"), BREAKERS, ids=[f"{code}-{toy.__name__}" for code, toy, _ in BREAKERS]
)
def test_what_breaks_a_law_is_caught(code, toy, words):
    finding = LAWS[code].judge(Builder(toy))
    assert finding.verdict == BROKEN
    assert any(words in evidence for evidence in finding.evidence), finding


def test_every_law_has_something_that_breaks_it():
    assert {code for code, _, _ in BREAKERS} == set(LAWS) == {f"L{i}" for i in range(1, 19)}


VERDICTS = {
    **dict.fromkeys(["L1", "L2", "L4", "L5", "L6", "L9", "L10", "L13", "L16", "L17", "L18"], KEPT),
    **dict.fromkeys(["L3", "L11", "L14"], NOT_APPLICABLE),
}


@pytest.mark.parametrize("code", VERDICTS)
def test_plain_descent_keeps_what_it_can(code):
    finding = LAWS[code].judge(toys.sgd)
    assert finding.verdict == VERDICTS[code], finding
    assert finding.verdict == KEPT or finding.evidence  # never silently


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_arithmetic_in_a_narrow_dtype_is_seen_in_a_trace(dtype):
    """Anything but moves, casts and one rounding of each result: then the laws run the steps."""
    wide = [toys.computes_in_float32, Builder(fnopt.adam, 0.01), Builder(fnopt.muon, 0.01)]
    narrow = [toys.sgd, toys.rounds_in_between, toys.stalling_second_moment, toys.drifting_momentum]
    stored = Builder(fnopt.adam, 0.01, mu_dtype=jnp.bfloat16)
    assert all(stays_wide(Subject(build), dtype) for build in wide)
    assert not any(stays_wide(Subject(build), dtype) for build in [*narrow, stored])


def test_averages_are_found():
    assert LAWS["L14"].judge(toys.averages).verdict == KEPT


def test_extra_arguments_are_given():
    needy = Builder(toys.needs_value)
    assert "value" in str(LAWS["L5"].judge(needy))
    given = needy.calling(value=1.0)
    for code in ("L5", "L16"):
        assert LAWS[code].judge(given).verdict == KEPT
    by_function = needy.calling(lambda updates, params: {"value": jnp.float32(0.5)})
    assert LAWS["L17"].judge(by_function).verdict == KEPT


def test_the_error_lists_every_broken_law():
    laws = {code: LAWS[code] for code in ("L6", "L9", "L17")}
    both = toys.Pair(toys.keeps_the_params().init, toys.overflowing_squares().update)
    with pytest.raises(LawError) as caught:
        check(lambda: both, laws)
    assert [finding.law.code for finding in caught.value.findings] == ["L6", "L9"]
    for words in ("breaks L6, L9", "shares the buffer", "is inf", LAWS["L6"].says):
        assert words in str(caught.value)
    check(toys.sgd, laws)


def test_a_law_without_its_devices_says_so(monkeypatch):
    monkeypatch.setattr(placement.jax, "devices", lambda: [None])
    finding = LAWS["L10"].judge(toys.sgd)
    assert finding.verdict == NOT_APPLICABLE
    assert "needs 2 devices" in str(finding)


def test_a_builder_that_promises_no_bound():
    finding = LAWS["L18"].judge(Builder(toys.sorts).allowing(None))
    assert finding.verdict == NOT_APPLICABLE
    assert LAWS["L18"].judge(Builder(toys.sorts).allowing(9.0)).verdict == KEPT


def test_a_builder_that_draws_by_the_leaves_places():
    drawing = Builder(toys.depends_on_the_order).drawing()
    assert LAWS["L16"].judge(drawing).verdict == KEPT
    assert LAWS["L16"].judge(Builder(toys.counts_in_python).drawing()).verdict == BROKEN


def test_a_builder_whose_state_knows_the_params_better():
    rounding = Builder(fnopt.kahan, fnopt.adam(0.01))
    for code in ("L2", "L4"):
        assert LAWS[code].judge(rounding).verdict == BROKEN
        assert LAWS[code].judge(rounding.knowing(fnopt.master_params)).verdict == KEPT
    blind = Builder(fnopt.sgd, 0.01).knowing(lambda state, params: params)
    assert "last update" in str(LAWS["L2"].judge(blind))


def test_a_foreign_state_is_named_by_the_shapes_of_its_leaves():
    rows_only = Builder(fnopt.scale_by_sm3, b1=0.0)
    assert LAWS["L8"].judge(rows_only) == (LAWS["L8"], KEPT, ())


def test_a_build_that_raises_breaks_the_law():
    def build():
        raise RuntimeError("no optimizer today")

    assert "no optimizer today" in str(LAWS["L5"].judge(build))


def test_builders():
    builder = Builder(fnopt.adam, 1e-2, b1=0.8)
    assert repr(builder) == "adam(learning_rate=0.01, b1=0.8)"
    assert builder() == fnopt.adam(1e-2, b1=0.8)
    assert builder(b1=0.5) == fnopt.adam(1e-2, b1=0.5)
    assert builder.numbers()["b2"] == 0.999
    assert builder.kinds["b1"].range == "in [0, 1)"
    with pytest.raises(TypeError, match="does not accept beta"):
        builder(beta=1.0)
    assert builder.calling(value=1.0).extras(None, None) == {"value": 1.0}
    assert builder.calling(value=1.0).allowing(1.0).extras(None, None) == {"value": 1.0}


# Functions with a law of their own


def test_norms():
    check_norm(fnopt.global_norm)

    def naive(t):
        return jnp.sqrt(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(t)))

    with pytest.raises(LawError) as caught:
        check_norm(naive)
    for words in ("bfloat16 leaves", "entries of 1e20", "derivative at zero"):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("wrapper", "words"),
    [(toys.passing_gradients, "gets the update"), (toys.keeping_state, "there is state for them")],
)
def test_masking(wrapper, words):
    check_masked(toys.freezing)
    with pytest.raises(LawError, match=words):
        check_masked(wrapper)


# Transformations of another library


def test_optax_is_reported_and_does_not_crash(standard_numerics):
    findings = {f.law.code: f for f in report(Builder(optax.adamw, 1e-2))}
    assert findings.keys() == LAWS.keys()
    broken = {code for code, finding in findings.items() if finding.verdict == BROKEN}
    assert broken >= {"L1", "L2", "L5", "L6", "L7", "L8", "L11", "L12", "L13"}
    assert not broken & {"L9", "L17", "L18"}
    assert "bf16 params, f32 gradients" in str(findings["L1"])


def test_optax_moments_are_not_mistaken_for_hyperparameters(standard_numerics):
    rounded = lambda: optax.inject_hyperparams(optax.adam)(1e-2)
    assert "bfloat16" in str(LAWS["L3"].judge(rounded))
    assert LAWS["L3"].judge(lambda: optax.adam(1e-2)).verdict == NOT_APPLICABLE
