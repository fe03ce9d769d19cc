"""The measurement of rows in files: its tables, and that every peer of ours trains on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backprop_gpu.errors import ConfigError
from benchmarks import stream


def test_a_table_and_its_peers(tmp_path: Path) -> None:
    rows = stream.Rows(3000, 3, (4,), 64)
    stream.generate(tmp_path, rows)
    X, y = np.load(tmp_path / "X.npy"), np.load(tmp_path / "y.npy")
    assert (X.shape, X.dtype, y.shape) == ((3000, 3), np.float32, (3000, 1))
    assert 0.2 < y.mean() < 0.8
    written = (tmp_path / "X.npy").stat().st_mtime_ns
    stream.generate(tmp_path, rows)
    assert (tmp_path / "X.npy").stat().st_mtime_ns == written
    for peer in ("ours", "ours-files", "floor"):
        worker = stream.StreamWorker(peer, str(tmp_path), rows)
        assert 0.0 < worker.measure(0.05) < 1.0
        assert worker.memory()["VmRSS"] >= worker.memory()["RssAnon"] > 0


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="stream has no '11m'; it has small, 11M"):
        next(stream.rows_of(["11m"], [], 1, 0.0, {}))
