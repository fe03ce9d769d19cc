"""A model as one safetensors file: parameters by name, what rebuilds the network, and what else must travel along."""

from __future__ import annotations

import inspect
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backends.base import Backend
from ..errors import BackpropError, CheckpointError, ConfigError, DeviceError, MissingDependencyError, shown
from ..maths.initializers import get_initializer
from ..safe_files import parse_json
from ..tensor_file import read_tensors, write_tensors
from .custom import Custom, restored
from .input_stage import InputStage
from .members import members_of

if TYPE_CHECKING:
    from .dense_net import DenseNet

FORMAT = "backprop_gpu/1"


@dataclass
class Extras:
    """What travels with the network: ``tensors`` by name (no clash with W1, b1, ...) and a JSON-able ``meta``."""

    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)


def _plain(x: np.ndarray) -> np.ndarray:
    """Contiguous, in this machine's byte order, of the same shape (ascontiguousarray would make () into (1,))."""
    return np.array(x, dtype=x.dtype.newbyteorder("="), order="C", copy=True)


def save_model(path: str | os.PathLike[str], net: DenseNet, extras: Extras | None = None) -> None:
    """Write a network, and what travels with it, to ``path``.

    Raises
    ------
    CheckpointError
        If the file cannot be written.
    """
    extras = extras or Extras()
    own = net.parameters()
    for name, value in extras.tensors.items():
        if name in own:
            raise CheckpointError(f"the extra tensor {name!r} has the name of a parameter; call it something else")
        if value.dtype.kind not in "biuf":
            raise CheckpointError(f"the extra tensor {name!r} holds {value.dtype}; only numbers can be saved")
    tensors = {k: _plain(v) for k, v in (own | extras.tensors).items()}
    description = json.dumps({"network": net.spec(), "extras": extras.meta}, sort_keys=True)
    write_tensors(Path(path), tensors, description, FORMAT)


def _spec_of(network: Any, cls: type[DenseNet]) -> dict[str, Any]:
    """What ``cls.spec`` gives, and nothing else that a network can be made with."""
    if not isinstance(network, dict):
        raise ConfigError(f"a network is described by its settings, got {type(network).__name__}")
    known = inspect.signature(cls).parameters.keys() - {"device", "kernels", "share_with"}
    unknown = sorted(network.keys() - known)
    if unknown:
        raise ConfigError(f"a network has no setting {unknown[0]!r}")
    if network.get("dtype") not in ("float32", "float64"):
        raise ConfigError(f"dtype must be float32 or float64, got {network.get('dtype')!r}")
    return network


def _check_sizes(spec: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    """That the file has the tensors of a network of these sizes, before one is made."""
    sizes = spec["sizes"]
    if not isinstance(sizes, list) or not all(type(n) is int and n > 0 for n in sizes):
        raise ConfigError(f"sizes must be a list of whole numbers, got {shown(sizes)}")
    stage = InputStage(sizes[0], scaling=spec.get("input_scaling", False), periodic=spec.get("periodic_embedding"))
    widths = (stage.width, *sizes[1:])
    members = members_of(spec.get("members", 1), spec.get("adapters", "first"), widths, ())
    wanted = {f"W{l}": (members.rows(l), widths[l - 1]) for l in range(1, len(widths))}
    wanted |= {e.name: e.shape for e in (*stage.extras(), *members.extras())}
    for name, shape in wanted.items():
        if tensors[name].shape != shape:
            raise ConfigError(f"{name} has shape {tensors[name].shape}, and the settings say {shape}")


def load_model(
    cls: type[DenseNet],
    path: str | os.PathLike[str],
    device: str | Backend | None = None,
    kernels: str = "auto",
    *,
    custom: Custom = (),
) -> tuple[DenseNet, Extras]:
    """Read what :func:`save_model` wrote, onto any device; ``device`` and ``kernels`` as ``cls`` takes them.

    ``cls``: ``DenseNet``, which imports this module and is not imported here.
    ``custom``: the activations and the loss of the user's own that the network has (``network.custom``).

    Raises
    ------
    CheckpointError
        If the file is missing, not one of ours, or damaged, or needs a formula that ``custom`` does not have.
    DeviceError, MissingDependencyError
        For a device or kernel set that cannot be had.
    """
    tensors, description = read_tensors(Path(path), FORMAT, "model")
    try:
        content = parse_json(description, path, CheckpointError, os.stat(path).st_size)
        spec, meta = _spec_of(content["network"], cls), content["extras"]
        if not isinstance(meta, dict):
            raise ConfigError(f"what travels along must be a mapping, got {type(meta).__name__}")
        _check_sizes(spec, tensors)
        given = spec | {"initializer": "zeros"}
        given["activation"] = [restored(a, "activation", custom, path) for a in given["activation"]]
        given["loss"] = restored(given["loss"], "loss", custom, path)
        net = cls(**given, device=device, kernels=kernels)
        get_initializer(spec["initializer"], rectifier=False)  # says what is wrong with it
        net.initializer = spec["initializer"]
        own = set(net.parameters())
        net.set_parameters({name: value for name, value in tensors.items() if name in own})
    except (DeviceError, MissingDependencyError, CheckpointError):
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, BackpropError) as error:
        reason = shown(str(error), 300, quoted=False)
        raise CheckpointError(f"{path} was written by another version of backprop_gpu ({reason})") from error
    return net, Extras({k: v for k, v in tensors.items() if k not in own}, meta)


def rebuilt(
    cls: type[DenseNet],
    settings: dict[str, Any],
    parameters: dict[str, np.ndarray],
    device: str | Backend,
    kernels: str,
) -> DenseNet:
    """The network of these settings and parameters; on what ``auto`` takes where the device is not there."""
    given = settings | {"initializer": "zeros"}
    try:
        net = cls(**given, device=device, kernels=kernels)
    except (DeviceError, MissingDependencyError):
        net = cls(**given)
    net.initializer = settings["initializer"]
    net.set_parameters(parameters)
    return net
