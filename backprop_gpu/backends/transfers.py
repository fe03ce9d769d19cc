"""Copying batches from the host to a device, one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .._typing import Array

if TYPE_CHECKING:
    from .base import Backend


class Transfers:
    """Write a batch into ``host()``, then ``send()`` it: every operation asked for afterwards finds it in ``outs``.

    This one copies and waits; ``cuda.transfers`` copies while the device computes.
    """

    def __init__(self, backend: Backend, outs: Sequence[Array], dtypes: Sequence[str]) -> None:
        self._backend, self._outs, self._dtypes = backend, list(outs), list(dtypes)
        # NumPy's buffers are on the host already.
        self._host = [
            out if isinstance(out, np.ndarray) else np.empty(out.shape, dtype)
            for out, dtype in zip(outs, dtypes, strict=True)
        ]

    def host(self) -> list[np.ndarray]:
        """Arrays to write the next batch into, of the shapes of ``outs``."""
        return self._host

    def send(self) -> None:
        """Copy them."""
        for out, dtype, host in zip(self._outs, self._dtypes, self._host, strict=True):
            if out is not host:
                out[...] = self._backend.asarray(host, dtype)
