"""Wrong arguments of schedules: each is an error that begins with the factory's name."""

import itertools

import jax
import jax.numpy as jnp
import pytest

import fnopt.schedules as s

nan, inf = float("nan"), float("inf")
line = s.constant_schedule(1.0)
WRONG = [
    (s.constant_schedule, (-1.0,), "value must be a finite number >= 0, got -1.0"),
    (s.constant_schedule, (nan,), "value must be a finite number"),
    (s.constant_schedule, ("1e-3",), "value must be a finite number"),
    (s.constant_schedule, (None,), "value must be a finite number"),
    (s.constant_schedule, (jnp.ones(3),), r"value must be .* an array of shape \(3,\)"),
    (s.linear_schedule, (0.0, 1.0, 0), "transition_steps must be a positive integer, got 0"),
    (s.linear_schedule, (0.0, 1.0, -3), "transition_steps must be a positive integer, got -3"),
    (s.linear_schedule, (0.0, 1.0, 2.5), "transition_steps must be a positive integer, got 2.5"),
    (s.linear_schedule, (0.0, 1.0, True), "transition_steps must be a positive integer, got True"),
    (s.linear_schedule, (0.0, inf, 5), "end_value must be a finite number"),
    (s.linear_schedule, (-0.1, 1.0, 5), "init_value must be a finite number >= 0"),
    (s.linear_schedule, (0.0, 1.0, 5, -1), "transition_begin must be a non-negative integer"),
    (s.polynomial_schedule, (1.0, 0.0, 0, 5), "power must be a finite number > 0, got 0"),
    (s.polynomial_schedule, (1.0, 0.0, nan, 5), "power must be a finite number > 0"),
    (s.polynomial_schedule, (1.0, 0.0, 2, 0), "transition_steps must be a positive integer"),
    (s.exponential_decay, (0.0, 5, 0.5), "init_value must be a finite number > 0"),
    (s.exponential_decay, (1.0, 0, 0.5), "transition_steps must be a positive integer"),
    (s.exponential_decay, (1.0, 5, 0.0), "decay_rate must be a finite number > 0"),
    (s.exponential_decay, (1.0, 5, 0.5, 0, False, -1.0), "end_value must be a finite number >= 0"),
    (s.cosine_decay_schedule, (1.0, 0), "decay_steps must be a positive integer, got 0"),
    (s.cosine_decay_schedule, (1.0, 5, -0.1), "alpha must be a finite number >= 0"),
    (s.cosine_decay_schedule, (1.0, 5, 0.0, -1.0), "exponent must be a finite number > 0"),
    (s.rex_schedule, (1.0, 0), "decay_steps must be a positive integer"),
    (s.warmup_constant_schedule, (0.0, 1.0, 0), "warmup_steps must be a positive integer"),
    (s.warmup_cosine_decay_schedule, (0.0, 1.0, -1, 5), "warmup_steps must be a non-negative"),
    (s.warmup_cosine_decay_schedule, (0.0, 1.0, 0, 0), "decay_steps must be a positive integer"),
    (
        s.warmup_cosine_decay_schedule,
        (0.0, 1.0, 5, 5),
        r"decay_steps must exceed warmup_steps \(5\), got 5",
    ),
    (s.warmup_exponential_decay_schedule, (0.0, 0.0, 5, 5, 0.5), "peak_value must be .* > 0"),
    (s.warmup_exponential_decay_schedule, (0.0, 1.0, 5, 0, 0.5), "transition_steps must be"),
    (s.inverse_sqrt_schedule, (1.0, 0), "warmup_steps must be a positive integer"),
    (s.wsd_schedule, (1.0, 1, 1, 0), "decay_steps must be a positive integer"),
    (s.wsd_schedule, (1.0, 1, -1, 5), "stable_steps must be a non-negative integer"),
    (s.piecewise_constant_schedule, (1.0, {9: 0.1, 5: 0.1}), r"boundaries must not decrease, got"),
    (s.piecewise_constant_schedule, (1.0, {5: -0.1}), "scale must be a finite number >= 0"),
    (s.piecewise_constant_schedule, (1.0, {-5: 0.1}), "boundaries must be a non-negative integer"),
    (s.piecewise_interpolate_schedule, ("linear", 1.0, {9: 0.1, 5: 0.1}), "must not decrease"),
    (s.piecewise_interpolate_schedule, ("cubic", 1.0, {}), "interpolate_type must be one of"),
    (s.fraction_schedule, (0, {0.0: 1.0}), "total_steps must be a positive integer"),
    (s.fraction_schedule, (9, {}), "must have at least one entry"),
    (s.fraction_schedule, (9, {0.5: 1.0, 0.2: 1.0}), "fractions must not decrease"),
    (s.fraction_schedule, (9, {1.5: 1.0}), "fraction must be a finite number >= 0 and <= 1"),
    (s.step_schedule, (1.0, 0), "step_size must be a positive integer"),
    (s.multistep_schedule, (1.0, [9, 5]), "milestones must not decrease"),
    (s.join_schedules, ([line, line], [5, 9]), "one fewer than schedules, got 2 .* and 2"),
    (s.join_schedules, ([line] * 3, [9, 5]), "boundaries must not decrease"),
    (s.join_schedules, ([line] * 2, [-1]), "boundaries must be a non-negative integer"),
    (s.join_schedules, ([], []), "one fewer"),
    (s.linear_onecycle_schedule, (0, 1.0), "transition_steps must be a positive integer"),
    (s.linear_onecycle_schedule, (9, 1.0, 0.9, 0.5), "pct_final must be >= pct_start"),
    (s.linear_onecycle_schedule, (9, 1.0, 1.5), "pct_start must be"),
    (s.cosine_onecycle_schedule, (0, 1.0), "transition_steps must be a positive integer"),
    (s.cosine_onecycle_schedule, (9, 1.0, 0.3, 0.0), "div_factor must be a finite number > 0"),
    (s.cyclic_schedule, (0.0, 1.0, 0), "up_steps must be a positive integer"),
    (s.cosine_warm_restarts_schedule, (1.0, 0), "decay_steps must be a positive integer"),
    (s.sgdr_schedule, ([],), "at least one cycle"),
    (s.sgdr_schedule, ([{"peak_value": 1.0}],), "decay_steps must be a positive integer"),
]


@pytest.mark.parametrize(("factory", "args", "words"), WRONG)
def test_wrong_arguments_are_named(factory, args, words):
    with pytest.raises(ValueError, match=f"^{factory.__name__}: .*{words}"):
        factory(*args)


def test_wrong_words_are_named():
    with pytest.raises(
        ValueError, match="wsd_schedule: shape must be one of linear, cosine, 1-sqrt"
    ):
        s.wsd_schedule(1.0, 1, 1, 1, shape="square")
    with pytest.raises(ValueError, match="cyclic_schedule: mode must be one of triangular"):
        s.cyclic_schedule(0.0, 1.0, 5, mode="sawtooth")
    with pytest.raises(ValueError, match="cosine_warm_restarts_schedule: multiplier must be"):
        s.cosine_warm_restarts_schedule(1.0, 5, multiplier=0)
    with pytest.raises(TypeError, match="linear_schedule: .*end_valu"):
        s.linear_schedule(0.0, end_valu=1.0, transition_steps=5)
    with pytest.raises(TypeError, match="sgdr_schedule: cosine_kwargs must be a list or a tuple"):
        s.sgdr_schedule(itertools.repeat({"decay_steps": 5}, 2))
    with pytest.raises(TypeError, match="sgdr_schedule: cycle must be a dict, got 3"):
        s.sgdr_schedule([3])
    with pytest.raises(TypeError, match="piecewise_constant_schedule: boundaries_and_scales must"):
        s.piecewise_constant_schedule(1.0, [5, 9])
    with pytest.raises(TypeError, match="fraction_schedule: fractions_and_values must be a dict"):
        s.fraction_schedule(100, (0.5, 1.0))
    with pytest.raises(TypeError, match="join_schedules: schedules must be functions .*, got 0.1"):
        s.join_schedules([line, 0.1], [5])


def test_traced_arguments_are_scalars():
    with pytest.raises(ValueError, match=r"constant_schedule: value must be a scalar.*\(2,\)"):
        jax.jit(lambda v: s.constant_schedule(v)(0))(jnp.ones(2))


def test_integral_steps_of_any_type():
    import numpy as np

    assert s.linear_schedule(0.0, 1.0, 1e1)(5) == 0.5
    assert s.linear_schedule(0.0, 1.0, np.int64(10))(5) == 0.5
    assert s.linear_schedule(0.0, 1.0, jnp.int32(10))(5) == 0.5
    assert s.linear_schedule(0.0, 1.0, 10**11)(5) < 1e-9
