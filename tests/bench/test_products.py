"""Products timed beside OpenBLAS's: both make the same matrices."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba", reason="compiled kernels need numba; pip install 'backprop-gpu[fast]'")

from backprop_gpu.backends.host.compiled import products as chosen
from backprop_gpu.bench import products
from backprop_gpu.bench.command import add_bench, run_bench
from backprop_gpu.errors import DeviceError


@pytest.mark.skipif(chosen._processor() is None, reason="this processor has no product code of its own")
def test_two_rows_a_product(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole, parser, file = products.rows, argparse.ArgumentParser(), tmp_path / "out.json"
    monkeypatch.setattr(products, "rows", lambda *given: whole(*given, [(16, 24, 8)]))
    add_bench(parser)
    assert run_bench(parser.parse_args(["products", "--rounds", "2", "--slice", "0.001", "--json", str(file)])) == 0
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    assert [(row["workload"], row["peer"]) for row in rows] == [
        (f"{dtype}: 16 x 24 over 8{turned}", maker)
        for dtype in ("float32", "float64")
        for turned in ("", ", B transposed")
        for maker in products.MAKERS
    ]
    for row in rows:
        assert row["gflops"] == pytest.approx(2e-9 * 16 * 24 * 8 / row["median"])


@pytest.mark.skipif(chosen._processor() is None, reason="this processor has no product code of its own")
@pytest.mark.parametrize("turned", [False, True])
def test_what_is_timed_is_the_product(turned: bool) -> None:
    bench = products.Bench()
    bench.prepare("float64", (17, 25, 9), turned)
    made = {}
    for maker in products.MAKERS:
        bench.turn(maker, 0.0)
        _, A, _, B, C, *_ = bench._tapes[maker].calls[0].arguments
        assert isinstance(A, np.ndarray)
        assert isinstance(B, np.ndarray)
        assert isinstance(C, np.ndarray)
        np.testing.assert_allclose(C, A @ (B.T if turned else B), rtol=1e-13, atol=1e-13)
        made[maker] = C.copy()
        C[...] = 0.0
    assert made.keys() == {"ours", "OpenBLAS"}


def test_without_product_code_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chosen, "_processor", lambda: None)
    with pytest.raises(DeviceError, match="AVX2"):
        products.Bench()
