"""Schedules against their formulas written naively in double precision, and their corner cases."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnopt.schedules as s

ts = np.arange(61)


def same(schedule, naive, counts=ts, rtol=3e-6, atol=3e-8):
    want = [naive(int(t)) for t in counts]
    np.testing.assert_allclose(jax.jit(schedule)(counts), want, rtol=rtol, atol=atol)


def test_rex():
    def naive(t):
        x = min(t / 50, 1)
        return 0.1 + 0.9 * (1 - x) / (0.5 + 0.5 * (1 - x))

    same(s.rex_schedule(1.0, 50, end_value=0.1), naive)


@pytest.mark.parametrize("shape", ["linear", "cosine", "1-sqrt"])
def test_wsd(shape):
    f = {
        "linear": lambda x: 1 - x,
        "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
        "1-sqrt": lambda x: 1 - math.sqrt(x),
    }[shape]

    def naive(t):
        if t < 10:
            return 0.2 + 0.8 * t / 10
        return 0.1 + 0.9 * f(min(max(t - 30, 0) / 20, 1))

    same(s.wsd_schedule(1.0, 10, 20, 20, init_value=0.2, end_value=0.1, shape=shape), naive)
    bare = s.wsd_schedule(1.0, 0, 0, 20, shape=shape)
    assert bare(0) == 1
    assert bare(20) == 0


def test_inverse_sqrt():
    same(
        s.inverse_sqrt_schedule(1.0, 10),
        lambda t: t / 10 if t < 10 else math.sqrt(10 / t),
    )
    same(
        s.inverse_sqrt_schedule(1.0, 0, timescale=4),
        lambda t: 1 / math.sqrt(1 + t / 4),
    )


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
def test_cyclic(mode):
    def naive(t):
        cycle, within = divmod(t, 20)
        height = within / 7 if within < 7 else (20 - within) / 13
        height *= {"triangular": 1, "triangular2": 0.5**cycle, "exp_range": 0.9**t}[mode]
        return 0.1 + 0.9 * height

    same(s.cyclic_schedule(0.1, 1.0, 7, down_steps=13, mode=mode, gamma=0.9), naive)


@pytest.mark.parametrize("multiplier", [1, 2, 3])
def test_cosine_warm_restarts(multiplier):
    def naive(t):
        length = 7
        while t >= length:
            t, length = t - length, length * multiplier
        return 0.1 + 0.9 * (1 + math.cos(math.pi * t / length)) / 2

    schedule = s.cosine_warm_restarts_schedule(1.0, 7, multiplier=multiplier, end_value=0.1)
    same(schedule, naive, np.arange(300))


@pytest.mark.parametrize("gamma", [0.5, 0.1, 1.0])
def test_step_and_multistep_as_pytorch_has_them(gamma):
    """Its recursions: the rate times gamma whenever the count is a multiple, or a milestone."""
    milestones = [0, 7, 20, 20, 41]
    stairs, jumps = [0.5], [0.5 * gamma]
    for t in ts[1:]:
        stairs.append(stairs[-1] * (gamma if t % 7 == 0 else 1))
        jumps.append(jumps[-1] * gamma ** milestones.count(t))
    same(s.step_schedule(0.5, 7, gamma), lambda t: stairs[t])
    same(s.multistep_schedule(0.5, milestones, gamma), lambda t: jumps[t])


def test_stairs_fall_on_their_step_for_every_size():
    """Under jit XLA divides by multiplying: 41 · (1/41) is below 1."""
    sizes = (3, 41, 47, 55, 61, 97)
    counts = {size: np.arange(0, 8 * size) for size in sizes}

    @jax.jit
    def both(counts):
        return {
            size: (
                s.step_schedule(1.0, size, 0.5)(t),
                s.exponential_decay(1.0, size, 0.5, staircase=True)(t),
            )
            for size, t in counts.items()
        }

    for size, (steps, stairs) in both(counts).items():
        want = 0.5 ** (counts[size] // size)
        np.testing.assert_array_equal(steps, want, err_msg=str(size))
        np.testing.assert_allclose(stairs, want, rtol=1e-6, err_msg=str(size))


def test_ends_are_exact_for_every_length():
    shapes = {
        f"{shape.name} of {n}": (shape, n)
        for n in range(1, 120, 7)
        for shape in (
            s.linear_schedule(0.0, 0.7, n),
            s.polynomial_schedule(0.7, 0.0, 0.5, n),
            s.cosine_decay_schedule(0.7, n),
            s.rex_schedule(0.7, n),
            s.wsd_schedule(0.7, 0, 0, n, shape="1-sqrt"),
        )
    }

    @jax.jit
    def ends(counts):
        return {name: shape(counts[name]) for name, (shape, _) in shapes.items()}

    counts = {name: np.array([0, n, n + 1]) for name, (_, n) in shapes.items()}
    for name, found in ends(counts).items():
        want = np.float32([0, 0.7, 0.7] if name.startswith("linear") else [0.7, 0, 0])
        np.testing.assert_array_equal(found, want, err_msg=name)


def test_long_schedules_keep_their_digits_near_both_ends():
    n = 10**7
    up = jax.jit(s.linear_schedule(0.0, 1.0, n))
    np.testing.assert_allclose(up(1), 1e-7, rtol=1e-6)
    down = jax.jit(s.linear_schedule(1.0, 0.0, n))
    np.testing.assert_allclose(down(n - 1), 1e-7, rtol=1e-6)
    cosine = jax.jit(s.cosine_decay_schedule(1.0, n))
    np.testing.assert_allclose(cosine(n - 1), math.sin(math.pi / 2 / n) ** 2, rtol=1e-5)


def test_exponential_decay_grows_up_to_its_bound():
    grow = s.exponential_decay(0.1, 10, 2.0, end_value=0.4)
    same(grow, lambda t: min(0.1 * 2 ** (t / 10), 0.4))
    traced = jax.jit(lambda r, t: s.exponential_decay(0.1, 10, r, end_value=0.4)(t))
    np.testing.assert_allclose(traced(2.0, 60), 0.4)
    np.testing.assert_allclose(traced(0.5, 1), 0.4)


def test_no_warmup_starts_at_the_peak():
    assert s.warmup_cosine_decay_schedule(0.0, 0.5, 0, 10)(0) == 0.5
    assert s.warmup_exponential_decay_schedule(0.0, 0.5, 0, 10, 0.5)(0) == 0.5
    traced = jax.jit(lambda w: s.warmup_cosine_decay_schedule(0.0, 0.5, w, 10)(0))
    assert traced(0) == 0.5


def test_join_never_asks_a_piece_beyond_its_end():
    asked = []

    def piece(count):
        asked.append(float(count))
        return 1 / (5.5 - count)

    joined = s.join_schedules([piece, s.constant_schedule(0.5)], [5])
    for count in (0, 4, 5, 100):
        joined(count)
    assert max(asked) == 5
    root = s.join_schedules([lambda t: jnp.sqrt(6 - t), s.constant_schedule(0.5)], [5])
    assert jax.grad(root)(100.0) == 0


def test_join_of_three_and_of_equal_boundaries():
    pieces = [s.constant_schedule(v) for v in (1.0, 2.0, 3.0)]
    np.testing.assert_array_equal(
        s.join_schedules(pieces, [2, 4])(np.arange(6)), [1, 1, 2, 2, 3, 3]
    )
    np.testing.assert_array_equal(s.join_schedules(pieces, [2, 2])(np.arange(4)), [1, 1, 3, 3])
    np.testing.assert_array_equal(s.join_schedules(pieces, [0, 2])(np.arange(4)), [2, 2, 3, 3])
    assert s.join_schedules(pieces[:1], [])(7) == 1


def test_join_of_third_party_functions():
    joined = s.join_schedules([lambda count: 0.5, lambda count: count * jnp.float32(2)], (3,))
    np.testing.assert_array_equal(joined(np.array([0, 3, 5])), [0.5, 0, 4])


def test_a_boundary_at_zero_rules_from_the_start():
    assert s.piecewise_constant_schedule(1.0, {0: 0.5})(0) == 0.5
    assert s.piecewise_interpolate_schedule("linear", 1.0, {0: 0.5, 2: 0.5})(0) == 0.5
    assert s.piecewise_constant_schedule(1.0)(9) == 1
    assert s.piecewise_interpolate_schedule("cosine", 1.0)(9) == 1


def test_fractions():
    knots = {0.1: 0.2, 0.5: 1.0, 0.5001: 0.5}
    line = s.fraction_schedule(1000, knots)
    np.testing.assert_allclose(
        line(np.array([0, 100, 300, 499, 500, 2000])), [0.2, 0.2, 0.6, 0.998, 0.5, 0.5], rtol=1e-6
    )
    stairs = s.fraction_schedule(1000, knots, interpolate_type="constant")
    np.testing.assert_allclose(stairs(np.array([0, 499, 500])), [0.2, 0.2, 0.5])
    traced = jax.jit(lambda n: s.fraction_schedule(n, knots)(300))
    np.testing.assert_allclose(traced(1000), 0.6, rtol=1e-6)


def test_one_step_of_onecycle_ends_at_the_end():
    for n in (1, 2, 3):
        for make in (s.linear_onecycle_schedule, s.cosine_onecycle_schedule):
            np.testing.assert_allclose(make(n, 1.0, div_factor=2.0, final_div_factor=4.0)(n), 1 / 8)


def test_different_arguments_are_different():
    assert s.linear_schedule(0.0, 1.0, 5) != s.linear_schedule(0.0, 1.0, 6)
    assert s.linear_schedule(0.0, 1.0, 5) != s.warmup_constant_schedule(0.0, 1.0, 5)
    assert s.piecewise_constant_schedule(1.0, {5: 0.1}) != s.piecewise_constant_schedule(
        1.0, {5: 0.2}
    )


def test_a_schedule_is_a_static_argument_of_jit():
    traces = []

    @lambda f: jax.jit(f, static_argnums=0)
    def value(schedule, count):
        traces.append(schedule)
        return schedule(count)

    value(s.cosine_decay_schedule(1.0, 10), 3)
    value(s.cosine_decay_schedule(1.0, 10), 4)
    assert len(traces) == 1
