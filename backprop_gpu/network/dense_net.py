"""The L-layer network: its settings and parameters, and methods that take rows of examples."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._typing import Array
from ..backends import require_owned
from ..backends.argument_checks import check_loss
from ..backends.base import Backend
from ..backends.locks import FairLock, locked
from ..backends.select import select
from ..errors import ConfigError, ShapeError
from ..maths.initializers import get_initializer
from ..maths.ledger import Denominator
from ..maths.losses import Loss, get_loss
from ..maths.random import host_generator
from . import layer_loop
from .custom import Custom, check_custom, spec_of
from .describe import layers_table, one_line
from .input_stage import InputStage, PeriodicEmbedding
from .members import MemberParams, mean_output, members_of
from .memory import Extra, FlatParams, Workspace, allocate_or_raise
from .parametric import IDENTITY, parametric_buffers
from .prediction import RecordedForwards
from .settings import check_sizes, per_layer_activations, per_layer_choice, per_layer_dropout
from .targets import check_rows, check_targets, check_weights

BLOCK_ROWS = 2048  # rows per pass at prediction, so that memory does not grow with the table
WEIGHT_STREAM = 1  # the part of the seed's randomness that initial weights use; shuffles have their own


class DenseNet:
    """An L-layer network on one device.

    Threads may predict with a network while another trains it: predictions use the weights of the end of a step.

    Parameters
    ----------
    sizes : sequence of int
        Units per layer, from the n_0 inputs to the n_L outputs: ``[30, 16, 8, 1]``.
    activation : str, dict or list, default "relu"
        One for all hidden layers, or a list of L - 1. The output's is the loss's link.
    loss : str, dict or Loss, default "binary_cross_entropy"
        See ``maths.losses``.
    initializer : str, default "auto"
        See ``maths.initializers``; biases start at 0.
    dropout : float or list of float, default 0.0
        Fraction of each hidden layer's units dropped in training.
    batch_norm : bool or list of bool, default False
        Normalize hidden layers between their affine part and their activation (``maths.normalization``); their bias is
        beta then. Training uses the statistics of the examples in a pass, prediction their running means; the running
        variance is that of the examples, without PyTorch's factor m / (m - 1). Batches and micro-batches are of even
        size then, at most what was asked for; one example alone is refused.
    input_scaling : bool, default False
        Multiply each input by a learnable number of its own, 1 at first (``maths.scaling``).
    members : int, default 1
        Networks of an ensemble that share the hidden layers' weights and are trained in one step: J is the mean of
        theirs, predictions are the mean of theirs (``network.members``). Not with ``batch_norm``.
    adapters : {"first", "all", "none"}, default "first"
        What members have of their own beside the output layer: a factor for each input (TabM-mini), or for each input
        and output of every hidden layer, and its bias (BatchEnsemble, TabM); none: every weight and bias.
    parametric_activation : bool or list of bool, default False
        Hidden layers whose units each learn how much of the activation they take: A = Z + alpha (g(Z) - Z), alpha 1 at
        first (``maths.parametric``).
    periodic_embedding : bool, dict, PeriodicEmbedding or None, default None
        Add mixed waves of each of the first ``columns`` inputs (``network.input_stage.PeriodicEmbedding``): True, or
        ``{"frequencies": 16, "outputs": 3, "sigma": 0.1, "columns": None}``.
    dtype : {"float32", "float64"}, default "float32"
    device : str, Backend or None, default None
        ``"auto" | "cpu" | "cuda[:i]" | NAMESPACE[:DEVICE]``; None is "auto": BACKPROP_GPU_DEVICE if that is set, else
        CUDA if it works and is predicted to be faster for these sizes (``backends.select``).
    seed : int, default 0
        Of initial weights and dropout masks: the same bits on every device.
    kernels : {"auto", "reference", "native", "cuda", "cuda-tf32", "cuda-bf16"}, default "auto"
        See ``Backend.kernels``; auto is the fastest that is installed, and ``kernels_kind`` then its name.
    share_with : DenseNet, optional
        A network whose device and kernel set are this one's too, in place of ``device`` and ``kernels``: a kernel set
        can record a program that goes through all of its networks.

    Raises
    ------
    ConfigError, DeviceError
        For settings that do not fit, or a device that cannot be had.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        activation: str | dict[str, Any] | Sequence[Any] = "relu",
        loss: str | dict[str, Any] | Loss = "binary_cross_entropy",
        initializer: str = "auto",
        dropout: float | Sequence[float] = 0.0,
        batch_norm: bool | Sequence[bool] = False,
        input_scaling: bool = False,
        parametric_activation: bool | Sequence[bool] = False,
        members: int = 1,
        adapters: str = "first",
        periodic_embedding: bool | dict[str, Any] | PeriodicEmbedding | None = None,
        dtype: str = "float32",
        device: str | Backend | None = None,
        seed: int = 0,
        kernels: str = "auto",
        share_with: DenseNet | None = None,
    ) -> None:
        self.sizes = check_sizes(sizes)
        self.L = len(self.sizes) - 1
        self.loss = get_loss(loss)
        check_loss(self.loss, self.sizes[-1])
        self.activations = per_layer_activations(activation, self.L)
        self.dropout = per_layer_dropout(dropout, self.L)
        self.batch_norm = per_layer_choice("batch_norm", batch_norm, self.L)
        self.parametric = per_layer_choice("parametric_activation", parametric_activation, self.L)
        self.inputs = InputStage(self.sizes[0], scaling=input_scaling, periodic=periodic_embedding)
        self.widths = (self.inputs.width, *self.sizes[1:])
        self.ensemble = members_of(members, adapters, self.widths, self.batch_norm)
        self.members = self.ensemble.count
        normalized = [l for l in range(1, self.L) if self.batch_norm[l]]
        # complex128 is for the complex step, which only the formulas themselves can take.
        if dtype not in ("float32", "float64") and (dtype, kernels) != ("complex128", "reference"):
            raise ConfigError(f"dtype must be float32 or float64, got {dtype!r}")
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64:
            raise ConfigError(f"seed must be an integer from 0 to 2**64 - 1, got {seed!r}")
        self.dtype, self.seed, self.initializer = dtype, int(seed), initializer
        self.changes = 0  # how often ``set_parameters`` was called
        self.between_blocks: Callable[[], None] | None = None  # called where many rows are predicted; it may raise
        self.lock: FairLock = FairLock() if share_with is None else share_with.lock
        if share_with is None:
            chosen = select(self.sizes, dtype, device=device, kernels=kernels)
            self.backend, self.kernels_kind = chosen.backend, chosen.kernels
            self.kernels = self.backend.kernels(self.kernels_kind)
        else:
            self.backend, self.kernels, self.kernels_kind = (
                share_with.backend,
                share_with.kernels,
                share_with.kernels_kind,
            )
        self._forwards = RecordedForwards(self)
        if dtype != "complex128":  # a user's functions need not support complex numbers
            check_custom(self.backend, dtype, self.sizes[-1], self.activations, self.loss)
        with (
            allocate_or_raise(self.backend, self.widths, dtype, "parameters and gradients", 2),
            self.backend.activate(),
        ):
            units = {l: (self.sizes[l], 1) for l in range(1, self.L) if self.parametric[l]}
            alphas = [Extra("alpha", l, shape, weight=True) for l, shape in units.items()]
            extras = [*self.inputs.extras(), *alphas, *self.ensemble.extras()]
            self.params = FlatParams(self.backend, self.widths, dtype, normalized, extras, self.ensemble)
            self.parts = [MemberParams(self.backend, self.params, self.ensemble, j) for j in range(self.members)]
            # Running statistics, and the bias of an affine part that has none.
            per_unit = {l: (self.sizes[l], 1) for l in normalized}
            self.mean = {l: self.backend.zeros(shape, dtype) for l, shape in per_unit.items()}
            self.variance = {l: self.backend.zeros(shape, dtype) for l, shape in per_unit.items()}
            self.no_bias = {l: self.backend.zeros(shape, dtype) for l, shape in per_unit.items()}
            self.set_parameters(self._initial_parameters())

    # -- construction --------------------------------------------------------------------------------------------

    def _initial_parameters(self) -> dict[str, np.ndarray]:
        named = self.inputs.initial(host_generator(self.seed, WEIGHT_STREAM, 0))
        named |= {f"alpha{l}": np.ones((self.sizes[l], 1)) for l in range(1, self.L) if self.parametric[l]}
        for l in range(1, self.L + 1):
            n, k = self.widths[l], self.widths[l - 1]
            draw = get_initializer(self.initializer, rectifier=l < self.L and self.activations[l].rectifier)
            generator = host_generator(self.seed, WEIGHT_STREAM, l)
            named[f"W{l}"] = np.concatenate([draw(generator, n, k) for _ in range(self.ensemble.rows(l) // n)])
            named[f"b{l}"] = np.zeros((self.ensemble.biases(l), 1))
            if self.batch_norm[l]:
                named |= {f"gamma{l}": np.ones((n, 1)), f"mean{l}": np.zeros((n, 1)), f"variance{l}": np.ones((n, 1))}
        return named | self.ensemble.initial_adapters(self.seed)

    # -- parameters ----------------------------------------------------------------------------------------------

    @locked
    def parameters(self) -> dict[str, np.ndarray]:
        """Host copies ``{"W1": (n_1, n_0), "b1": (n_1, 1), ...}``; a normalized layer has ``gamma1`` beside them, and
        its running statistics ``mean1``, ``variance1``, which no optimizer trains.
        """
        named = self.params.named(self.backend.to_host(self.params.theta))
        return named | {name: self.backend.to_host(x) for name, x in self._statistics().items()}

    def _statistics(self) -> dict[str, Array]:
        kinds = {"mean": self.mean, "variance": self.variance}
        return {f"{kind}{l}": x for kind, layers in kinds.items() for l, x in layers.items()}

    @locked
    def set_parameters(self, named: dict[str, np.ndarray]) -> None:
        """Take the values of :meth:`parameters`, NaN and infinity too: a network that diverged can be looked at.

        Raises
        ------
        ShapeError
            If a name is missing or unknown, a shape differs or a value holds no real numbers.
        """
        host, statistics = {}, self._statistics()
        held = self.params.tensors | statistics
        for name in named:
            if name not in held:
                raise ShapeError(f"the network has no parameter {name!r}; it has {', '.join(held)}")
        for name, shape in ((name, tuple(x.shape)) for name, x in held.items()):
            value = np.asarray(named[name]) if name in named else None
            if value is None or value.shape != shape:
                got = "nothing" if value is None else str(value.shape)
                raise ShapeError(f"parameter {name} must be {shape}, got {got}")
            if value.dtype.kind not in ("biufc" if self.dtype == "complex128" else "biuf"):
                raise ShapeError(f"parameter {name} must hold real numbers, got {value.dtype}")
            host[name] = value
        self.changes += 1
        with self.backend.activate():
            if not isinstance(self.params.theta, np.ndarray):  # then at once
                self.params.theta[...] = self.backend.asarray(self.params.flat(host), self.dtype)
                held = statistics
            for name, x in held.items():
                self.backend.upload(host[name], x, self.dtype)

    @property
    def n_parameters(self) -> int:
        """How many numbers an optimizer trains: weights, biases, gammas and what else there is."""
        return sum(n * k for *_, (n, k) in self.params.spans)

    def spec(self) -> dict[str, Any]:
        """:meth:`settings` as JSON has them; of the user's own formulas it has the names, and marks them."""
        settings = self.settings()
        return settings | {"activation": [spec_of(a) for a in settings["activation"]], "loss": spec_of(self.loss)}

    def settings(self) -> dict[str, Any]:
        """The arguments that build this network again, but for its device and its parameters."""
        return {
            "sizes": list(self.sizes),
            "activation": self.activations[1:-1],
            "loss": self.loss,
            "initializer": self.initializer,
            "dropout": self.dropout[1:-1],
            "batch_norm": self.batch_norm[1:-1],
            "dtype": self.dtype,
            "seed": self.seed,
            **self.inputs.settings(),
            **({"parametric_activation": self.parametric[1:-1]} if any(self.parametric) else {}),
            **self.ensemble.settings(),
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to one safetensors file, which :meth:`load` reads; CheckpointError if that cannot be."""
        from .model_file import save_model

        save_model(path, self)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        device: str | Backend | None = None,
        kernels: str = "auto",
        *,
        custom: Custom = (),
    ) -> DenseNet:
        """The network of a file that :meth:`save` wrote, or of a run's model.safetensors, onto any device.

        ``custom``: the activations and the loss of your own that it has, such as ``custom=[snake, MyLoss]``. Raises
        CheckpointError and DeviceError as ``model_file.load_model``.
        """
        from .model_file import load_model

        return load_model(DenseNet, path, device, kernels, custom=custom)[0]

    def __reduce__(self) -> Any:
        """Copies and pickles are networks of their own, on the same device, or where it is not there on another."""
        from .model_file import rebuilt

        return rebuilt, (type(self), self.settings(), self.parameters(), self.backend.name, self.kernels_kind)

    def __deepcopy__(self, memo: dict[int, Any]) -> DenseNet:
        from .model_file import rebuilt

        return rebuilt(type(self), self.settings(), self.parameters(), self.backend, self.kernels_kind)

    def __repr__(self) -> str:
        return one_line(self)

    def _repr_html_(self) -> str:
        return layers_table(self)

    # -- the layer loop (columns are examples) -------------------------------------------------------------------

    def workspace(
        self, m: int, *, train: bool = True, step: Array = None, first: int = 0, dropout: bool = True
    ) -> Workspace:
        """Buffers for m examples; ``train=False`` leaves out dropout and everything of the backward pass.

        ``dropout=False`` leaves out that alone. ``step`` and ``first``: see :class:`Workspace`; without ``step``,
        dropout draws the masks of step 0.
        """
        if train and dropout and step is None and any(self.dropout):
            step = self.backend.zeros((1,), "int64")
        ws = Workspace(
            self.backend,
            self.kernels,
            self.widths,
            [IDENTITY if own else g for g, own in zip(self.activations, self.parametric, strict=True)],
            self.dropout if dropout else [0.0] * len(self.dropout),
            m,
            self.dtype,
            seed=self.seed,
            train=train,
            step=step,
            first=first,
            normalized=list(self.mean),
            members=self.ensemble,
        )
        ws.inputs = self.inputs.buffers(self.backend, self.kernels, m, self.dtype, train)
        for l in (l for l in range(1, self.L) if self.parametric[l]):
            ws.parametric[l] = parametric_buffers(self.backend, self.kernels, self.sizes[l], m, self.dtype, train)
        return ws

    def forward(self, ws: Workspace, member: int = 0) -> Array:
        """Z[L] (n_L, m) of one member from ``ws.A[0]`` (n_0, m), by ``network.layer_loop``."""
        return layer_loop.forward(self, ws, member)

    def forward_members(self, ws: Workspace) -> list[Array]:
        """Z[L] of every member; in buffers of their own if ``ws`` is one for inference."""
        return [self.forward(ws, member) for member in range(self.members)]

    def backward(self, ws: Workspace, *, scale: Array | None, accumulate: bool, member: int = 0) -> None:
        """The gradient from ``ws.dZ[L]``, by ``network.layer_loop``; ``scale`` is the late 1/D, None for early."""
        layer_loop.backward(self, ws, scale=scale, accumulate=accumulate, member=member)

    # -- rows of examples ----------------------------------------------------------------------------------------

    @locked
    def predict_proba(self, X: Any) -> np.ndarray:
        """AL, (n_samples, n_L): probabilities, or values for a regression loss.

        Parameters
        ----------
        X : (n_samples, n_0)
        """
        X = check_rows(self._on_host(X, "X"), self.sizes[0], dtype=self.dtype)
        out = np.empty((X.shape[0], self.sizes[-1]), self.dtype)
        with self.backend.activate():
            for rows, logits in self._forwards.logits(self, X, BLOCK_ROWS):
                out[rows] = self.backend.to_host(mean_output(self.backend.xp, self.loss.link, logits)).T
        return out

    def predict(self, X: Any) -> np.ndarray:
        """Class labels (n_samples,), 0/1 labels (n_samples,) or (n_samples, n_L), or values likewise."""
        AL = self.predict_proba(X)
        if self.loss.labels == "classes":
            return AL.argmax(axis=1)
        if self.loss.labels == "binary":
            AL = (AL > 0.5).astype(np.int64)
        return AL[:, 0] if AL.shape[1] == 1 else AL

    @locked
    def cost(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """J without penalty: the (weighted) mean over rows of L, accumulated in float64 over blocks of rows.

        Of an ensemble, the mean over its members.
        """
        X = check_rows(self._on_host(X, "X"), self.sizes[0], dtype=self.dtype)
        Y = check_targets(self._on_host(y, "y"), self.loss, self.sizes[-1], X.shape[0])
        w = None if sample_weight is None else check_weights(self._on_host(sample_weight, "sample_weight"), X.shape[0])
        D = Denominator.of("mean", X.shape[0], None if w is None else float(w.sum()))
        total = 0.0
        with self.backend.activate():
            one = self.backend.asarray([1.0], self.dtype)
            of_members = ((rows, Z) for rows, all_Z in self._forwards.logits(self, X, BLOCK_ROWS) for Z in all_Z)
            for rows, Z in of_members:
                value = self.backend.zeros((1,), self.dtype)
                self.kernels.output_delta(
                    self.loss,
                    "fused",
                    Z,
                    self.upload_columns(Y[rows]),
                    None if w is None else self.upload_columns(w[rows]),
                    inverse_denominator=one,
                    early=False,
                    dZ=self.backend.zeros(Z.shape, self.dtype),
                    db=self.backend.zeros((Z.shape[0], 1), self.dtype),
                    value=value,
                    accumulate=False,
                )
                total += float(self.backend.to_host(value)[0])
        return total * (D.inverse / self.members)

    def upload_columns(self, rows: np.ndarray) -> Array:
        """Host rows (m, k) as columns (k, m) on the device; class labels stay int64."""
        return self.backend.asarray(rows, "int64" if rows.dtype == np.int64 else self.dtype).T

    def _on_host(self, x: Any, name: str) -> Any:
        """Arrays of this device are brought to the host; those of another are refused; lists and tables pass."""
        if isinstance(x, np.ndarray) or not hasattr(x, "__dlpack__"):
            return x
        require_owned(self.backend, name, x)
        return self.backend.to_host(x)
