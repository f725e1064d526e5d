"""One card per schedule: a call, its values at both ends, and whether optax has the same."""

import fnopt.schedules as schedules

# name: (args, kwargs, {count: value, exactly}, last count that is interesting)
CARDS = {
    "constant_schedule": ((0.3,), {}, {0: 0.3, 100: 0.3}, 10),
    "linear_schedule": ((0.1, 0.7, 41, 3), {}, {0: 0.1, 3: 0.1, 44: 0.7, 99: 0.7}, 50),
    "polynomial_schedule": ((1.0, 0.25, 3, 41, 5), {}, {0: 1.0, 5: 1.0, 46: 0.25, 99: 0.25}, 50),
    "exponential_decay": (
        (0.8, 10, 0.5),
        {"transition_begin": 3, "end_value": 0.125},
        {0: 0.8, 3: 0.8, 99: 0.125},
        50,
    ),
    "cosine_decay_schedule": (
        (0.5, 41, 0.25),
        {"exponent": 1.5},
        {0: 0.5, 41: 0.125, 99: 0.125},
        50,
    ),
    "rex_schedule": ((0.5, 41), {"end_value": 0.125}, {0: 0.5, 41: 0.125, 99: 0.125}, 50),
    "warmup_constant_schedule": ((0.1, 0.7, 41), {}, {0: 0.1, 41: 0.7, 99: 0.7}, 50),
    "warmup_cosine_decay_schedule": (
        (0.1, 0.75, 7, 48),
        {"end_value": 0.25, "exponent": 2.0},
        {0: 0.1, 7: 0.75, 48: 0.25, 99: 0.25},
        60,
    ),
    "warmup_exponential_decay_schedule": (
        (0.1, 0.75, 7, 10, 0.5),
        {"end_value": 0.125, "staircase": True, "transition_begin": 2},
        {0: 0.1, 7: 0.75, 9: 0.75, 99: 0.125},
        60,
    ),
    "inverse_sqrt_schedule": ((0.5, 41), {"init_value": 0.125}, {0: 0.125, 41: 0.5, 164: 0.25}, 80),
    "wsd_schedule": (
        (0.5, 7, 10, 41),
        {"init_value": 0.125, "end_value": 0.25, "shape": "1-sqrt"},
        {0: 0.125, 7: 0.5, 17: 0.5, 58: 0.25, 99: 0.25},
        60,
    ),
    "piecewise_constant_schedule": (
        (0.5, {7: 0.5, 20: 0.25}),
        {},
        {0: 0.5, 6: 0.5, 7: 0.25, 20: 0.0625, 99: 0.0625},
        30,
    ),
    "piecewise_interpolate_schedule": (
        ("cosine", 0.5, {7: 2.0, 48: 0.25}),
        {},
        {0: 0.5, 7: 1.0, 48: 0.25, 99: 0.25},
        60,
    ),
    "fraction_schedule": (
        (50, {0.0: 0.125, 0.2: 0.5, 0.8: 0.5, 1.0: 0.25}),
        {},
        {0: 0.125, 10: 0.5, 40: 0.5, 50: 0.25, 99: 0.25},
        60,
    ),
    "step_schedule": ((0.5, 7), {"gamma": 0.5}, {0: 0.5, 6: 0.5, 7: 0.25, 14: 0.125}, 60),
    "multistep_schedule": (
        (0.5, [7, 20, 20]),
        {"gamma": 0.5},
        {0: 0.5, 6: 0.5, 7: 0.25, 20: 0.0625, 99: 0.0625},
        30,
    ),
    "join_schedules": (
        ([schedules.linear_schedule(0.0, 0.5, 7), schedules.constant_schedule(0.25)], [7]),
        {},
        {0: 0.0, 7: 0.25, 99: 0.25},
        20,
    ),
    "linear_onecycle_schedule": (
        (50, 1.0, 0.3, 0.85, 4.0, 16.0),
        {},
        {0: 0.25, 15: 1.0, 42: 0.25, 50: 1 / 64, 99: 1 / 64},
        60,
    ),
    "cosine_onecycle_schedule": (
        (50, 1.0, 0.3, 4.0, 16.0),
        {},
        {0: 0.25, 15: 1.0, 50: 1 / 64, 99: 1 / 64},
        60,
    ),
    "cyclic_schedule": (
        (0.25, 1.0, 7),
        {"down_steps": 13, "mode": "triangular2"},
        {0: 0.25, 7: 1.0, 20: 0.25, 27: 0.625, 40: 0.25},
        60,
    ),
    "cosine_warm_restarts_schedule": (
        (0.5, 7),
        {"multiplier": 2, "end_value": 0.125},
        {0: 0.5, 7: 0.5, 21: 0.5, 49: 0.5},
        60,
    ),
    "sgdr_schedule": (
        (
            [
                {"init_value": 0.0, "peak_value": 0.5, "warmup_steps": 3, "decay_steps": 20},
                {"init_value": 0.125, "peak_value": 0.25, "warmup_steps": 5, "decay_steps": 30},
            ],
        ),
        {},
        {0: 0.0, 3: 0.5, 20: 0.125, 25: 0.25, 50: 0.0, 99: 0.0},
        60,
    ),
}


def build(name):
    """The card's schedule."""
    args, kwargs, _, _ = CARDS[name]
    return getattr(schedules, name)(*args, **kwargs)
