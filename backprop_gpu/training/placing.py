"""Where a data set is stored: on the device, on the host, or in files of which batches are read."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DeviceError
from ..network.dense_net import DenseNet
from ..network.plan import amount
from .batches import Batches, StreamedBatches
from .source_batches import SourceBatches, is_source

SHARE = 0.5  # of the memory that is available, which `auto` gives to the data set


def place_data(
    net: DenseNet,
    rows: tuple[np.ndarray, np.ndarray, np.ndarray | None],
    data_on: str,
    notes: list[str],
    **settings: Any,
) -> Batches:
    """Batches of a data set on the device, or on the host if ``data_on`` says so or, for ``auto``, if it does not fit.

    Of a ``RowSource`` batches are read as they are needed, whatever ``data_on`` says.

    Raises
    ------
    DeviceError
        If it has to be on the device and does not fit.
    """
    if is_source(rows):
        return SourceBatches(net, *rows, **settings)
    backend, itemsize = net.backend, np.dtype(net.dtype).itemsize
    needed = sum(x.size * (8 if x.dtype == np.int64 else itemsize) for x in rows if x is not None) + 8 * len(rows[0])
    if on_device(data_on, needed, backend.available()):
        try:
            return Batches(net, *rows, **settings)
        except MemoryError:
            if data_on == "device":
                raise DeviceError(
                    f"the data set ({amount(needed)}) does not fit on {backend.name}; set training.data_on: host"
                ) from None
        backend.free()
    if data_on == "auto":
        notes.append(f"the data set ({amount(needed)}) stays on the host; each batch is copied to {backend.name}")
    return StreamedBatches(net, *rows, **settings)


def on_device(data_on: str, needed: int, available: int | None) -> bool:
    """Whether a data set of ``needed`` bytes is to be uploaded."""
    return data_on == "device" or (data_on == "auto" and (available is None or needed <= SHARE * available))
