"""Arrays of any namespace at the estimators' door, under scikit-learn's ``array_api_dispatch``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn import get_config
from sklearn.utils._array_api import _convert_to_numpy, get_namespace_and_device


@dataclass(frozen=True)
class Origin:
    """Where an input lives: its namespace and device; ``xp`` is None for NumPy, lists, tables and sparse matrices."""

    xp: Any
    device: Any

    @property
    def name(self) -> str:
        """The namespace with its device, for comparison and messages."""
        return "numpy" if self.xp is None else f"{self.xp.__name__} on {self.device}"


def origin_of(X: Any) -> Origin:
    """Where X lives; NumPy unless array_api_dispatch is on."""
    if not get_config()["array_api_dispatch"] or isinstance(X, np.ndarray):
        return Origin(None, None)
    xp, is_array_api, device = get_namespace_and_device(X)
    plain = not is_array_api or xp.__name__.rpartition(".")[2] == "numpy"
    return Origin(None, None) if plain else Origin(xp, device)


def on_host(x: Any) -> Any:
    """An array as a NumPy array; anything else as it is."""
    origin = origin_of(x)
    return x if origin.xp is None else _convert_to_numpy(x, origin.xp)


def in_kind(result: np.ndarray, origin: Origin) -> Any:
    """A result in the namespace and on the device of an input; text, which no other namespace holds, stays NumPy's."""
    if origin.xp is None or result.dtype.kind not in "biuf":
        return result
    return origin.xp.asarray(result, device=origin.device)


def check_origin(origin: Origin, fitted: str, method: str) -> None:
    """That a method's input lives where ``fit``'s did, under array_api_dispatch, where that is scikit-learn's rule.

    Raises
    ------
    ValueError
        Naming both.
    """
    if get_config()["array_api_dispatch"] and origin.name != fitted:
        raise ValueError(
            f"Inputs passed to {method}() must use the same namespace and the same device as those passed to fit(): "
            f"got {origin.name}, fitted on {fitted}; convert the input, or fit again."
        )
