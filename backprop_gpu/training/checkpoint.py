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
from ..errors import BackpropError, CheckpointError, DeviceError, MissingDependencyError
from ..network.dense_net import DenseNet

FORMAT = "backprop_gpu/1"


@dataclass
class Extras:
    """What travels with the network: ``tensors`` by name (no clash with W1, b1, ...) and a JSON-able ``meta``."""

    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)


def _plain(x: np.ndarray) -> np.ndarray:
    """Contiguous, in this machine's byte order, of the same shape (ascontiguousarray would make () into (1,))."""
    return np.array(x, dtype=x.dtype.newbyteorder("="), order="C", copy=True)


def _digest(tensors: dict[str, np.ndarray], description: str) -> str:
    sha = hashlib.sha256(description.encode())
    for name in sorted(tensors):
        value = tensors[name]
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
    own = net.parameters()
    for name, value in extras.tensors.items():
        if name in own:
            raise CheckpointError(f"the extra tensor {name!r} has the name of a parameter; call it something else")
        if value.dtype.kind not in "biuf":
            raise CheckpointError(f"the extra tensor {name!r} holds {value.dtype}; only numbers can be saved")
    tensors = {k: _plain(v) for k, v in (own | extras.tensors).items()}
    description = json.dumps({"network": net.spec(), "extras": extras.meta}, sort_keys=True)
    metadata = {"format": FORMAT, "description": description, "sha256": _digest(tensors, description)}
    target = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_in_order(save(tensors, metadata)))
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise CheckpointError(f"cannot write {target}: {error.strerror}") from error


def _in_order(blob: bytes) -> bytes:
    """The file with its metadata sorted: safetensors writes it in any order, and equal models should be equal files."""
    n = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8 : 8 + n])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return blob[:8] + text.ljust(n) + blob[8 + n :] if len(text) <= n else blob


def _umask() -> int:
    """The process's mask of permissions, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def load_model(
    path: str | os.PathLike[str], device: str | Backend | None = None, kernels: str = "auto"
) -> tuple[DenseNet, Extras]:
    """Read what :func:`save_model` wrote, onto any device; ``device`` and ``kernels`` as ``DenseNet`` takes them.

    Raises
    ------
    CheckpointError
        If the file is missing, not one of ours, or damaged.
    DeviceError, MissingDependencyError
        For a device or kernel set that cannot be had.
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
        net = DenseNet(**(content["network"] | {"initializer": "zeros"}), device=device, kernels=kernels)
        net.initializer = content["network"]["initializer"]
        own = set(net.parameters())
        net.set_parameters({name: value for name, value in tensors.items() if name in own})
        meta = content["extras"]
    except (DeviceError, MissingDependencyError):
        raise
    except (KeyError, TypeError, json.JSONDecodeError, BackpropError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path} was written by another version of backprop_gpu ({reason})") from error
    return net, Extras({k: v for k, v in tensors.items() if k not in own}, meta)


def _read(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(f"no model file at {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, AttributeError) as error:  # the last two: bfloat16 and such
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path} is not a readable safetensors file: {reason}") from error
