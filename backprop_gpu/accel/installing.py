"""Put the replacement in place: now if scikit-learn's module is loaded, else at the moment it is."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from ..devices import parse
from ..errors import ConfigError
from . import usage_report

TARGET = "sklearn.neural_network._multilayer_perceptron"


def install(*, device: str = "auto", dtype: str | None = None, verbose: bool = False) -> None:
    """Run the perceptrons of scikit-learn on backprop_gpu from now on; again, to change the settings.

    Parameters
    ----------
    device : str, default "auto"
        ``"auto" | "cpu" | "cuda[:i]" | NAMESPACE[:DEVICE]``; auto reads BACKPROP_GPU_DEVICE, else takes the faster.
    dtype : {"float32", "float64"} or None, default None
        What is computed in; None: the input's, as in scikit-learn.
    verbose : bool, default False
        A line on standard error for each call.

    Raises
    ------
    DeviceError, ConfigError
        If ``device`` is not of that form, ``dtype`` none of those. A device that is not there is no error: the fits
        are then left to scikit-learn, and :func:`report` says why.
    """
    if device != "auto":
        parse(device)
    if dtype not in (None, "float32", "float64"):
        raise ConfigError(f"dtype must be float32 or float64, got {dtype!r}")
    usage_report.begin(device, dtype, verbose)
    _put_in_place()


def arrived(module: str, name: str, settings: usage_report.Settings) -> type:
    """A class in a process that an accelerated one has started, after the same has been done there."""
    if usage_report.settings() != settings:
        usage_report.adopt(settings)
        _put_in_place()
    cls: type = getattr(importlib.import_module(module), name)
    return cls


def uninstall() -> None:
    """Give scikit-learn its own methods back; what was fitted stays as it is."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Watch)]
    if TARGET in sys.modules:
        from .replacing import restore

        restore(sys.modules[TARGET])


def _put_in_place() -> None:
    if TARGET in sys.modules:
        _replace(sys.modules[TARGET])
    elif not any(isinstance(finder, _Watch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watch())


def _replace(module: ModuleType) -> None:
    from .replacing import replace
    from .workers import send_along

    send_along(replace(module), arrived)


class _Watch(MetaPathFinder):
    """Waits for the import of scikit-learn's module and has the methods replaced when it has run."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The spec that the other finders give, with one more thing to do at the end; None for other modules."""
        if name != TARGET:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader.exec_module = _then(spec.loader, _replace)  # type: ignore[method-assign, assignment]
                return spec
        return None


def _then(loader: Loader, do: Callable[[ModuleType], None]) -> Callable[[ModuleType], None]:
    run = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        run(module)
        do(module)

    return exec_module
