import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipo.report.charts import Scale, make_chart

numbers = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))


@given(st.lists(numbers, min_size=1, max_size=20))
def test_a_scale_holds_all_values_between_its_ends(values):
    scale = Scale.over(values, 0, 100)
    assert all(-0.1 <= scale(value) <= 100.1 for value in values)
    assert scale(scale.low) == 0
    assert scale(scale.high) == 100


def test_ticks_are_round_numbers():
    assert Scale.over([0, 40], 0, 1, about=8).ticks == (0, 5, 10, 15, 20, 25, 30, 35, 40)
    assert Scale.over([41.2, 43.9], 0, 1).ticks == pytest.approx((41, 42, 43, 44))


def test_steps_are_never_divided():
    assert Scale.over([0, 3], 0, 1, about=8, least=1).ticks == (0, 1, 2, 3)


def test_a_chart_places_dots_and_lines_on_the_same_scales():
    chart = make_chart(("t", "x", "y"), [(1, 2.0, "dot", False)], [("line", [(0, 1.0), (1, 2.0)])])
    assert chart is not None
    assert (chart.dots[0].x, chart.dots[0].y) == (chart.lines[0][1][1].x, chart.lines[0][1][1].y)
    assert chart.path(chart.lines[0][1]).count(",") == 2
