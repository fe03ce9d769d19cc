"""Processes that an accelerated one starts, such as the workers of ``n_jobs``, are accelerated too.

A worker gets its classes by name, from scikit-learn, and would not know. So where a class of scikit-learn's goes to
another process, a call goes along that puts the replacement in place there first. Files are written as always.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any

from . import usage_report

_sent: dict[type, Callable[..., type]] = {}  # a class, and what finds it over there


def send_along(classes: Sequence[type], arrived: Callable[..., type]) -> None:
    """See to it that classes bring the replacement with them, through joblib and multiprocessing.

    ``arrived(module, name, settings)`` puts it in place in the other process and returns the class.
    """
    from joblib.externals.loky.backend.reduction import register

    for cls in classes:
        _sent[cls] = arrived
        for to in (register, ForkingPickler.register):
            to(type(cls), _reduce_class)


def _reduce_class(cls: type) -> Any:
    """How to find a class over there: by its name, as for all others of this metaclass, or by what was sent along."""
    if cls not in _sent:
        return cls.__qualname__
    return _sent[cls], (cls.__module__, cls.__qualname__, usage_report.settings())
