"""Processes that an accelerated one starts, such as the workers of ``n_jobs``, are accelerated too.

A worker gets its classes by name, from scikit-learn, and would not know. So where a class of scikit-learn's goes to
another process, a call goes along that puts the replacement in place there first. Files are written as always.
"""

from __future__ import annotations

import importlib
from multiprocessing.reduction import ForkingPickler
from types import ModuleType
from typing import Any

from . import tally
from .installing import install_worker

_sent: set[type] = set()


def send_along(module: ModuleType) -> None:
    """See to it that the classes of ``module`` bring the replacement with them, through joblib and multiprocessing."""
    from joblib.externals.loky.backend.reduction import register

    from .replacing import NAMES

    for cls in (getattr(module, name) for name in NAMES):
        _sent.add(cls)
        for to in (register, ForkingPickler.register):
            to(type(cls), _reduce_class)


def _reduce_class(cls: type) -> Any:
    """How to find a class over there: by its name, as for all others of this metaclass, or through :func:`arrived`."""
    if cls not in _sent:
        return cls.__qualname__
    return arrived, (cls.__module__, cls.__qualname__, tally.settings())


def arrived(module: str, name: str, settings: tally.Settings) -> type:
    """The class, after the replacement has been put in place."""
    install_worker(settings)
    cls: type = getattr(importlib.import_module(module), name)
    return cls
