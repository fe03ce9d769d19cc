"""The cost of a check, measured on a tiny network with every kernel set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import command, parity_cost


def test_a_row_for_step_and_check_of_every_kernel_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = parity_cost.rows
    monkeypatch.setattr(parity_cost, "rows", lambda *given: whole(*given, (20, 16, 5), 32))
    file, picture = tmp_path / "out.json", tmp_path / "out.png"
    arguments = (
        "parity",
        "--repeats",
        "3",
        "--min-time",
        "0",
        "--json",
        str(file),
        "--plot",
        str(picture),
        "--markdown",
    )
    assert command.run(command.parser().parse_args(arguments)) == 0
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    assert [(row["kernels"], row["what"]) for row in rows] == [
        (kernels, what) for kernels in ("native", "reference") for what in ("step", "check")
    ]
    for step, check in zip(rows[::2], rows[1::2], strict=True):
        assert step["ratio"] == step["peak_ratio"] == 1.0
        assert check["ratio"] > 1.0
        assert check["peak_ratio"] == check["peak"] / step["peak"] > 0.0
        # Weights and their gradients, two state, and what a step keeps: no less than that is allocated.
        assert step["peak"] > 4 * 4 * (20 * 16 + 16 * 5)
    assert picture.stat().st_size > 5000


def test_the_memory_of_a_step_grows_with_the_batch() -> None:
    peaks = [parity_cost.ParityWorker("native", (20, 16, 5), m).peak("step") for m in (64, 640)]
    assert peaks[1] > 3 * peaks[0]
