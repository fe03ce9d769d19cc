"""Products timed beside NumPy's: both make the same matrices."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from backprop_gpu.backends.cpu.library import unavailable_reason
from backprop_gpu.bench import products
from backprop_gpu.bench.command import add_bench, run_bench

pytestmark = pytest.mark.skipif(bool(unavailable_reason()), reason=unavailable_reason())


def test_two_rows_a_product(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    all_of_them, parser, file = products.rows_of, argparse.ArgumentParser(), tmp_path / "out.json"
    monkeypatch.setattr(products, "rows_of", lambda *given: all_of_them(*given, [(16, 24, 8)]))
    add_bench(parser)
    assert run_bench(parser.parse_args(["products", "--rounds", "2", "--slice", "0.001", "--json", str(file)])) == 0
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    assert [(row["workload"], row["peer"]) for row in rows] == [
        (f"{dtype}: {form}, 16 x 24 over 8", maker)
        for dtype in ("float32", "float64")
        for form in products.FORMS
        for maker in products.MAKERS
    ]
    for row in rows:
        assert row["gflops"] == pytest.approx(2e-9 * 16 * 24 * 8 / row["median"])


@pytest.mark.parametrize("form", products.FORMS)
def test_what_is_timed_is_the_product(form: str) -> None:
    bench = products.Bench()
    bench.prepare("float64", (17, 25, 9), form)
    for maker in products.MAKERS:
        bench._C[...] = 0.0
        bench.turn(maker, 0.0)
        A, B = bench._arrays
        np.testing.assert_allclose(bench._C, A @ B, rtol=1e-13, atol=1e-13)
