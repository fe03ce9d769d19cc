"""A function of anyone's, written against ``xp``: did each device compute what its precision allows?"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .._typing import Array
from ..backends import get_backend
from ..backends.base import Backend
from ..devices import one_line
from ..errors import BackpropError, CheckpointError, ConfigError, DataError, MissingDependencyError
from .bounded_array import BoundedArray, MaskArray, Untraceable, as_mask, received
from .claims import CLAIMS, arithmetic_of, claim_of
from .comparator import Comparison, ratios
from .findings import Finding
from .namespace import BoundedNamespace
from .operand_precision import operands_rounded
from .oracle.bounds import Bounded, Bounds
from .oracle.products import LONG
from .report import Report

# A bound as large as this part of the largest number of an output decides little: the finding says so.
LOOSE = 1e-2

EXACT = Bounds("float64", u=0.0, eta=0.0, largest=math.inf, u_sum=0.0)  # of labels, counts and comparisons

Output = np.ndarray | BoundedArray | MaskArray


class FunctionReport(Report):
    """A :class:`Report` with a finding per output and device; it is iterated, measured and indexed as their list."""

    def __init__(
        self,
        findings: list[Finding],
        about: dict[str, Any],
        inputs: list[np.ndarray],
        comparisons: dict[str, Comparison],
    ) -> None:
        super().__init__(steps=[findings], inputs={}, about=about, comparisons=comparisons)
        self.arguments = inputs

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def __getitem__(self, i: int) -> Finding:
        return self.findings[i]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the case as one safetensors file: ``input.0``, ..., and got, want and bound of each output.

        What the findings say is in its metadata, as JSON.

        Raises
        ------
        CheckpointError
            If the file cannot be written.
        """
        from safetensors.numpy import save_file

        arrays = {f"input.{i}": x for i, x in enumerate(self.arguments)}
        for tensor, comparison in self.comparisons.items():
            arrays |= {f"{tensor}.{name}": getattr(comparison, name) for name in ("got", "want", "bound")}
        # safetensors writes the memory as it lies
        whole = {name: np.array(x, order="C") for name, x in arrays.items()}
        try:
            save_file(whole, path, {"kind": "parity of a function", "report": self.to_json()})
        except Exception as error:  # its own exceptions are not part of its interface
            raise CheckpointError(
                f"{os.fspath(path)} cannot be written ({one_line(error)}); free space there"
            ) from None


def check_step(
    fn: Callable[..., Any],
    *arrays: Any,
    devices: Sequence[str | Backend] = ("numpy",),
    dtype: str | None = None,
    claim: str | None = None,
    tolerance: float | tuple[float, float] | None = None,
    name: str | None = None,
) -> FunctionReport:
    """Run ``fn(xp, *arrays)`` on devices and compare with float64 on the host.

    The bound comes from running ``fn`` once more on numbers that carry their rounding errors; it holds for the whole of
    ``fn``, so that the shorter the function, the tighter the bound.

    Parameters
    ----------
    fn : callable
        Returns an array, or a dict, tuple or list of them, nested at will.
    *arrays : array_like
        Floats are rounded to the working dtype first; integers and booleans go as they are.
    devices : sequence of str or Backend, default ("numpy",)
        Names as everywhere (``"cupy:0"``, ``"torch:cpu"``, ``"array_api_strict:device1"``), or ``"jax"``.
    dtype : {"float32", "float64"}, optional
        The working dtype; float32, or what the claim says.
    claim : {"fp32", "tf32", "bf16", "fp16", "fp64"}, optional
        The precision that the devices are held to; the one of ``dtype``.
    tolerance : float or (float, float), optional
        Instead of the trace: largest accepted ``|difference|`` relative to ``|reference|``, and an absolute one too.
    name : str, optional
        For the findings; the function's own.

    Returns
    -------
    FunctionReport
        ``.ok .first .summary() .table() .plot(path) .to_json() .save(path)``.

    Raises
    ------
    Untraceable
        Where the trace cannot bound an operation and no tolerance is stated: this cannot be checked.
    ConfigError, DeviceError, MissingDependencyError
        For settings that do not fit, and devices that cannot be had.
    DataError
        For arguments that are not numbers, and if a device returns other outputs than the reference.
    """
    dtype, claim = _precision(dtype, claim)
    host = [_rounded(x, dtype) for x in arrays]
    title = name or getattr(fn, "__name__", type(fn).__name__)
    backends = [backend_of(device) for device in devices]
    found: list[Finding] = []
    comparisons: dict[str, Comparison] = {}
    for backend in backends:
        got = _run(fn, host, backend, dtype)
        if tolerance is None:
            want = _traced(fn, host, arithmetic_of(backend.name.partition(":")[0], claim))
        else:
            want = _stated(fn, host, tolerance, claim)
        if not want or got.keys() != want.keys():
            raise DataError(f"{backend.name} returns {', '.join(got)} where the reference returns {', '.join(want)}")
        checked = {}
        for output, (reference, k) in want.items():
            tensor = f"{output} on {backend.name}"
            checked[output], comparisons[tensor] = _compare(str(title), tensor, k, got[output], reference)
        if tolerance is None and claim == "fp32":
            hidden = _hidden(fn, host, arithmetic_of(backend.name.partition(":")[0], claim), want, got)
            checked |= {x: replace(checked[x], status="wrong", cause=cause) for x, cause in hidden.items()}
        found += checked.values()
    about = {"device": ", ".join(b.name for b in backends), "kernels": title, "dtype": dtype, "claim": claim}
    return FunctionReport(found, about, host, comparisons)


# -- running ----------------------------------------------------------------------------------------------------------


def _precision(dtype: str | None, claim: str | None) -> tuple[str, str]:
    if dtype not in (None, "float32", "float64"):
        raise ConfigError(f"dtype must be float32 or float64, got {dtype!r}")
    if dtype is None:
        dtype = CLAIMS[claim].dtype if claim in CLAIMS else "float32"
    return dtype, claim_of(dtype, claim)


def _rounded(x: Any, dtype: str) -> np.ndarray:
    host = np.asarray(x)
    if host.dtype.kind not in "biuf":
        raise DataError(f"check_step takes arrays of real numbers, got {host.dtype}")
    return host.astype(dtype) if host.dtype.kind == "f" else host


class _Jax(Backend):
    """Plain arrays of jax.numpy, which have no in-place operations: enough for functions, not for kernels."""

    def __init__(self) -> None:
        try:
            self.jax: Any = importlib.import_module("jax")
        except ModuleNotFoundError:
            raise MissingDependencyError("jax is not installed; pip install jax") from None
        super().__init__("jax", self.jax.numpy, reason="jax was asked for")

    def asarray(self, host: Any, dtype: str | None = None) -> Array:
        return self.xp.asarray(np.asarray(host, dtype))


def backend_of(device: str | Backend) -> Backend:
    """:func:`~backprop_gpu.get_backend`, and ``"jax"``."""
    return _Jax() if device == "jax" else get_backend(device)


def _run(fn: Callable[..., Any], host: list[np.ndarray], backend: Backend, dtype: str) -> dict[str, np.ndarray]:
    context = backend.jax.enable_x64(dtype == "float64") if isinstance(backend, _Jax) else backend.activate()
    with context:
        out = dict(_named(fn(backend.xp, *(backend.asarray(x) for x in host))))
        return {name: backend.to_host(x) if backend.owns(x) else np.asarray(x) for name, x in out.items()}


def _named(out: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Outputs by name: ``out``, ``key``, ``out[0]``, ``key[1].inner``."""
    if isinstance(out, Mapping):
        for key, value in out.items():
            yield from _named(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(out, tuple | list):
        for i, value in enumerate(out):
            yield from _named(value, f"{prefix or 'out'}[{i}]")
    else:
        yield prefix or "out", out


def _traced(fn: Callable[..., Any], host: list[np.ndarray], bounds: Bounds) -> dict[str, tuple[Output, int]]:
    """float64 values with a bound on each, and the terms of the longest sum."""
    inputs = [received(bounds, x) if x.dtype.kind == "f" else x for x in host]
    try:
        with np.errstate(all="ignore"):
            out = dict(_named(fn(BoundedNamespace(bounds), *inputs)))
    except BackpropError:
        raise
    except Exception as error:  # the trace's arrays are not NumPy's: whatever fn does with them may fail
        raise Untraceable(f"this function ({one_line(error, 80)})") from error
    named: dict[str, tuple[Output, int]] = {}
    for name, x in out.items():
        if isinstance(x, BoundedArray):
            open_ = np.isinf(x.e)
            if open_.any():
                at = tuple(int(i) for i in np.argwhere(open_)[0])
                raise Untraceable(f"{name} at {at}, whose bound is infinite: a divisor or a logarithm may be of 0")
            named[name] = x, x.k
        else:
            named[name] = x if isinstance(x, MaskArray) else np.asarray(x), 1
    return named


def _hidden(
    fn: Callable[..., Any],
    host: list[np.ndarray],
    bounds: Bounds,
    want: dict[str, tuple[Output, int]],
    got: dict[str, np.ndarray],
) -> dict[str, str]:
    """Outputs within their bounds, since those of long sums are wide, that products of a lower precision explain."""

    def traced(bits: int) -> dict[str, tuple[Output, int]]:
        return _traced(fn, host, replace(bounds, operand_bits=bits))

    same_shape = {name: (x, k) for name, (x, k) in want.items() if got[name].shape == x.shape}
    return operands_rounded(traced, same_shape, got, LONG)


def _stated(
    fn: Callable[..., Any], host: list[np.ndarray], tolerance: float | tuple[float, float], claim: str
) -> dict[str, tuple[Output, int]]:
    relative, absolute = tolerance if isinstance(tolerance, tuple) else (tolerance, 0.0)
    bounds = arithmetic_of("numpy", claim)
    inputs = [x.astype(np.float64) if x.dtype.kind == "f" else x for x in host]
    named: dict[str, tuple[Output, int]] = {}
    for name, x in _named(fn(np, *inputs)):
        v = np.asarray(x)
        e = relative * np.abs(v) + absolute
        named[name] = (BoundedArray(bounds, v, e) if v.dtype.kind == "f" else v), 1
    return named


# -- comparing --------------------------------------------------------------------------------------------------------


def _compare(operation: str, tensor: str, k: int, got: np.ndarray, want: Output) -> tuple[Finding, Comparison]:
    """One output of one device."""
    v, e, bounds = _numbers(want)
    comparison = Comparison(got.astype(np.float64), v, e)
    if got.shape != v.shape:
        cause = f"its shape is {got.shape}"
        return Finding(operation, tensor, v.shape, k, math.inf, status="wrong", cause=cause), comparison
    if v.size == 0:
        return Finding(operation, tensor, v.shape, k, 0.0), comparison
    undecided = np.isnan(e)
    reference = Bounded(bounds or EXACT, np.where(undecided, 0.0, v), e=np.where(undecided, np.inf, e))
    with np.errstate(all="ignore"):
        found, _ = ratios(np.asarray(np.abs(comparison.got - reference.v)), comparison.got, reference)
    worst = tuple(int(i) for i in np.unravel_index(int(np.argmax(found)), v.shape))
    numbers = float(comparison.got[worst]), float(v[worst])
    finding = Finding(operation, tensor, v.shape, k, float(found[worst]), None, worst, *numbers)
    other_dtype = bounds is not None and got.dtype != np.dtype(bounds.dtype)
    if other_dtype or finding.ratio > 1.0:
        cause = (
            f"it was computed in {got.dtype}, not in {bounds.dtype}" if bounds and other_dtype else _cause(comparison)
        )
        return replace(finding, status="wrong" if finding.ratio > 1.0 else "warning", cause=cause), comparison
    if undecided.any():
        cause = f"a part of a sum may overflow, so {int(undecided.sum()):,} entries are not compared"
        return replace(finding, status="warning", cause=cause), comparison
    largest = float(np.max(np.abs(v), initial=0.0, where=np.isfinite(v)))
    loose = float(np.max(e)) / largest if largest > 0.0 else math.inf
    if bounds is not None and loose > LOOSE and np.max(e) > bounds.eta:
        size = f"{loose:.1%} of" if largest > 0.0 else "above"
        cause = f"the bound is {size} the largest number: check a shorter function"
        return replace(finding, status="warning", cause=cause), comparison
    return finding, comparison


def _numbers(want: Output) -> tuple[np.ndarray, np.ndarray, Bounds | None]:
    """An output, its bound and its arithmetic: labels and comparisons are exact where every device must agree."""
    if isinstance(want, BoundedArray):
        return want.v, want.e, want.bounds
    mask = as_mask(want)
    return mask.value.astype(np.float64), mask.undetermined.astype(np.float64), None


def _cause(comparison: Comparison) -> str:
    """What a difference looks like, where one number gives it away."""
    x, v, e = comparison.got, comparison.want, comparison.bound
    one_side = (np.isfinite(x) != np.isfinite(v)) & ~np.isnan(e)
    if one_side.any():
        return f"{int(one_side.sum()):,} entries are finite on one side alone"
    clear = np.isfinite(v) & (np.abs(v) > 100.0 * e) & ~np.isnan(e)
    factors = x[clear] / v[clear]
    if factors.size:
        middle = float(np.median(factors))
        if abs(middle - 1.0) > 0.01 and np.all(np.abs(factors - middle) <= 0.03 * abs(middle)):
            return f"every entry is {middle:.6g} times the reference"
    if x.ndim == 2 and x.shape[0] == x.shape[1] and np.all(np.abs(x.T - v) <= e):
        return "it is the transpose"
    return ""
