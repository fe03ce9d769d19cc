"""Backends of other array namespaces, on which the reference kernels run: array_api_strict and PyTorch."""

from __future__ import annotations

import contextlib
import importlib
from typing import Any

import numpy as np

from .._typing import Array, Namespace
from ..devices import DeviceSpec, one_line
from ..errors import DeviceError, MissingDependencyError
from .base import Backend


def _namespace(module: str, packages: str) -> Namespace:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f"{error.name} is not installed; pip install {packages}") from None
    except Exception as error:  # an installed but broken package may raise anything
        fix = f"reinstall it: pip install --force-reinstall {packages}"
        raise MissingDependencyError(f"{module} cannot be imported ({one_line(error)}); {fix}") from None


class StrictBackend(Backend):
    """array_api_strict: NumPy that allows the standard alone, with make-believe devices that refuse to be mixed."""

    def __init__(self, spec: DeviceSpec) -> None:
        xp = _namespace("array_api_strict", "array-api-strict")
        try:
            device = xp.Device(spec.device)
        except ValueError:
            known = ", ".join(str(d).split("'")[1] for d in xp.__array_namespace_info__().devices())
            raise DeviceError(f"array_api_strict has no device {spec.device!r}; it has {known}") from None
        super().__init__(str(spec), xp, device, f"{spec} was asked for")

    def to_host(self, x: Array) -> np.ndarray:
        return np.array(x.to_device(self.xp.Device("CPU_DEVICE")), copy=True)

    def owns(self, x: Array) -> bool:
        return hasattr(x, "__array_namespace__") and x.__array_namespace__() is self.xp


class TorchBackend(Backend):
    """PyTorch's tensors through array-api-compat, which gives them the standard's names."""

    def __init__(self, spec: DeviceSpec) -> None:
        xp = _namespace("array_api_compat.torch", "array-api-compat torch")
        try:
            # A real operation: torch takes the name of a device that is not there.
            device = (xp.zeros(1, device=spec.device) + 1).device
        except Exception as error:
            fix = "use torch:cpu, or install a torch built for that device"
            raise DeviceError(f"{spec} cannot be used ({one_line(error)}); {fix}") from None
        super().__init__(f"torch:{device}", xp, device, f"{spec} was asked for")

    def to_host(self, x: Array) -> np.ndarray:
        return np.array(x.numpy(force=True), copy=True)

    def owns(self, x: Array) -> bool:
        return isinstance(x, self.xp.Tensor)

    def activate(self) -> contextlib.AbstractContextManager[Any]:
        # As a context, torch.device makes every call slower: on the CPU, the default, it is not needed.
        return contextlib.nullcontext() if self.device.type == "cpu" else self.device

    def synchronize(self) -> None:
        if self.device.type != "cpu":
            getattr(self.xp, self.device.type).synchronize()
