"""What a report shows: table, JSON, picture."""

from __future__ import annotations

import io
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from parity.faults import EARLY, FAULTS, NAN, FaultyBackend
from rich.console import Console

from backprop_gpu.errors import MissingDependencyError
from backprop_gpu.parity.checking import check
from backprop_gpu.parity.findings import Finding
from backprop_gpu.parity.plot import LARGEST, _tiles
from backprop_gpu.parity.report import Report


def good() -> Report:
    return check(EARLY.net(), *EARLY.rows(), **EARLY.settings)


def bad(name: str = "one_over_m_twice") -> Report:
    fault = FAULTS[name]
    return check(fault.plan.net(FaultyBackend(fault)), *fault.plan.rows(), **fault.plan.settings)


def text(report: Report) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(report.table())
    return console.export_text()


def test_the_table_has_a_line_per_tensor_with_its_verdict() -> None:
    report = bad()
    lines = text(report).splitlines()
    assert "numpy" in lines[0]
    assert "fp32" in lines[0]
    row = next(line for line in lines if " dW3 " in line)
    for cell in ("dense_vjp_params", "4x6", " 20 ", "WRONG"):
        assert cell in row
    assert all(len(line) <= 80 for line in lines)
    for f in report.findings:
        assert any(f.tensor in line for line in lines)
    assert "WRONG" not in text(good())


def test_the_lines_begin_with_the_summary_and_say_what_is_wrong_and_why() -> None:
    report = bad()
    first, second, *_ = report.lines()
    assert first == report.summary()
    assert first.startswith("parity wrong at dW3")
    assert second.startswith("wrong dW3 [")
    assert "the 1/m is applied twice" in second
    assert good().lines() == [good().summary()]


def test_json_says_everything_and_is_strict() -> None:
    report = bad("relu_prime_is_1_at_0")
    found = json.loads(report.to_json(), parse_constant=lambda c: pytest.fail(f"{c} is no JSON"))
    assert found["ok"] is False
    assert found["first"]["tensor"] == "dZ1"
    assert found["first"]["ratio"] == "inf"
    assert found["apart"] == ["dZ1"]
    assert found["about"]["sizes"] == [5, 6, 6, 4, 3]
    assert [f["tensor"] for f in found["findings"]] == [f.tensor for f in report.findings]
    assert found["summary"] == report.summary()
    assert json.loads(good().to_json())["first"] is None


@pytest.mark.parametrize("which", ["good", "bad", "nan", "exact", "vector"])
def test_the_picture_is_written(tmp_path: Path, which: str) -> None:
    report = {
        "good": good,
        "bad": bad,
        "nan": lambda: check(NAN.net(), *NAN.rows()),
        "exact": lambda: bad("relu_prime_is_1_at_0"),
        "vector": lambda: bad("sign_of_the_update"),
    }[which]()
    for name in ("picture.png", "picture.svg"):
        report.plot(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 5000
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    picture = (tmp_path / "picture.svg").read_text()
    assert picture.count("<image") == 2, "the heat map and its scale"


def test_a_picture_of_a_tensor_that_was_not_kept_is_judged_again(tmp_path: Path) -> None:
    report = good()
    assert report.worst.tensor not in report.comparisons
    report.plot(tmp_path / "a.png")
    bare = replace(report, trace=None)
    bare.plot(tmp_path / "b.png")
    assert (tmp_path / "a.png").stat().st_size != (tmp_path / "b.png").stat().st_size


def test_without_matplotlib_the_cure_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(MissingDependencyError, match="pip install matplotlib"):
        good().plot(tmp_path / "x.png")


def test_large_tensors_are_shown_in_tiles_that_keep_the_largest_ratio() -> None:
    ratio = np.zeros((1000, 700))
    ratio[999, 699] = 5.0
    ratio[501, 3] = 2.0
    tiles = _tiles(ratio)
    assert tiles.shape == (LARGEST, LARGEST)
    assert tiles[-1, -1] == 5.0
    assert sorted(tiles[tiles > 0]) == [2.0, 5.0]
    line = _tiles(np.arange(10.0))
    assert line.shape == (4, 3)
    assert line.max() == 9.0


def test_two_steps_are_merged_by_the_worse() -> None:
    one = good()
    f = one.steps[0][5]
    worse = replace(f, ratio=0.99)
    both = replace(one, steps=[one.steps[0], [replace(x, ratio=0.0) for x in one.steps[0] if x is not f] + [worse]])
    assert [x.tensor for x in both.findings] == [x.tensor for x in one.findings]
    assert next(x for x in both.findings if x.tensor == f.tensor) == worse
    wrong = replace(worse, status="wrong", ratio=3.0)
    late = replace(one, steps=[one.steps[0], [wrong]])
    assert late.first == wrong
    assert not late.ok


def test_the_distance_of_what_must_be_exact_is_said_in_words() -> None:
    found = Finding("dense", "A1", (2, 3), 1, math.inf, got=0.5, want=0.25)
    assert found.distance == "where no difference is allowed"
    assert replace(found, got=math.nan).distance == "not finite"
    assert replace(found, ratio=2.5).distance == "2.5 of the bound"
