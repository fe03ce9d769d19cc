"""Tables, Markdown, JSON and pictures from rows that are known."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from backprop_gpu.bench import output
from backprop_gpu.errors import DataError

OURS = {
    "workload": "W1",
    "peer": "ours-native",
    "median": 1.234e-3,
    "q1": 1.2e-3,
    "q3": 1.3e-3,
    "ratio": 1.0,
    "rounds": [1.2e-3, 1.234e-3, 1.3e-3],
    "floor": 6.17e-4,
    "of_floor": 0.5,
    "base": "ours-native",
    "note": "",
}
PEER = OURS | {"peer": "jax-jit", "median": 2.468e-3, "q1": 2.4e-3, "q3": 2.5e-3, "ratio": 2.0, "of_floor": 0.25}
MISSING = {"workload": "W2", "peer": "torch", "note": "not installed: pip install torch"}
STEP = [OURS, PEER, MISSING]
GROWTH: list[dict[str, Any]] = [
    {"axis": "width", "value": 1024, "flops": 1.5e9, "median": 0.004, "q1": 0.004, "q3": 0.005, "exponent": 0.98},
    {"axis": "rows", "value": 2048, "flops": 2.5e9, "median": 0.5, "q1": 0.4, "q3": 0.6, "exponent": None},
]
STARTUP = [{"what": "python alone", "median": 0.02, "q1": 0.01, "q3": 0.03, "ratio": 1.0, "rounds": [0.02]}]
CONTEXT = {
    "command": "backprop-gpu bench step",
    "date": "2026-01-31",
    "machine": "A processor, 2 cores, AVX-512, Linux x86_64",
    "versions": {"Python": "3.12.1", "numpy": "2.4.0"},
    "environment": {"OPENBLAS_CORETYPE": "Haswell"},
    "pools": {"numpy": ["openblas 0.3.31 Haswell 2"], "jax-jit": []},
}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (6.1e-6, "6.1 µs"),
        (9.994e-4, "999 µs"),
        (9.996e-4, "1 ms"),
        (0.0912, "91.2 ms"),
        (0.9996, "1 s"),
        (12.34, "12.3 s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text


def test_cells() -> None:
    assert output.cells("step", OURS) == ["W1", "ours-native", "1.23 ms", "1.2 ms - 1.3 ms", "1.00", "50%", ""]
    assert output.cells("step", MISSING) == ["W2", "torch", "", "", "", "", "not installed: pip install torch"]
    assert output.cells("fit", PEER | {"of_floor": None, "note": "9 epochs"})[-2:] == ["", "9 epochs"]
    assert output.cells("growth", GROWTH[0]) == ["width", "1,024", "1.5e+09", "4 ms", "4 ms - 5 ms", "0.98"]
    assert output.cells("growth", GROWTH[1])[-1] == ""
    assert output.cells("startup", STARTUP[0]) == ["python alone", "20 ms", "10 ms - 30 ms"]


def test_table_on_a_terminal() -> None:
    page = io.StringIO()
    Console(width=120, file=page).print(output.table("step", STEP))
    text = page.getvalue()
    for word in ("bench step", "% of floor", "jax-jit", "2.47 ms", "25%", "pip install torch"):
        assert word in text


def test_markdown() -> None:
    lines = output.markdown("step", [*STEP, MISSING | {"note": "a | b"}], CONTEXT).splitlines()
    assert lines[0] == "### step, 2026-01-31"
    assert "`backprop-gpu bench step`" in lines
    assert "* A processor, 2 cores, AVX-512, Linux x86_64" in lines
    assert "* Python 3.12.1, numpy 2.4.0" in lines
    assert "* Variables of the libraries: `OPENBLAS_CORETYPE=Haswell`" in lines
    assert "* Thread pools: numpy: openblas 0.3.31 Haswell 2" in lines
    assert "* Ratio: time over that of ours-native in the same round; median of the rounds" in lines
    table = [line for line in lines if line.startswith("|")]
    assert table[0] == "| workload | peer | median | quartiles | ratio | % of floor | note |"
    assert table[3] == "| W1 | jax-jit | 2.47 ms | 2.4 ms - 2.5 ms | 2.00 | 25% |  |"
    assert table[-1].endswith("| a \\| b |")
    assert {line.replace("\\|", "").count("|") for line in table} == {8}


def test_markdown_without_pools_or_variables() -> None:
    text = output.markdown("startup", STARTUP, {k: v for k, v in CONTEXT.items() if k != "pools"} | {"environment": {}})
    assert "Variables of the libraries: none" in text
    assert "Thread pools" not in text
    assert "Ratio" not in text


def test_context_names_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    found = output.context("backprop-gpu bench step")
    assert found["environment"]["OPENBLAS_CORETYPE"] == "Haswell"
    assert "numpy" in found["versions"]
    without = output.context("backprop-gpu bench step", ["OPENBLAS_CORETYPE"])["environment"]
    assert "OPENBLAS_CORETYPE" not in without
    assert without["OMP_NUM_THREADS"] == "2"


def test_json(tmp_path: Path) -> None:
    output.write_json("step", STEP, CONTEXT, str(tmp_path / "out.json"))
    read = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert read == {"kind": "step", **CONTEXT, "rows": STEP}
    with pytest.raises(DataError, match="cannot write"):
        output.write_json("step", STEP, CONTEXT, str(tmp_path / "no" / "out.json"))


@pytest.mark.parametrize(("kind", "rows"), [("step", STEP), ("growth", GROWTH), ("startup", STARTUP)])
def test_picture(kind: str, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the picture is drawn by the plot extra")
    output.draw(kind, rows, str(tmp_path / "out.png"))
    assert (tmp_path / "out.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    with pytest.raises(DataError, match="cannot write"):
        output.draw(kind, rows, str(tmp_path / "out.nonsense"))


def test_files_that_cannot_be_written_are_known_before(tmp_path: Path) -> None:
    for path in (tmp_path / "no" / "a.json", tmp_path):
        with pytest.raises(DataError, match=f"cannot write {path}"):
            output.check_files(str(path), None)
    (tmp_path / "old.json").write_text("{}", encoding="utf-8")
    output.check_files(str(tmp_path / "old.json"), None)
    output.check_files(str(tmp_path / "new.json"), None)
    assert [path.name for path in tmp_path.iterdir()] == ["old.json"]
    assert (tmp_path / "old.json").read_text(encoding="utf-8") == "{}"
