"""A run that kills its worker again and again ends as failed; one that gets on does not."""

from pathlib import Path

import pytest

from allreview.errors import UserError
from allreview.training.attempts import FILE, MOST, begin_attempt, end_attempts


def test_the_same_place_again_and_again_is_given_up(tmp_path: Path) -> None:
    for _ in range(MOST):
        begin_attempt(tmp_path, "fit 3")
    with pytest.raises(UserError, match="ran out of memory"):
        begin_attempt(tmp_path, "fit 3")
    begin_attempt(tmp_path, "fit 3")  # somebody who starts it again gets as many attempts


def test_progress_begins_the_count_anew(tmp_path: Path) -> None:
    for epoch in range(3 * MOST):
        begin_attempt(tmp_path, f"fit {epoch}")
        begin_attempt(tmp_path, f"fit {epoch}")


def test_a_damaged_count_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{")
    begin_attempt(tmp_path, "fit 1")
    end_attempts(tmp_path)
    assert list(tmp_path.iterdir()) == []
    end_attempts(tmp_path)
