"""Moving arrays to array_api_strict, its devices, and back."""

from __future__ import annotations

from typing import Any

import array_api_strict as xs
import numpy as np

DEVICES = ("CPU_DEVICE", "device1")


def to_strict(x: Any, device: str = "device1") -> Any:
    """``x`` on a device of array_api_strict, its dtype kept."""
    return xs.asarray(x, device=xs.Device(device))


def to_host(x: Any, device: str = "device1") -> np.ndarray:
    """``x`` as a NumPy array, after making sure that it is an array of that device."""
    assert x.device == xs.Device(device)
    return np.asarray(x.to_device(xs.Device("CPU_DEVICE")))
