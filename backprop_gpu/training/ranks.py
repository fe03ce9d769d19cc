"""Do all ranks begin, and stay, alike?"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from ..network.state import plain
from ..network.step import TrainingStep

if TYPE_CHECKING:
    from .loop import FitState


def agree_at_the_start(fit: FitState) -> None:
    """That no rank has another configuration, other data or other weights.

    Raises
    ------
    ConfigError
        Names what differs, and the first rank that differs from rank 0.
    """
    fit.step.ranks.agree("settings", _digest([fit.settings, fit.batches.state_dict()]))
    fit.step.ranks.agree("data", _digest(fit.data))
    agree_on_weights(fit.step)


def agree_on_weights(step: TrainingStep) -> None:
    """That no rank's weights differ by a bit; ConfigError as above."""
    theta = step.net.backend.to_host(step.net.params.theta)
    step.ranks.agree(f"weights after step {step.t}", hashlib.sha256(theta.tobytes()).hexdigest())


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(plain(values), sort_keys=True).encode()).hexdigest()
