"""Charts: what is drawn lies inside, and ticks are round."""

import math
import re

import pytest

from fnopt.report.charts import (
    HEIGHT,
    LEFT,
    TOP,
    WIDTH,
    Line,
    chart,
    colors,
    even_ticks,
    log_ticks,
    number,
    whole_ticks,
)


def lines(*values):
    return [Line("a<b", list(enumerate(values, 1)), "#000000")]


@pytest.mark.parametrize(
    "values", [(1.0, 2.0, 3.0), (1e-9, 1.0, 1e4), (5.0,), (0.0, 0.0), (-1.0, 1e-3), (1e-30, 1e-30)]
)
def test_every_point_is_inside(values):
    drawn = chart("t", lines(*values))
    (path,) = re.findall(r'points="([^"]+)"', drawn)
    points = [tuple(map(float, p.split(","))) for p in path.split()]
    assert len(points) == len(values)
    for x, y in points:
        assert LEFT - 0.1 <= x <= WIDTH
        assert TOP - 0.1 <= y <= HEIGHT


def test_what_is_no_number_is_left_out():
    assert chart("t", lines(math.nan, math.inf)) == ""
    assert chart("t", []) == ""
    (path,) = re.findall(r'points="([^"]+)"', chart("t", lines(1.0, math.nan, 2.0)))
    assert len(path.split()) == 2


def test_a_logarithmic_axis_where_the_values_span_much():
    ends = [re.findall(r'cy="([^"]+)"', chart("t", lines(1.0, 1e-4, 1e-2), log=log)) for log in
            (None, True, False)]  # fmt: skip
    assert ends[0] == ends[1] != ends[2]


def test_names_are_escaped():
    drawn = chart("x & y", [*lines(1.0, 2.0), Line("c", [(1, 1.0)], "#111111", True)])
    assert "a<b" not in drawn
    assert "a&lt;b" in drawn
    assert "x &amp; y" in drawn


@pytest.mark.parametrize("ends", [(0.0, 1.0), (3.0, 3.0), (-7.0, 121.0), (0.9, 0.98), (0.0, 0.0)])
def test_even_ticks(ends):
    ticks, low, high = even_ticks(*ends)
    assert low - 1e-12 <= ends[0] <= ends[1] <= high + 1e-12
    assert 2 <= len(ticks) <= 8
    assert (ticks[0], ticks[-1]) == (low, high)


@pytest.mark.parametrize("ends", [(1e-8, 1.0), (0.2, 0.9), (3.0, 3.0), (1e-3, 1e30)])
def test_log_ticks(ends):
    ticks, low, high = log_ticks(*ends)
    assert low < ends[0] <= ends[1] < high
    assert 1 <= len(ticks) <= 8
    assert all(low <= t <= high for t in ticks)


def test_small_things():
    assert [number(x) for x in (0.0, 0.01, 1e-5, 2.5e-7, 1e6)] == ["0", "0.01", "1e-5", "2.5e-7",
                                                                   "1e6"]  # fmt: skip
    assert whole_ticks(1, 12) == [2, 4, 6, 8, 10, 12]
    assert whole_ticks(1, 1) == [1]
    assert len(whole_ticks(1, 10_000)) <= 8
    hues = colors([str(i) for i in range(12)])
    assert len(set(hues.values())) == 12
