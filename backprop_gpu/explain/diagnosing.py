"""``diagnose``: from what the reader has (parameters, gradients, rows, of any library) to a :class:`Diagnosis`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import ConfigError, DataError, ShapeError
from ..maths.losses import Loss
from ..network.dense_net import DenseNet
from ..network.targets import check_rows, check_targets, check_weights
from .chain import Network, Tensors
from .comparing import compared, diagnosis_of
from .diagnosis import Diagnosis
from .explaining import network_of
from .mistakes import Mistake, Setting, flattened, transposed
from .variants import Given, denominator

CLAIMS = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32", "float64": "fp64"}  # the lowest precision first


def diagnose(
    parameters: DenseNet | Mapping[str, Any],
    grads: Mapping[str, Any] | Sequence[Any],
    X: Any,
    y: Any,
    *,
    loss: str | dict[str, Any] | Loss = "binary_cross_entropy",
    activation: Any = "relu",
    sample_weight: Any = None,
    l2: float = 0.0,
    ranks: int = 1,
    micro_batches: int | Sequence[int] | None = None,
    masks: Mapping[int, Any] | None = None,
    keep_prob: float = 1.0,
    dtype: str | None = None,
) -> Diagnosis:
    """Compare a gradient with the right one, and say what went wrong: the 1/m, a sign, a missing g', a transpose, ...

    Arrays may be of any library (NumPy, torch, CuPy, jax, lists). What is right is not a matter of taste: the bound is
    derived for the operations of the network in the precision of the arrays.

    Parameters
    ----------
    parameters : DenseNet, or mapping
        The network, or ``{"W1": (n_1, n_0), "b1": (n_1, 1) or (n_1,), ...}``.
    grads : mapping or sequence
        ``{"dW1": ..., "db1": ...}`` (the d may be left out, other names are not looked at), or [dW1, db1, dW2, ...].
    X, y : array (n_samples, n_features), (n_samples,) or (n_samples, n_outputs)
        The batch; rows are examples.
    loss, activation
        As of :class:`~backprop_gpu.DenseNet`, where ``parameters`` is not one.
    sample_weight : array (n_samples,), optional
        The cost is then sum w L / sum w.
    l2 : float, default 0.0
        The course's lambd: l2/(2 m) sum W^2 is in the cost.
    ranks : int, default 1
        How many devices shared the batch.
    micro_batches : int or sequence of int, optional
        Into how many pieces, or pieces of which sizes, the batch was cut.
    masks : mapping, optional
        ``{1: (n_samples, n_1), ...}``: which units of the hidden layers dropout kept (1) and dropped (0).
    keep_prob : float, default 1.0
        What dropout divides by.
    dtype : {"float16", "bfloat16", "float32", "float64"}, optional
        What was computed in; default: the lowest precision among the arrays.

    Returns
    -------
    Diagnosis
        ``.ok``, ``.first``, ``.mistakes``, ``.tensors``, ``.summary()``.

    Raises
    ------
    ConfigError, ShapeError, DataError
        For arrays that do not belong to one network.
    """
    model = parameters if isinstance(parameters, DenseNet) else _columns(parameters)
    net, _ = network_of(model, loss, activation, 0, any_size=True)
    if isinstance(parameters, DenseNet) and any(parameters.dropout) and masks is None:
        raise ConfigError("the network has dropout: give the masks that the gradient was computed with, masks={1: ...}")
    named = {name: to_numpy(x, name) for name, x in _named(grads).items()}
    claim = CLAIMS.get(dtype or "") or _lowest([*_arrays(parameters), *_named(grads).values(), X], dtype)
    given = _given(net, X, y, sample_weight, claim)
    masks = {int(l): to_numpy(x, "masks").astype(np.float64).T for l, x in (masks or {}).items()}
    given = replace(given, l2=_not_negative("l2", l2), masks=masks, keep_prob=keep_prob)
    _check_masks(given)
    got, reshaped = _shaped(named, given, parameters)
    return diagnosis_of(compared(given, got, setting_of(given.m, ranks, micro_batches), claim), reshaped)


def _given(net: Network, X: Any, y: Any, sample_weight: Any, claim: str) -> Given:
    """The network and the batch, with numbers as the precision of the gradient holds them."""
    working, n_L = "float64" if claim == "fp64" else "float32", net.sizes[-1]
    rows = check_rows(to_numpy(X, "X"), net.sizes[0])
    Y = check_targets(to_numpy(y, "y"), net.loss, n_L, len(rows))
    if net.loss.labels == "classes" and Y.shape[1] == 1 and n_L > 1:
        Y = np.eye(n_L)[Y[:, 0]]
    weights = None if sample_weight is None else check_weights(to_numpy(sample_weight, "sample_weight"), len(rows)).T
    rounded = {name: _rounded(x, working) for name, x in net.parameters.items()}
    X, Y = _rounded(rows.T, working), _rounded(Y.T, working)
    return Given(replace(net, parameters=rounded), X, Y, denominator(len(rows), weights), weights)


def to_numpy(x: Any, name: str) -> np.ndarray:
    """An array of any library on the host."""
    x = x.detach() if callable(getattr(x, "detach", None)) else x  # torch: gradients of gradients are not looked at
    x = x.get() if callable(getattr(x, "get", None)) and hasattr(x, "dtype") else x  # CuPy
    try:
        host = np.asarray(x)
    except Exception:  # of a library that gives no host array by itself, as torch on CUDA does
        if not callable(getattr(x, "cpu", None)):
            raise DataError(
                f"{name} is a {type(x).__name__}, of which no array can be made; copy it to the host"
            ) from None
        x = x.cpu()
        host = np.asarray(x.float() if "bfloat16" in str(x.dtype) else x)
    if host.dtype.kind not in "biuf":
        raise DataError(f"{name} must hold real numbers, got {host.dtype}")
    return host


def setting_of(m: int, ranks: int, micro_batches: int | Sequence[int] | None) -> Setting:
    """Ranks, and the sizes of micro-batches: of one size as far as m allows, the last one smaller."""
    if isinstance(ranks, bool) or not isinstance(ranks, int) or ranks < 1:
        raise ConfigError(f"ranks must be a whole number from 1, got {ranks!r}")
    if micro_batches is None:
        return Setting(ranks)
    if isinstance(micro_batches, int):
        if not 1 <= micro_batches <= m:
            raise ConfigError(
                f"micro_batches must be from 1 to the {m} examples, or a list of sizes; got {micro_batches}"
            )
        size = -(-m // micro_batches)
        return Setting(ranks, tuple(min(size, m - start) for start in range(0, m, size)))
    sizes = tuple(int(n) for n in micro_batches)
    if min(sizes, default=0) < 1 or sum(sizes) != m:
        raise ConfigError(f"micro_batches must be sizes that add up to the {m} examples, got {list(sizes)}")
    return Setting(ranks, sizes)


def _named(grads: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    """``dW1, db1, ...``: from names with or without the d, or from a list W1, b1, W2, ..."""
    if not isinstance(grads, Mapping):
        return {f"d{'Wb'[i % 2]}{i // 2 + 1}": x for i, x in enumerate(grads)}
    named = {name if name.startswith("d") else f"d{name}": x for name, x in ((str(k), v) for k, v in grads.items())}
    return {name: x for name, x in named.items() if name[1:2] in ("W", "b")}


def _columns(parameters: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The parameters on the host, biases as columns."""
    host = {str(name): to_numpy(x, str(name)) for name, x in parameters.items()}
    return {name: x.reshape(-1, 1) if name[0] == "b" and x.ndim == 1 else x for name, x in host.items()}


def _arrays(parameters: DenseNet | Mapping[str, Any]) -> list[Any]:
    return list((parameters.parameters() if isinstance(parameters, DenseNet) else parameters).values())


def _lowest(arrays: Sequence[Any], dtype: str | None) -> str:
    """The claim of the lowest precision among floating arrays."""
    if dtype is not None:
        raise ConfigError(f"dtype must be one of {', '.join(CLAIMS)}, got {dtype!r}")
    found = [str(getattr(x, "dtype", "")).rpartition(".")[2] for x in arrays]
    return next((claim for name, claim in CLAIMS.items() if name in found), "fp64")


def _rounded(x: np.ndarray, dtype: str) -> np.ndarray:
    return x.astype(dtype).astype(np.float64)


def _not_negative(name: str, x: float) -> float:
    if isinstance(x, bool) or not isinstance(x, int | float) or not 0.0 <= x < np.inf:
        raise ConfigError(f"{name} must be at least 0, got {x!r}")
    return float(x)


def _check_masks(given: Given) -> None:
    if not 0.0 < given.keep_prob <= 1.0:
        raise ConfigError(f"keep_prob must be above 0 and at most 1, got {given.keep_prob}")
    for l, mask in given.masks.items():
        if not 1 <= l < given.net.L or mask.shape != (given.net.sizes[l], given.m):
            wanted = ", ".join(f"{j}: ({given.m}, {given.net.sizes[j]})" for j in range(1, given.net.L))
            raise ShapeError(f"masks of hidden layers must be {wanted or 'empty'}; got {l}: {mask.T.shape}")


def _shaped(named: Mapping[str, np.ndarray], given: Given, parameters: Any) -> tuple[Tensors, list[Mistake]]:
    """The gradients in the shapes of the parameters, and what is wrong with those that came in others."""
    wanted = {f"d{name}": value.shape for name, value in given.net.parameters.items()}
    if missing := [name for name in wanted if name not in named]:
        raise ConfigError(f"grads has no {', '.join(missing)}; it has {', '.join(named) or 'no dW and no db'}")
    found, mistakes = dict[str, np.ndarray](), list[Mistake]()
    for name, shape in wanted.items():
        x = named[name].astype(np.float64)
        if x.ndim == 1 < shape[0] and name[1] == "b" and np.ndim(_own(parameters, name[1:])) == 2:
            mistakes.append(flattened(name, shape[0]))
        if name[1] == "b" and x.size == shape[0]:
            x = x.reshape(shape)
        if x.shape == shape[::-1] != shape:
            x = x.T
            mistakes.append(transposed(name))
        if x.shape != shape:
            meant = f": np.sum(dZ{name[2:]}, axis=1, keepdims=True)" if name[1] == "b" else ""
            raise ShapeError(f"{name} has shape {x.shape}, but it must be {shape}, that of {name[1:]}{meant}")
        found[name] = x
    return found, mistakes


def _own(parameters: Any, name: str) -> Any:
    """A parameter as the reader gave it, where gradients are updated as they are: of a mapping."""
    return parameters.get(name, 0.0) if isinstance(parameters, Mapping) else 0.0
