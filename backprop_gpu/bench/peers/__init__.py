"""Who takes part: a table of peers, each a module that is imported only in the process that measures it."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ...errors import ConfigError, MissingDependencyError, did_you_mean
from .base import Peer

_TRAINING = ("step", "epoch", "fit")


@dataclass(frozen=True)
class PeerSpec:
    """A peer as data.

    Attributes
    ----------
    home : str
        ``module:class``; a module that starts with a dot is in this folder.
    packages : dict
        What must be importable, and what ``pip install`` calls it.
    modes : tuple of str
        The measurements it takes part in.
    adam : {"paper", "epsilon_hat"}
        Where its epsilon stands: beside sqrt(v / (1 - b2^t)), or beside sqrt(v) (``maths.optimizers.Adam``).
    """

    name: str
    home: str
    options: dict[str, Any] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    modes: tuple[str, ...] = (*_TRAINING, "inference")
    activations: tuple[str, ...] = ("relu", "tanh", "sigmoid", "gelu")
    adam: str = "paper"

    def load(self) -> Peer:
        """Import the module and make the peer.

        Raises
        ------
        MissingDependencyError
            Names the packages to install.
        """
        missing = [package for name, package in self.packages.items() if importlib.util.find_spec(name) is None]
        if missing:
            raise MissingDependencyError(f"not installed: pip install {' '.join(missing)}")
        module, _, name = self.home.partition(":")
        peer: Peer = getattr(importlib.import_module(module, __name__), name)(**self.options)
        return peer


_THREE = ("relu", "tanh", "sigmoid")
PEERS = (  # ours first: the first that runs is what the others are compared with
    PeerSpec("ours-compiled", ".ours:Ours", {"kernels": "compiled"}, {"numba": "'backprop-gpu[fast]'"}),
    PeerSpec("ours-host", ".ours:Ours", {"kernels": "host"}),
    PeerSpec("ours-reference", ".ours:Ours", {"kernels": "reference"}),
    PeerSpec("numpy", ".plain_numpy:PlainNumpy"),
    PeerSpec("sklearn", ".scikit:Scikit", {}, {"sklearn": "scikit-learn"}, activations=_THREE, adam="epsilon_hat"),
    PeerSpec("torch", ".pytorch:Torch", packages={"torch": "torch"}),
    PeerSpec("torch-compile", ".pytorch:Torch", {"compiled": True}, {"torch": "torch"}),
    PeerSpec("jax-jit", ".jax_nets:JaxSteps", packages={"jax": "jax"}),
    PeerSpec("jax-scan", ".jax_nets:JaxScan", packages={"jax": "jax"}, modes=_TRAINING),
    PeerSpec(
        "onnxruntime",
        ".onnx_runtime:OnnxRuntime",
        packages={"onnx": "onnx", "onnxruntime": "onnxruntime"},
        modes=("inference",),
        activations=_THREE,
    ),
)


def chosen(names: Sequence[str], mode: str) -> list[PeerSpec]:
    """The peers of these names (all, if none is given) that take part in a measurement.

    Raises
    ------
    ConfigError
        For an unknown name.
    """
    known = {spec.name: spec for spec in PEERS}
    for name in names:
        if name not in known:
            raise ConfigError(f"no peer is called {name!r}{did_you_mean(name, known)}; known: {', '.join(known)}")
    return [spec for spec in PEERS if (not names or spec.name in names) and mode in spec.modes]
