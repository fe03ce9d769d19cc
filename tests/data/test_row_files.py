"""Rows of .npy files that stay on the disk."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from backprop_gpu.data import row_files
from backprop_gpu.data.row_files import open_rows
from backprop_gpu.errors import ConfigError, DataError


@pytest.mark.parametrize("dtype", ["float32", "int16", ">f4"])
@pytest.mark.parametrize("way", ["loaded", "read", "mapped"])
def test_rows_are_those_of_the_array(tmp_path: Path, dtype: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way != "loaded":
        monkeypatch.setattr(row_files, "LOADED_BYTES", 0)
    if way == "mapped":
        monkeypatch.delattr(os, "pread")  # as where the system has none
    X = (np.random.default_rng(0).normal(size=(1000, 3)) * 9).astype(dtype)
    (tmp_path / "parts").mkdir()
    for k, part in enumerate(np.split(X, [1, 400, 401])):
        np.save(tmp_path / "parts" / f"X-{k:03d}.npy", part)
    np.save(tmp_path / "X.npy", X)
    for name in ("X.npy", "parts"):
        found = open_rows(tmp_path / name)
        assert (found.shape, found.dtype, len(found)) == (X.shape, X.dtype, 1000)
        rows = np.random.default_rng(1).integers(0, 1000, 300)
        for part in (rows, rows[:0], slice(0, 1000), slice(390, 402), slice(5, 5), slice(-3, None), slice(9, 2, -2)):
            np.testing.assert_array_equal(found[part], X[part])
        for wrong in (np.array([3, 1000]), np.array([-1001])):
            with pytest.raises(IndexError):
                found[wrong]


def test_a_vector_is_one_column(tmp_path: Path) -> None:
    np.save(tmp_path / "y.npy", np.arange(5))
    assert open_rows(tmp_path / "y.npy")[np.array([3, 0])].tolist() == [[3], [0]]
    assert open_rows(tmp_path / "y.npy")[1:3].tolist() == [[1], [2]]


def test_what_cannot_be_rows_is_refused(tmp_path: Path) -> None:
    for name, array, problem in (
        ("text.npy", np.array(["a"]), "must hold rows"),
        ("cube.npy", np.zeros((2, 2, 2)), "must hold rows"),
        ("none.npy", np.zeros((0, 2)), "must hold rows"),
        ("columns.npy", np.asfortranarray(np.zeros((5, 3))), "numpy.ascontiguousarray"),
    ):
        np.save(tmp_path / name, array)
        with pytest.raises(DataError, match=problem):
            open_rows(tmp_path / name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"holds no \.npy files"):
        open_rows(tmp_path / "empty")
    (tmp_path / "mixed").mkdir()
    np.save(tmp_path / "mixed" / "0.npy", np.zeros((2, 2)))
    np.save(tmp_path / "mixed" / "1.npy", np.zeros((2, 3)))
    with pytest.raises(DataError, match="2 of float64 and 3 of float64"):
        open_rows(tmp_path / "mixed")


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_files, "LOADED_BYTES", 0)
    np.save(tmp_path / "X.npy", np.zeros((1000, 3)))
    found = open_rows(tmp_path / "X.npy")
    with (tmp_path / "X.npy").open("r+b") as file:
        file.truncate(9000)
    for rows in (slice(0, 1000), np.array([3, 999])):
        with pytest.raises(DataError, match="has become shorter"):
            found[rows]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says what is resident")
def test_no_pages_of_the_file_stay_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_files, "LOADED_BYTES", 0)
    X = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", np.float32, (600_000, 28))  # 67 MB
    X[:] = 1.0
    del X
    found, before = open_rows(tmp_path / "X.npy"), resident()
    rng = np.random.default_rng(0)
    for _ in range(10):
        found[rng.integers(0, 600_000, 4096)]
    found[0:50_000]
    assert resident() - before < 12_000_000  # mapped, these rows would be nearly all of the file


def resident() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
