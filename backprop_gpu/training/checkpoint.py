"""A model as one safetensors file: parameters by name, what rebuilds the network, and whatever else must travel along.

Never pickle: loading a model runs no code. The file carries a SHA-256 digest of its tensors and description, checked on
load, and is put in place by a rename, so that a crash leaves the old file or the new one.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..backends.base import Backend
from ..errors import BackpropError, CheckpointError
from ..network.dense_net import DenseNet

FORMAT = "backprop_gpu/1"


@dataclass
class Extras:
    """What travels with the network: ``tensors`` by name (no clash with W1, b1, ...) and a JSON-able ``meta``."""

    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)


def _digest(tensors: dict[str, np.ndarray], description: str) -> str:
    sha = hashlib.sha256(description.encode())
    for name in sorted(tensors):
        value = np.ascontiguousarray(tensors[name])
        sha.update(f"{name} {value.dtype.str} {value.shape}".encode())
        sha.update(value.tobytes())
    return sha.hexdigest()


def save_model(path: str | os.PathLike[str], net: DenseNet, extras: Extras | None = None) -> None:
    """Write a network, and what travels with it, to ``path``.

    Raises
    ------
    CheckpointError
        If the file cannot be written.
    """
    from safetensors.numpy import save

    extras = extras or Extras()
    tensors = {k: np.ascontiguousarray(v) for k, v in (net.parameters() | extras.tensors).items()}
    description = json.dumps({"network": net.spec(), "extras": extras.meta}, sort_keys=True)
    metadata = {"format": FORMAT, "description": description, "sha256": _digest(tensors, description)}
    target = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(save(tensors, metadata))
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise CheckpointError(f"cannot write {target}: {error.strerror}") from error


def load_model(path: str | os.PathLike[str], device: str | Backend | None = None) -> tuple[DenseNet, Extras]:
    """Read what :func:`save_model` wrote, onto any device.

    Raises
    ------
    CheckpointError
        If the file is missing, not one of ours, or damaged.
    """
    metadata, tensors = _read(Path(path))
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is not a backprop_gpu model (format {metadata.get('format')!r}, want {FORMAT!r})"
        )
    description = metadata.get("description", "")
    if metadata.get("sha256") != _digest(tensors, description):
        raise CheckpointError(
            f"{path} is damaged: its contents do not match its SHA-256 digest; train or copy it again"
        )
    try:
        content = json.loads(description)
        net = DenseNet(**(content["network"] | {"initializer": "zeros"}), device=device)
        net.initializer = content["network"]["initializer"]
        net.set_parameters(tensors)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} was written by another version of backprop_gpu ({error})") from error
    own = set(net.parameters())
    return net, Extras({k: v for k, v in tensors.items() if k not in own}, content["extras"])


def _read(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(f"no model file at {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except BackpropError:
        raise
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error
