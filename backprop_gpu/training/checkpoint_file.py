"""Checkpoints: the state of a fit in files, written as it goes, from which a run that was killed goes on.

A checkpoint is one safetensors file (``tensor_file``): its tensors are the arrays of a state (``Trainer.state_dict``),
its description the rest of it as JSON. It appears under its name when all of it is on the disk, so a file is whole or
not there at all. One of which a bit has changed is refused, and the checkpoint before it is taken.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError, shown
from ..network.state import State, take
from ..safe_files import parse_json
from ..tensor_file import read_tensors, write_tensors

FORMAT = "backprop_gpu checkpoint/1"
FOLDER = "checkpoints"  # in a run folder
BEST_FILE = "best.safetensors"
_NAME = re.compile(r"(\d{6,})-step-\d+\.safetensors")
_TENSOR = "__tensor__"


def save_checkpoint(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write a tree of plain Python values and NumPy arrays. A link at ``path`` is replaced, and not followed.

    Raises
    ------
    CheckpointError
        If the file cannot be written; one that was there is as it was.
    """
    tensors: dict[str, np.ndarray] = {}
    write_tensors(Path(path), tensors, json.dumps(_without_arrays(state, "", tensors)), FORMAT, follow_links=False)


def load_checkpoint(
    path: str | os.PathLike[str], *, say: Callable[[str], None] = warnings.warn, anew: str = "leave resume out"
) -> tuple[dict[str, Any], Path]:
    """The tree that :func:`save_checkpoint` wrote, and its file.

    ``path``: the file; or a folder of checkpoints, or a run folder that has one, of which the newest is taken that can
    be read. ``say`` is told of those that cannot. ``anew``: how the caller starts without any, for the error.

    Raises
    ------
    CheckpointError
        If there is none, or none that can be read.
    """
    path = Path(path)
    if not path.is_dir():
        return _read(path), path
    folder = path / FOLDER if (path / FOLDER).is_dir() else path
    files = checkpoints_in(folder)
    files += [best for best in [folder / BEST_FILE] if best.is_file()]
    if not files:
        raise CheckpointError(f"no checkpoint in {folder}")
    problems: list[str] = []
    for file in files:
        try:
            tree = _read(file)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            say(f"{problem}; going on from {file.name}")
        return tree, file
    over = f"to start over, remove {folder} and {anew}"
    raise CheckpointError(f"no checkpoint of {folder} can be read: {problems[0]}; {over}")


def state_in(path: str | os.PathLike[str]) -> State:
    """The state of a fit in a checkpoint, or in the newest of a folder (:func:`load_checkpoint`)."""
    return dict(take(load_checkpoint(path)[0], "checkpoint.fit", dict))


def checkpoints_in(folder: str | os.PathLike[str]) -> list[Path]:
    """The numbered checkpoints of a folder, the newest first; what is no regular file is none."""
    with os.scandir(folder) as entries:
        found = [
            (int(match[1]), Path(folder, entry.name))
            for entry in entries
            if (match := _NAME.fullmatch(entry.name)) and entry.is_file()
        ]
    return [path for _, path in sorted(found, reverse=True)]


def _read(path: Path) -> dict[str, Any]:
    tensors, description = read_tensors(path, FORMAT, "checkpoint")
    try:
        tree = _with_arrays(parse_json(description, "its description", CheckpointError, os.stat(path).st_size), tensors)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = shown(str(error), 300, quoted=False)
        raise CheckpointError(f"{path} was written by another version of backprop_gpu ({reason})") from error
    if not isinstance(tree, dict):
        raise CheckpointError(f"{path} was written by another version of backprop_gpu (it holds no mapping)")
    return tree


def _without_arrays(value: Any, name: str, tensors: dict[str, np.ndarray]) -> Any:
    """The tree with a reference in the place of each array, which is put into ``tensors`` under a name of its own."""
    if isinstance(value, Mapping):
        return {key: _without_arrays(part, f"{name}.{key}" if name else key, tensors) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_arrays(part, f"{name}[{k}]", tensors) for k, part in enumerate(value)]
    if not isinstance(value, np.ndarray):
        return value
    while name in tensors:  # parameters of someone's own may have dots in their names
        name += "'"
    tensors[name] = np.asarray(value, value.dtype.newbyteorder("="), order="C")
    return {_TENSOR: name}


def _with_arrays(value: Any, tensors: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return [_with_arrays(part, tensors) for part in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {_TENSOR}:
        return tensors[value[_TENSOR]]
    return {key: _with_arrays(part, tensors) for key, part in value.items()}
