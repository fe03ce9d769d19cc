"""Keywords that a trainer does not know, told with what to write instead."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from ..errors import ConfigError, did_you_mean


def check_settings(settings: dict[str, Any], owners: Iterable[type]) -> None:
    """That keywords belong to the constructor of one of ``owners``.

    Raises
    ------
    ConfigError
        For the first that does not.
    """
    own = [name for owner in owners for name in inspect.signature(owner).parameters]
    known = [name for name in dict.fromkeys(own) if name not in ("settings", "total_steps")]
    for name in settings:
        if name == "validation":
            raise ConfigError("validation belongs to fit: Trainer(net).fit(X, y, validation=(X_val, y_val))")
        if name == "learning_rate":
            raise ConfigError("learning_rate is the optimizer's: optimizer={'name': 'adam', 'learning_rate': 0.001}")
        if name not in known:
            raise ConfigError(f"Trainer has no setting {name!r}{did_you_mean(name, known)}; it has {', '.join(known)}")
