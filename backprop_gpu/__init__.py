"""An L-layer network with hand-written backpropagation that runs unchanged on NumPy and on CUDA through CuPy.

>>> from backprop_gpu import DenseNet, Trainer
>>> net = DenseNet([30, 16, 8, 1], loss="binary_cross_entropy", device="auto")
>>> history = Trainer(net, epochs=20).fit(X, y)          # X (n_samples, n_features), y (n_samples,)
>>> labels = net.predict(X)

Names are loaded when they are first used, so that importing the package costs little more than importing NumPy.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

TYPE_CHECKING = False  # importing typing would take longer than all else before a signal is answered (__main__)

__version__ = "0.1.0"

_HOMES = {
    "Backend": "backends.base",
    "get_backend": "backends.select",
    "DenseNet": "network.dense_net",
    "TrainingStep": "network.step",
    "Trainer": "training.trainer",
    "EarlyStopping": "training.early_stopping",
    "History": "training.history",
    "Callback": "training.callbacks",
    "Checkpoint": "training.checkpoint",
    "Epoch": "training.callbacks",
    "TensorBoard": "training.tensorboard",
    "MLflow": "training.trackers",
    "WandB": "training.trackers",
    "Preprocessor": "data.preprocessing",
    "open_rows": "data.row_files",
    "read_table": "data.sources",
    "MLPClassifier": "estimators.classifier",
    "MLPRegressor": "estimators.regressor",
    "diagnose": "explain.diagnosing",
    "explain": "explain",
    "gradcheck": "gradcheck",
    "load": "model",
    "train": "build",
    "Model": "model",
    "load_config": "config_reading",
    "write_report": "report.run_report",
    "BackpropError": "errors",
}

__all__ = ["__version__", *sorted(_HOMES)]
_MODULES = ("accel", "backends", "data", "errors", "estimators", "maths", "network", "parity", "textbook", "training")

if TYPE_CHECKING:
    from typing import Any

    from .backends.base import Backend as Backend
    from .backends.select import get_backend as get_backend
    from .build import train as train
    from .config_reading import load_config as load_config
    from .data.preprocessing import Preprocessor as Preprocessor
    from .data.row_files import open_rows as open_rows
    from .data.sources import read_table as read_table
    from .errors import BackpropError as BackpropError
    from .estimators.classifier import MLPClassifier as MLPClassifier
    from .estimators.regressor import MLPRegressor as MLPRegressor
    from .explain import explain as explain
    from .explain.diagnosing import diagnose as diagnose
    from .gradcheck import gradcheck as gradcheck
    from .model import Model as Model
    from .model import load as load
    from .network.dense_net import DenseNet as DenseNet
    from .network.step import TrainingStep as TrainingStep
    from .report.run_report import write_report as write_report
    from .training.callbacks import Callback as Callback
    from .training.callbacks import Epoch as Epoch
    from .training.checkpoint import Checkpoint as Checkpoint
    from .training.early_stopping import EarlyStopping as EarlyStopping
    from .training.history import History as History
    from .training.tensorboard import TensorBoard as TensorBoard
    from .training.trackers import MLflow as MLflow
    from .training.trackers import WandB as WandB
    from .training.trainer import Trainer as Trainer


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES])


class _Package(ModuleType):
    """The type of this module: importing a submodule does not hide a public name that it shares (gradcheck)."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
