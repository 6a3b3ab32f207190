"""The figure of kappas draws the numbers it is given."""

import pytest

from allreview.evaluation.figures import agreement_figure


def test_each_kappa_is_a_dot_with_its_interval() -> None:
    drawn = agreement_figure([("Ann and Ben", 0.71, [0.6, 0.8]), ("Ann and Cleo", -0.2, None)])
    first, second = drawn.data
    assert (first.x, first.y, first.text) == ((0.71,), ("Ann and Ben",), ("0.71",))
    assert first.error_x.array[0] == pytest.approx(0.09)
    assert first.error_x.arrayminus[0] == pytest.approx(0.11)
    assert "0.60 to 0.80" in first.hovertemplate
    assert (second.error_x.array[0], second.error_x.arrayminus[0]) == (0, 0)
    assert drawn.layout.xaxis.range[0] < -0.2  # agreement below chance is not cut off
