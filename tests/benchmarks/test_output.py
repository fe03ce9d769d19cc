"""Tables, Markdown, JSON and pictures from rows that are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backprop_gpu.errors import DataError
from benchmarks import output
from benchmarks.command import KINDS
from benchmarks.datasets import DATASETS

OURS = {
    "workload": "W1",
    "peer": "ours",
    "median": 1.234e-3,
    "q1": 1.2e-3,
    "q3": 1.3e-3,
    "ratio": 1.0,
    "repeats": [1.2e-3, 1.234e-3, 1.3e-3],
    "roofline": 6.17e-4,
    "of_roofline": 0.5,
    "base": "ours",
    "note": "",
}
PEER = OURS | {"peer": "jax-jit", "median": 2.468e-3, "q1": 2.4e-3, "q3": 2.5e-3, "ratio": 2.0, "of_roofline": 0.25}
MISSING = {"workload": "W2", "peer": "torch", "note": "not installed: pip install torch"}
STEP = [OURS, PEER, MISSING]
SCALING: list[dict[str, Any]] = [
    {"axis": "width", "value": 1024, "flops": 1.5e9, "median": 0.004, "q1": 0.004, "q3": 0.005, "exponent": 0.98},
    {"axis": "rows", "value": 2048, "flops": 2.5e9, "median": 0.5, "q1": 0.4, "q3": 0.6, "exponent": None},
]
STARTUP = [{"what": "python alone", "median": 0.02, "q1": 0.01, "q3": 0.03, "ratio": 1.0, "repeats": [0.02]}]
CONTEXT = {
    "command": "python -m benchmarks step",
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
    assert output.cells("step", OURS) == ["W1", "ours", "1.23 ms", "1.2-1.3 ms", "1.00", "50%", ""]
    assert output.cells("step", MISSING) == ["W2", "torch", "", "", "", "", "not installed: pip install torch"]
    assert output.cells("fit", PEER | {"of_roofline": None, "note": "9 epochs"})[-2:] == ["", "9 epochs"]
    assert output.cells("scaling", SCALING[0]) == ["width", "1,024", "1.5e+09", "4 ms", "4-5 ms", "0.98"]
    assert output.cells("scaling", SCALING[1])[-1] == ""
    assert output.cells("startup", STARTUP[0]) == ["python alone", "20 ms", "10-30 ms"]


def test_table_on_a_terminal() -> None:
    other = MISSING | {"peer": "torch-compile"}
    assert output.table("step", [*STEP, other, OURS | {"workload": "W3", "note": "not for long"}]).splitlines() == [
        "workload  peer      median   quartiles  ratio  roofline",
        "W1        ours     1.23 ms  1.2-1.3 ms   1.00       50%",
        "W1        jax-jit  2.47 ms  2.4-2.5 ms   2.00       25%",
        "",
        "W3        ours     1.23 ms  1.2-1.3 ms   1.00       50%",
        "",
        "W2 torch, torch-compile: not installed: pip install torch",
        "W3 ours: not for long",
    ]


def longest(kind: str) -> list[dict[str, Any]]:
    """A row of a measurement with the longest names and numbers there are."""
    slow = {"median": 99.9e-3, "q1": 99.8e-3, "q3": 99.9e-3, "ratio": 100.01, "rounds": []}
    share = {"of_roofline": 1.25, "score": -0.1234, "spread": 0.1234, "epochs": 200, "fit": 99.9, "gflops": 1000.0}
    parity = {"peak": 10**10, "peak_ratio": 10.25, "kernels": "reference", "axis": "width"}
    commit = "commit:" + "1464508"
    workloads = {
        "estimators": max((table.name for table in DATASETS), key=len),
        "products": "float64 A^TB 4096x4096x3000",
        "tabular": "breast_cancer",
    }
    name = {"workload": workloads.get(kind, "W4t"), "peer": "NumPy" if kind == "products" else commit}
    what = {"what": "check" if kind == "parity" else "train digits, 20 epochs, whole process"}
    sizes = {"value": 262_144, "flops": 2.5e11, "exponent": -0.98}
    return [slow | share | parity | name | what | sizes | {"note": "not equal work: loss 31 of 32 is off " * 3}]


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_fits_into_80_columns_with_its_names_whole(kind: str) -> None:
    rows = longest(kind)
    text = output.table(kind, rows)
    assert max(map(len, text.splitlines())) <= 80
    for cell in output.cells(kind, rows[0])[: 2 if kind != "startup" else 1]:
        assert cell in text


def test_markdown() -> None:
    lines = output.markdown("step", [*STEP, MISSING | {"note": "a | b"}], CONTEXT).splitlines()
    assert lines[0] == "### step, 2026-01-31"
    assert "`python -m benchmarks step`" in lines
    assert "* A processor, 2 cores, AVX-512, Linux x86_64" in lines
    assert "* Python 3.12.1, numpy 2.4.0" in lines
    assert "* Variables of the libraries: `OPENBLAS_CORETYPE=Haswell`" in lines
    assert "* Thread pools: numpy: openblas 0.3.31 Haswell 2" in lines
    assert "* Ratio: time over that of ours in the same repeat; median of the repeats" in lines
    table = [line for line in lines if line.startswith("|")]
    assert table[0] == "| workload | peer | median | quartiles | ratio | roofline | note |"
    assert table[3] == "| W1 | jax-jit | 2.47 ms | 2.4-2.5 ms | 2.00 | 25% |  |"
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
    found = output.context("python -m benchmarks step")
    assert found["environment"]["OPENBLAS_CORETYPE"] == "Haswell"
    assert "numpy" in found["versions"]
    without = output.context("python -m benchmarks step", ["OPENBLAS_CORETYPE"])["environment"]
    assert "OPENBLAS_CORETYPE" not in without
    assert without["OMP_NUM_THREADS"] == "2"


def test_json(tmp_path: Path) -> None:
    output.write_json("step", STEP, CONTEXT, str(tmp_path / "out.json"))
    read = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert read == {"kind": "step", **CONTEXT, "rows": STEP}
    with pytest.raises(DataError, match="cannot write"):
        output.write_json("step", STEP, CONTEXT, str(tmp_path / "no" / "out.json"))


@pytest.mark.parametrize(("kind", "rows"), [("step", STEP), ("scaling", SCALING), ("startup", STARTUP)])
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
