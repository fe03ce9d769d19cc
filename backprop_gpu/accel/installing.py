"""Replace scikit-learn's methods: now if its module is loaded, else as soon as it is imported."""

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
    _replace_methods()


def import_accelerated(module: str, name: str, settings: usage_report.Settings) -> type:
    """Unpickle hook: return a class of scikit-learn's, after replacing its methods in this process too."""
    if usage_report.settings() != settings:
        usage_report.adopt(settings)
        _replace_methods()
    cls: type = getattr(importlib.import_module(module), name)
    return cls


def uninstall() -> None:
    """Restore scikit-learn's methods; fitted estimators stay as they are."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _ImportHook)]
    if TARGET in sys.modules:
        from .replacing import restore

        restore(sys.modules[TARGET])


def _replace_methods() -> None:
    if TARGET in sys.modules:
        _replace(sys.modules[TARGET])
    elif not any(isinstance(finder, _ImportHook) for finder in sys.meta_path):
        sys.meta_path.insert(0, _ImportHook())


def _replace(module: ModuleType) -> None:
    from .replacing import replace
    from .workers import accelerate_workers

    accelerate_workers(replace(module), import_accelerated)


class _ImportHook(MetaPathFinder):
    """Import hook that replaces the methods right after scikit-learn's module has been executed."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The spec of scikit-learn's module, with the replacement added to its loader; None for other modules."""
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
