"""A peer as data: sent to the process that measures it, where it is imported and made."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from backprop_gpu.errors import MissingDependencyError

from .base import Peer

TRAINING = ("step", "epoch", "fit")


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
    precision : {"fp32", "tf32", "bf16"}
        To which the factors of its products are rounded.
    workloads : tuple of str
        Those that it takes part in; empty: all.
    variables : dict
        Of its process's environment.
    path : str
        The folder that its process imports ``backprop_gpu`` from; empty: as this process does.
    """

    name: str
    home: str
    options: dict[str, Any] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    modes: tuple[str, ...] = (*TRAINING, "inference")
    activations: tuple[str, ...] = ("relu", "tanh", "sigmoid", "gelu")
    adam: str = "paper"
    precision: str = "fp32"
    workloads: tuple[str, ...] = ()
    variables: dict[str, str | None] = field(default_factory=dict)
    path: str = ""

    def load_module(self) -> ModuleType:
        """Import the module that ``home`` names.

        Raises
        ------
        MissingDependencyError
            Names the packages to install.
        """
        missing = [package for name, package in self.packages.items() if importlib.util.find_spec(name) is None]
        if missing:
            raise MissingDependencyError(f"not installed: pip install {' '.join(missing)}")
        return importlib.import_module(self.home.partition(":")[0], __package__)

    def load(self) -> Peer:
        """Import the module and make the peer; raises as ``load_module`` does."""
        peer: Peer = getattr(self.load_module(), self.home.partition(":")[2])(**self.options)
        return peer
