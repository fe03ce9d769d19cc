"""What each part of ``preset: tabular`` brings: the preset as a configuration trains it, with one thing changed.

Peers of ``python -m benchmarks tabular``, by name; ``preset-yaml`` is the preset itself, from a CSV file. Factors of
learning rates are RealMLP's.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

TARGET = "the target"
_NETS = {"members": 4, "adapters": "none"}
_WAVES = dict.fromkeys(("frequency", "phase", "mixing", "offset"), 0.1)
_NTK = {"parametrization": "ntk", "learning_rate": 0.04, "weight_decay": 0.25}  # the same decay of a step

VARIANTS: dict[str, dict[str, Any]] = {
    "preset-yaml": {},
    "preset-without-ple": {"data": {"piecewise_linear": 0}},
    "preset-without-clip": {"data": {"standardize": True}},
    "preset-without-members": {"model": {"members": 1, "adapters": "none"}},
    "preset-without-schedule": {"schedule": "constant"},
    "preset-without-decay": {"optimizer": {"weight_decay": 0.0}},
    "preset+scaling": {
        "model": {"input_scaling": True},
        "optimizer": {"learning_rate_factors": {"scale": 6.0}},
    },
    "preset+ntk": {
        "model": {"initializer": "lecun_normal"},
        "optimizer": {**_NTK, "learning_rate_factors": {"b": 0.1}},
    },
    "preset+pbld": {"model": {"periodic_embedding": {}}, "optimizer": {"learning_rate_factors": _WAVES}},
    "preset+parametric": {
        "model": {"parametric_activation": True},
        "optimizer": {"learning_rate_factors": {"alpha": 0.1}},
    },
    "preset+average": {"optimizer": {"average": 0.99}},
    "4-nets": {"model": _NETS},
    "4-nets-without-ple": {"model": _NETS, "data": {"piecewise_linear": 0}},
    "4-nets+on-data": {"model": _NETS | {"initialize_on_data": True}},
}
"""Sections of a configuration that are given beside ``preset: tabular``."""


class Configured:
    """An estimator by a configuration: the frame is written to a CSV file, and read as any file is."""

    def __init__(self, classes: bool, sections: dict[str, Any], max_iter: int | None = None) -> None:
        self.classes, self.sections, self.max_iter = classes, sections, max_iter

    def fit(self, X: Any, y: np.ndarray) -> Configured:
        """Train on all rows but those for validation; no run folder is written."""
        from backprop_gpu.build import prepare
        from backprop_gpu.config import validate
        from backprop_gpu.run_fit import encoded, fit

        texts = list(X.select_dtypes(exclude=["number", "bool", "datetime"]).columns)
        task = "regression" if not self.classes else "binary" if len(np.unique(y)) == 2 else "multiclass"
        with tempfile.TemporaryDirectory() as folder:
            source = str(Path(folder) / "table.csv")
            X.assign(**{TARGET: y}).to_csv(source, index=False)
            data = {"source": source, "target": TARGET, "task": task, "test": 0.0}
            data |= {"categorical": texts, "max_categories": 1000} | self.sections.get("data", {})
            config = {"preset": "tabular", "device": "cpu", **self.sections, "data": data}
            config |= {} if self.max_iter is None else {"training": {"epochs": self.max_iter}}
            experiment = prepare(validate(config), progress=False)
            fit(experiment, *encoded(experiment))
        self.model = experiment.model
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Values."""
        return np.asarray(self.model.predict(X), np.float64)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (n, K)."""
        P = self.model.predict_proba(X)
        return np.concatenate([1.0 - P, P], axis=1) if P.shape[1] == 1 else P
