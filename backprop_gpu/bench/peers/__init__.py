"""Who takes part: a table of peers, each a module that is imported only in the process that measures it."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ...errors import ConfigError, MissingDependencyError, did_you_mean
from .base import Peer


@dataclass(frozen=True)
class PeerSpec:
    """A peer as data.

    Attributes
    ----------
    home : str
        ``module:class``; a module that starts with a dot is in this folder.
    packages : tuple of str
        What must be importable, and ``install`` what ``pip install`` takes to make it so.
    modes : tuple of str
        The measurements it takes part in.
    """

    name: str
    home: str
    options: dict[str, Any] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    install: str = ""
    modes: tuple[str, ...] = ("step", "epoch", "fit", "inference")

    def load(self) -> Peer:
        """Import the module and make the peer.

        Raises
        ------
        MissingDependencyError
            Names the packages to install.
        """
        missing = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if missing:
            raise MissingDependencyError(f"not installed: pip install {self.install or ' '.join(missing)}")
        module, _, name = self.home.partition(":")
        peer: Peer = getattr(importlib.import_module(module, __name__), name)(**self.options)
        return peer


_TRAINING = ("step", "epoch", "fit")
PEERS = (  # ours first: the first that runs is what the others are compared with
    PeerSpec("ours-compiled", ".ours:Ours", {"kernels": "compiled"}, ("numba",), "'backprop-gpu[fast]'"),
    PeerSpec("ours-host", ".ours:Ours", {"kernels": "host"}),
    PeerSpec("ours-reference", ".ours:Ours", {"kernels": "reference"}),
    PeerSpec("numpy", ".plain_numpy:PlainNumpy"),
    PeerSpec("sklearn", ".scikit:Scikit", {}, ("sklearn",), "scikit-learn"),
    PeerSpec("torch", ".pytorch:Torch", {}, ("torch",)),
    PeerSpec("torch-compile", ".pytorch:Torch", {"compiled": True}, ("torch",)),
    PeerSpec("jax-jit", ".jax_nets:JaxSteps", {}, ("jax",)),
    PeerSpec("jax-scan", ".jax_nets:JaxScan", {}, ("jax",), modes=_TRAINING),
    PeerSpec("onnxruntime", ".onnx_runtime:OnnxRuntime", {}, ("onnx", "onnxruntime"), modes=("inference",)),
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
