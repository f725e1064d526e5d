"""Schedules by short names."""

import numpy as np
import pytest

from fnopt.training import rates
from fnopt.training.errors import CommandError

TO_ZERO = ("linear", "polynomial", "cosine", "warmup_cosine", "wsd")


def amiss(name, steps):
    """What is wrong with a schedule that is stretched over so many steps."""
    schedule = rates.make_schedule(f"{name}:0.5", steps)
    values = np.array([float(schedule(i)) for i in range(0, steps + 1, max(1, steps // 20))])
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 0.5 + 1e-6):
        return f"values outside of 0 to 0.5: {values}"
    if steps == 1000 and values.max() != pytest.approx(0.5, rel=0.02):
        return f"the greatest value is {values.max()}"
    if name in TO_ZERO and float(schedule(steps)) != 0:
        return f"it ends at {float(schedule(steps))}"
    return None


def test_every_schedule_spans_any_run():
    runs = [(name, steps) for name in rates.SCHEDULES for steps in (1, 2, 3, 9, 1000)]
    found = {run: amiss(*run) for run in runs}
    assert not {run: words for run, words in found.items() if words}


@pytest.mark.parametrize(("text", "last"), [("cosine", 0.05), ("linear", 0.05)])
def test_arguments_may_follow(text, last):
    word = {"cosine": "cosine:0.5,alpha=0.1", "linear": "linear:0.5,end_value=0.05"}[text]
    assert float(rates.make_schedule(word, 10)(10)) == pytest.approx(last)


def test_steps_and_words_may_follow():
    schedule = rates.make_schedule("wsd:1.0,warmup_steps=5,shape=1-sqrt", 100)
    assert float(schedule(5)) == 1.0
    assert "warmup_steps=5" in repr(schedule)
    assert "shape='1-sqrt'" in repr(schedule)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cosin:1e-3", "unknown schedule 'cosin' in 'cosin:1e-3'; did you mean 'cosine'?"),
        ("xyz:1", "there are constant, linear"),
        ("cosine:", "'' is not a number"),
        ("cosine", "a schedule is written as cosine:1e-3"),
        ("cosine:fast", "'fast' is not a number"),
        ("cosine:-1", "cosine_decay_schedule: init_value must be"),
        ("cosine:1e-3,beta=2", "an argument of init_value, decay_steps, alpha, exponent"),
        ("cosine:1e-3,alpha", "expected argument=value"),
        ("cosine:1e-3,alpha=x", "'x' is not a number"),
        ("cosine:1e-3,decay_steps=0", "decay_steps must be a positive integer"),
        ("wsd:1e-3,shape=round", "shape must be one of"),
    ],
)
def test_mistakes(text, words):
    with pytest.raises(CommandError) as error:
        rates.make_schedule(text, 10)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
