"""Fingerprints of data sets: whether a fit is resumed with the rows that it had."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from ..network.row_source import RowSource

_PART_BYTES, _PARTS = 2**20, 64  # what a fingerprint reads of an array at a time, and how often at most


def fingerprint(rows: Any, dtype: str) -> str:
    """SHA-256 of rows as training reads them: of their shape, and of the values in the network's dtype.

    Of an array of more than 64 MiB the values are those of 64 parts of a MiB, evenly spread, the first and the last
    among them: a resume must not have to read a data set that is larger than memory (of a ``RowSource`` they are 64
    times shorter). Rows of a sparse matrix in CSR
    form are read as dense ones.
    """
    kind = "int64" if rows.dtype == np.int64 else dtype
    sha = hashlib.sha256(f"{kind} {rows.shape}".encode())
    part_bytes = _PART_BYTES // 64 if isinstance(rows, RowSource) else _PART_BYTES  # whose rows may be far apart
    part = max(1, part_bytes // max(1, rows.shape[1] * np.dtype(kind).itemsize))
    starts = np.arange(0, rows.shape[0], part)
    if len(starts) > _PARTS:
        starts = np.linspace(0, rows.shape[0] - part, _PARTS).astype(np.int64)
    for start in starts:
        values = rows[start : start + part]
        sha.update(np.ascontiguousarray(values.toarray() if hasattr(values, "toarray") else values, kind).data)
    return sha.hexdigest()
