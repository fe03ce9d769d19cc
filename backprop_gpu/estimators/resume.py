"""The state that an estimator's fit goes on from: what was given as ``resume``, and that it fits."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..errors import CheckpointError, shown
from ..network.state import State, check_same, take
from ..training.checkpoint_file import state_in
from ..training.loop import FitState


def state_to_resume(resume: Any) -> State:
    """The state of an estimator's fit, or that in a checkpoint or in the newest of a folder.

    Raises
    ------
    CheckpointError
        If it is something else; says what.
    """
    state = state_in(resume) if isinstance(resume, str | os.PathLike) else resume
    if not isinstance(state, Mapping):
        raise CheckpointError(
            f"resume must be a checkpoint's path or a state (a mapping), got {shown(resume)}; give what a Checkpoint "
            "among the estimator's callbacks wrote"
        )
    if "step" in state and "random_state" not in state:
        raise CheckpointError(
            "resume is a checkpoint of a Trainer, as backprop-gpu train writes it, and not of an estimator; go on with "
            "backprop-gpu train --resume RUN or Trainer.fit(resume=...), or fit anew, without resume"
        )
    return dict(state)


def load_fit_state(fit: FitState, state: State, allow_change: bool) -> None:
    """Go on from a state of the fit; hidden layers of another width are called what the estimator calls them."""
    layout = take(take(state, "fit.step", dict), "step.layout", dict)
    there, here = take(layout, "step.layout.sizes", list), list(fit.step.net.sizes)
    check_same(there[1:-1], here[1:-1], "hidden_layer_sizes")
    fit.load_state_dict(state, allow_change)
