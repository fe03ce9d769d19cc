"""From a checkpoint of a run to the state that it goes on from, or to what it does not fit."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from .config import check
from .errors import CheckpointError, ConfigError
from .network.state import State, check_same, plain, take
from .training.checkpoint import Checkpoint
from .training.checkpoint_file import BEST_FILE, checkpoints_in, load_checkpoint

# What must be the same whatever is allowed: other tensors, or another order of the rows, would not fit.
_FIXED = (
    *("model.hidden", "model.batch_norm", "model.input_scaling", "model.periodic_embedding", "model.members"),
    *("model.adapters", "model.parametric_activation", "dtype", "optimizer.name"),
    *("seed", "training.batch_size", "training.shuffle"),
)
# What may be another where a run goes on: where and how fast it runs, what is written meanwhile.
_FREE = ("name", "device", "kernels", "verify", "checkpoint", "track")


def state_of(checkpoint: Checkpoint, n_rows: int, allow_change: bool, say: Callable[[str], None]) -> State | None:
    """The state from which a run goes on; None: from the start. ``n_rows``: training rows that there are now.

    Raises
    ------
    ConfigError
        If it is of another configuration or other test rows, unless that is allowed; names the setting. If it is of
        another number of training rows.
    CheckpointError
        If none of its checkpoints can be read, or they are of something else.
    """
    folder = checkpoint.folder
    if not checkpoints_in(folder) and not (folder / BEST_FILE).is_file():
        say("there is no checkpoint yet: the run starts from the beginning")
        return None
    tree, path = load_checkpoint(folder, anew="give the same command again")
    if "run" not in tree and "fit" in tree:
        raise CheckpointError(
            f"{path} is a checkpoint of a fit in Python, and not of backprop-gpu train; go on with fit(resume=...) of "
            "the Trainer or the estimator that wrote it"
        )
    there, here = take(tree, "checkpoint.run", dict), checkpoint.more["run"]
    old = take(there, "checkpoint.run.config", dict)
    with contextlib.suppress(ConfigError):  # one of another version lacks the settings of this one
        old = plain(check(dict(old)).model_dump())
    check_same(_fixed(old), _fixed(here["config"]), "")
    state = dict(take(tree, "checkpoint.fit", dict))
    _check_number_of_rows(state, n_rows, old.get("data"), here["config"]["data"])
    if not allow_change:
        check_same(_without_free(old), _without_free(here["config"]), "", fix="give --allow-change")
        if there.get("test_rows") != here["test_rows"]:
            raise ConfigError("the state is of other data: other test rows; give the old ones, or --allow-change")
    say(f"goes on from {path}")
    return state


def _check_number_of_rows(state: State, here: int, old: Any, new: Any) -> None:
    """Names the setting of the data that is another, if one is: it is the likely cause."""
    there = take(take(state, "fit.batches", dict), "batches.rows", int)
    if there == here:
        return
    anew = "train anew in another folder (backprop-gpu train CONFIG --run-dir DIR)"
    why = f"a run cannot go on with another number of training rows: {there} in it and {here} here"
    check_same(old, new, "data", fix=f"{anew}; {why}")
    raise ConfigError(f"{why}; give the old rows, or {anew}")


def _fixed(config: State) -> State:
    """Settings of which a run cannot go on with others."""
    parts = [(name, part) for name, part in config.items() if isinstance(part, dict)]
    flat = {**config, **{f"{name}.{key}": value for name, part in parts for key, value in part.items()}}
    return {name: flat.get(name) for name in _FIXED}


def _without_free(config: State) -> State:
    free = ("data_on", "layer_statistics")
    training = {key: value for key, value in config.get("training", {}).items() if key not in free}
    return {key: value for key, value in config.items() if key not in _FREE} | {"training": training}
