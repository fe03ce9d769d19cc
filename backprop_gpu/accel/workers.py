"""Accelerate the worker processes of an accelerated process, such as those of ``n_jobs``, too.

A class is pickled by its name, so a worker would import scikit-learn's own. The picklers of joblib and multiprocessing
therefore send a call to ``installing.import_accelerated`` instead. Pickle files are written as always.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any

from . import usage_report

_sent: dict[type, Callable[..., type]] = {}  # each class with the function that imports it in a worker


def accelerate_workers(classes: Sequence[type], import_accelerated: Callable[..., type]) -> None:
    """Have joblib and multiprocessing pickle the classes as calls of ``import_accelerated(module, name, settings)``."""
    from joblib.externals.loky.backend.reduction import register

    for cls in classes:
        _sent[cls] = import_accelerated
        for to in (register, ForkingPickler.register):
            to(type(cls), _reduce_class)


def _reduce_class(cls: type) -> Any:
    """Reduce a class to its name, as pickle does, or to a call of ``import_accelerated``."""
    if cls not in _sent:
        return cls.__qualname__
    return _sent[cls], (cls.__module__, cls.__qualname__, usage_report.settings())
