"""Rounds go around, and ratios are paired by round."""

from __future__ import annotations

import pytest

from benchmarks.interleaved import interleave, summary


def test_everybody_once_a_round_and_the_next_one_starts() -> None:
    calls: list[str] = []

    def measure(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    seconds = interleave(["a", "b", "c"], 4, measure)
    assert "".join(calls) == "abc" + "bca" + "cab" + "abc"
    assert seconds == {"a": [1, 6, 8, 10], "b": [2, 4, 9, 11], "c": [3, 5, 7, 12]}


def test_ratios_are_of_the_same_round() -> None:
    ours = [1.0, 2.0, 10.0]
    found = summary([3.0, 2.0, 20.0], ours)
    assert found["ratio"] == 2.0  # of 3, 1, 2; the medians' ratio would be 1.5
    assert found["repeats"] == [3.0, 2.0, 20.0]
    assert summary(ours, ours)["ratio"] == 1.0


def test_a_machine_that_slows_down_does_not_change_the_ratio() -> None:
    slow = [1.0, 1.5, 2.5, 4.0, 8.0]
    assert summary([3.0 * s for s in slow], slow)["ratio"] == pytest.approx(3.0, rel=1e-12)


def test_median_and_quartiles() -> None:
    found = summary([4.0, 1.0, 3.0, 2.0, 5.0], [1.0] * 5)
    assert (found["q1"], found["median"], found["q3"]) == (2.0, 3.0, 4.0)
