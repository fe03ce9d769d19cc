"""Schedules: closed-form points, joints, ends, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest

from backprop_gpu.errors import ConfigError
from backprop_gpu.maths.schedules import SCHEDULES, get_schedule

HALF = math.sqrt(0.5)
# (spec, total, t, factor)
POINTS: list[tuple[Any, int, int, float]] = [
    *(("constant", 10, t, 1.0) for t in (0, 9, 1000)),
    *(
        ({"name": "step", "every": 3, "gamma": 0.5}, 10, t, f)
        for t, f in ((0, 1), (2, 1), (3, 0.5), (5, 0.5), (6, 0.25))
    ),
    *(({"name": "exponential", "gamma": 0.5}, 10, t, f) for t, f in ((0, 1.0), (1, 0.5), (2, 0.25), (9, 2.0**-9))),
    *(("inverse_scaling", 10, t, f) for t, f in ((0, 1.0), (3, 0.5), (8, 1 / 3), (99, 0.1))),
    *(({"name": "inverse_scaling", "power": 2.0}, 10, t, f) for t, f in ((0, 1.0), (1, 0.25), (2, 1 / 9))),
    *(
        ("cosine", 8, t, f)
        for t, f in ((0, 1.0), (2, (1 + HALF) / 2), (4, 0.5), (6, (1 - HALF) / 2), (8, 0.0), (20, 0.0))
    ),
    ("cosine", 1, 1, 0.0),
    *(({"name": "cosine", "floor": 0.2}, 8, t, f) for t, f in ((0, 1.0), (4, 0.6), (8, 0.2), (9, 0.2))),
    *(
        ({"name": "linear_warmup", "warmup": 4}, 10, t, f)
        for t, f in ((0, 0.25), (1, 0.5), (3, 1.0), (4, 1.0), (9, 1.0))
    ),
    *(
        ({"name": "linear_warmup", "warmup": 4, "floor": 0.0}, 12, t, f)
        for t, f in ((0, 0.25), (3, 1.0), (4, 1.0), (6, (1 + HALF) / 2), (8, 0.5), (12, 0.0), (40, 0.0))
    ),
    # 21 steps, rise 0.4: up over t = 0 .. 8 from 1/5, down over 8 .. 20 to 1/100.
    *(
        ({"name": "one_cycle", "rise": 0.4, "initial_div": 5.0, "final_div": 100.0}, 21, t, f)
        for t, f in (
            (0, 0.2),
            (2, 0.2 + 0.8 * (1 - HALF) / 2),
            (4, 0.6),
            (8, 1.0),
            (14, (1.0 + 0.01) / 2),
            (11, 0.01 + 0.99 * (1 + HALF) / 2),
            (20, 0.01),
            (99, 0.01),
        )
    ),
    # Of 15 steps: (1 - cos(2 pi log2 x))/2 at x = t + 3/2, by mpmath; 1 is where all ends.
    *(
        ("coslog", 15, t, f)
        for t, f in ((0, 0.930430970431204992), (1, 0.71835468846206082), (13, 0.186200800125676788), (99, 0.0))
    ),
    ({"name": "coslog", "cycles": 1}, 1, 0, 0.930430970431204992),
    *(
        ("flat_cosine", 8, t, f)
        for t, f in ((0, 1.0), (3, 1.0), (4, 1.0), (5, (1 + HALF) / 2), (6, 0.5), (8, 0.0), (9, 0.0))
    ),
    *(({"name": "flat_cosine", "flat": 0.0}, 8, t, f) for t, f in ((2, (1 + HALF) / 2), (4, 0.5))),
    ({"name": "flat_cosine", "flat": 1.0}, 8, 7, 1.0),
]


@pytest.mark.parametrize(("spec", "total", "t", "factor"), POINTS)
def test_closed_form_points(spec: Any, total: int, t: int, factor: float) -> None:
    got = get_schedule(spec).factor(t, total)
    assert isinstance(got, float)
    assert got == pytest.approx(factor, rel=1e-14, abs=1e-16)


@pytest.mark.parametrize("total", [2, 10, 101, 10_000])
def test_the_joints_are_continuous(total: int) -> None:
    """From step to step a half cosine over n steps moves by at most pi/(2n) of its height, a line by 1/n."""
    warm = get_schedule({"name": "linear_warmup", "warmup": max(total // 4, 1), "floor": 0.0})
    cycle = get_schedule("one_cycle")
    for schedule, n in ((warm, max(total // 4, 1)), (cycle, 0.3 * (total - 1)), (get_schedule("cosine"), total)):
        values = [schedule.factor(t, total) for t in range(total)]
        assert all(0.0 <= v <= 1.0 for v in values)
        assert max(abs(a - b) for a, b in zip(values[1:], values[:-1], strict=True)) <= math.pi / (2 * n) + 1e-12
        peak = values.index(max(values))
        assert values[: peak + 1] == sorted(values[: peak + 1])
        assert values[peak:] == sorted(values[peak:], reverse=True)


@pytest.mark.parametrize("total", [2, 11, 500])
def test_ends(total: int) -> None:
    cycle = get_schedule("one_cycle")
    assert cycle.factor(0, total) == pytest.approx(1.0 / 25.0, rel=1e-14)
    assert cycle.factor(total - 1, total) == pytest.approx(1e-4, rel=1e-12)
    assert get_schedule({"name": "cosine", "floor": 0.1}).factor(total, total) == pytest.approx(0.1, rel=1e-15)
    up_only = get_schedule({"name": "one_cycle", "rise": 1.0})
    assert up_only.factor(total - 1, total) == 1.0
    down_only = get_schedule({"name": "one_cycle", "rise": 0.0})
    assert down_only.factor(0, total) == 1.0


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("total", [0, 1])
def test_the_shortest_runs_have_a_factor(name: str, total: int) -> None:
    assert 0.0 < get_schedule(name).factor(0, total) <= 1.0


def test_a_run_shorter_than_its_warmup_never_falls_back() -> None:
    schedule = get_schedule({"name": "linear_warmup", "warmup": 10, "floor": 0.0})
    assert len({schedule.factor(10, total) for total in range(1, 10)}) == 1


def invalid_values() -> Iterator[tuple[str, str, float]]:
    """Out-of-range values of every parameter of every schedule, read off its fields."""
    below = {"every": 0, "warmup": 0, "cycles": 0, "initial_div": 0.5, "final_div": 0.5}
    above = {"every": 2**54, "warmup": 2**54, "cycles": 51, "power": 10.5, "initial_div": 1e13, "final_div": 1e13}
    for name, cls in SCHEDULES.items():
        for f in fields(cls):
            for value in (below.get(f.name, -0.5), above.get(f.name, 1.5), math.nan, math.inf, -math.inf):
                yield name, f.name, value


@pytest.mark.parametrize(("name", "parameter", "value"), list(invalid_values()))
def test_values_out_of_range_are_refused(name: str, parameter: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"schedule {name}: {parameter} must be from ") as caught:
        get_schedule({"name": name, parameter: value})
    assert "\n" not in str(caught.value)


RANGES: dict[str, tuple[float, float]] = {
    "every": (1, 2**53),
    "gamma": (0.0, 1.0),
    "power": (0.0, 10.0),
    "floor": (0.0, 1.0),
    "warmup": (1, 2**53),
    "cycles": (1, 50),
    "flat": (0.0, 1.0),
    "rise": (0.0, 1.0),
    "initial_div": (1.0, 1e12),
    "final_div": (1.0, 1e12),
}


@pytest.mark.parametrize(("name", "parameter"), [(n, f.name) for n, c in SCHEDULES.items() for f in fields(c)])
def test_ranges_are_closed_and_end_there(name: str, parameter: str) -> None:
    low, high = RANGES[parameter]
    for end in (low, high):
        assert vars(get_schedule({"name": name, parameter: end}))[parameter] == end
        assert 0.0 <= get_schedule({"name": name, parameter: end}).factor(3, 7) <= 1.0
    outside = (
        (low - 1, high + 1) if isinstance(low, int) else (math.nextafter(low, -1.0), math.nextafter(high, math.inf))
    )
    for value in outside:
        with pytest.raises(ConfigError, match=f"{parameter} must be from "):
            get_schedule({"name": name, parameter: value})


def test_defaults() -> None:
    assert {name: vars(get_schedule(name)) for name in SCHEDULES} == {
        "constant": {},
        "step": {"every": 1000, "gamma": 0.5},
        "exponential": {"gamma": 0.9999},
        "inverse_scaling": {"power": 0.5},
        "cosine": {"floor": 0.0},
        "linear_warmup": {"warmup": 100, "floor": 1.0},
        "one_cycle": {"rise": 0.3, "initial_div": 25.0, "final_div": 1e4},
        "coslog": {"cycles": 4},
        "flat_cosine": {"flat": 0.5},
    }


@pytest.mark.parametrize("name", SCHEDULES)
def test_names_and_pass_through(name: str) -> None:
    schedule = get_schedule(name)
    assert type(schedule) is SCHEDULES[name]
    assert schedule.name == name
    assert get_schedule(schedule) is schedule
    assert get_schedule({"name": name, **vars(schedule)}) == schedule
