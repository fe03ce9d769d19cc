"""scikit-learn's multi-layer perceptrons on any device: MLPClassifier and MLPRegressor.

This package is the only one that imports scikit-learn, and importing ``backprop_gpu`` does not import it.
"""

from __future__ import annotations

import importlib.util

from ..errors import MissingDependencyError

if importlib.util.find_spec("sklearn") is None:
    raise MissingDependencyError("scikit-learn is not installed; pip install 'scikit-learn>=1.9'")

from .classifier import MLPClassifier
from .regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]


def __dir__() -> list[str]:
    return __all__
