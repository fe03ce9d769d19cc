"""Products timed beside NumPy's: both make the same matrices."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from backprop_gpu.backends.cpu.library import unavailable_reason
from benchmarks import command, products

pytestmark = pytest.mark.skipif(bool(unavailable_reason()), reason=unavailable_reason())


def test_a_row_for_each_maker_of_a_product(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    all_of_them, file = products.rows_of, tmp_path / "out.json"
    monkeypatch.setattr(products, "rows_of", lambda *given: all_of_them(*given, [(16, 24, 8)]))
    words = ["products", "--repeats", "2", "--min-time", "0.001", "--json", str(file)]
    assert command.run(command.parser().parse_args(words)) == 0
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    assert [(row["workload"], row["peer"]) for row in rows] == [
        (f"{dtype} {form} 16x24x8", maker)
        for dtype in ("float32", "float64")
        for form in products.FORMS
        for maker in products.makers_of(dtype)
    ]
    for row in rows:
        assert row["gflops"] == pytest.approx(2e-9 * 16 * 24 * 8 / row["median"])


@pytest.mark.parametrize("form", products.FORMS)
def test_what_is_timed_is_the_product(form: str) -> None:
    worker = products.ProductWorker()
    worker.prepare("float64", (17, 25, 9), form)
    for maker in products.makers_of("float64"):
        worker._C[...] = 0.0
        worker.measure(maker, 0.0)
        A, B = worker._arrays
        np.testing.assert_allclose(worker._C, A @ B, rtol=1e-13, atol=1e-13)
