"""scikit-learn scripts unchanged, their multi-layer perceptrons on backprop_gpu.

::

    python -m backprop_gpu.accel script.py [arguments]     # or: -m module
    %load_ext backprop_gpu.accel                           # in a notebook
    backprop_gpu.accel.install()                           # in code

``fit``, ``partial_fit`` and the forward pass of scikit-learn's MLPClassifier and MLPRegressor are replaced where they
stand: the classes stay scikit-learn's own, so that it does not matter how or when they were imported, and
``isinstance``, ``clone``, ``repr`` and pickles are as without. What is not covered is left to scikit-learn, with the
reason in the report. Importing this loads neither NumPy nor scikit-learn.
"""

from __future__ import annotations

from typing import Any

from .installing import install, uninstall
from .usage_report import report

__all__ = ["install", "report", "uninstall"]


def load_ipython_extension(ipython: Any) -> None:
    """``%load_ext backprop_gpu.accel``."""
    install()


def unload_ipython_extension(ipython: Any) -> None:
    """``%unload_ext backprop_gpu.accel``."""
    uninstall()


def __dir__() -> list[str]:
    return __all__
