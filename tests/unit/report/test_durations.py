from __future__ import annotations

import pytest

from bonas_core.report.durations import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.02, "20 ms"),
        (6.54, "6.5 s"),
        (125, "2 min 5 s"),
        (36 * 3600 + 60, "36 h 1 min"),
        (76 * 3600 + 60, "3 days 4 h"),
    ],
)
def test_seconds_are_said_in_the_unit_that_suits_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
