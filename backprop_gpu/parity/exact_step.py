"""Training steps that need no rounding: whatever the order of summation, every bit must be the float64 one.

A ReLU network with squared error over m = 2^k examples, whose weights are 0 but for at most two of -1 or 1 in each row
and column: every product and every sum is a multiple of one power of two and fits float32's mantissa. In one step the
activations need 12 bits and more and the deltas few, in another it is the other way round: a device that rounds its
operands to tf32 or bf16, or sums in fp16, is seen in each product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..backends import Backend, get_backend
from ..errors import ConfigError
from ..maths.random import host_generator
from ..network.dense_net import DenseNet
from ..network.step import TrainingStep
from ..training.batches import Batches
from ..training.epoch import CapturedEpoch
from .checking import STREAM, network_of, place_of
from .claims import claim_of
from .comparator import Comparator
from .diagnosis.diagnose import diagnose
from .findings import Finding
from .recorded_epochs import EpochPlan, compare_epochs
from .report import Report
from .step_replay import Replayed, compare_step
from .trace import StepTrace, trace_step

M = 16
RATE = 2.0**-6
WIDE = 2**11  # odd numbers from here on need 12 bits, one more than tf32 and fp16 have
DEEP = 7  # layers from which on two weights to a row would let numbers outgrow float32's mantissa


def exact(
    model: Any,
    device: str | Backend | None = None,
    *,
    kernels: str | None = None,
    dtype: str = "float32",
    one_over_m: str = "early",
    seed: int = 0,
) -> Report:
    """Check two exact-arithmetic steps, bit for bit, and recorded epochs of two batches and a ragged tail.

    Parameters
    ----------
    model : DenseNet, an object whose ``net`` is one, or a sequence of int
        Only its layer sizes matter; a number of outputs that is not a power of two is rounded down to one, since the
        loss divides by it.
    device, kernels, dtype, one_over_m : as for :func:`~.checking.check`
        Without a model, ``"auto"``.
    seed : int, default 0
        Of the integers.

    Raises
    ------
    ConfigError, DeviceError
        For sizes that are none, kernels that claim a lower precision, or a device that cannot be had.
    """
    given = None if isinstance(model, Sequence) and not isinstance(model, str) else network_of(model)
    sizes = [int(n) for n in model] if given is None else list(given.sizes)
    if len(sizes) < 2 or min(sizes) < 1:
        raise ConfigError(f"sizes needs inputs and outputs of at least one unit, got {sizes}")
    sizes[-1] = 2 ** (sizes[-1].bit_length() - 1)
    rng = host_generator(seed, STREAM)
    backend, kernels = (get_backend(device), kernels or "auto") if given is None else place_of(given, device, kernels)
    net = DenseNet(sizes, loss="squared_error", initializer="zeros", dtype=dtype, device=backend, kernels=kernels)
    claim = getattr(net.kernels, "claim", "fp32")
    if claim != "fp32":
        raise ConfigError(f"kernels {kernels!r} claim {claim}, which rounds whole numbers; use parity.check for them")
    steps: list[list[Finding]] = []
    found: Replayed | None = None
    for wide in ("activations", "deltas"):
        signs = (-1.0, 1.0, 1.0, 1.0) if wide == "activations" else (1.0,)
        named = {n: _integers(n, x.shape, rng, signs, len(sizes) - 1) for n, x in net.parameters().items()}
        net.set_parameters(named)
        X = _inputs(sizes[0], wide, rng)
        Y = _logits(X, named, len(sizes) - 1) - _deltas(sizes[-1], wide, rng)
        rows = X.astype(dtype), Y.astype(dtype)
        findings, found, trace = _exact_step(net, *rows, one_over_m)
        net.set_parameters(named)
        findings += _recorded(net, *rows, one_over_m, trace)
        steps.append(findings)
        if any(f.status == "wrong" for f in findings):
            break
    else:
        steps[-1] = steps[-1] + _epochs(net, backend, kernels, one_over_m, seed)
    assert found is not None
    about = {
        "device": backend.name,
        "kernels": trace.spec.kernels,
        "dtype": dtype,
        "claim": "exact",
        "sizes": sizes,
        "examples": M,
    }
    return Report(steps, found.inputs, about, [], trace, found.comparisons)


def _exact_step(
    net: DenseNet, X: np.ndarray, Y: np.ndarray, one_over_m: str
) -> tuple[list[Finding], Replayed, StepTrace]:
    """One step on rows X and Y, and what is wrong with it."""
    step = _step(net, one_over_m)
    comparator, backend = Comparator(), net.backend
    with backend.activate():
        columns = [net.upload_columns(x) for x in (X, Y)]
    for name, x, host in zip(("X", "Y"), columns, (X, Y), strict=True):
        comparator.same("upload", name, backend.to_host(x), host.T)
    trace = trace_step(step, *columns)
    found = compare_step(trace, "exact")
    findings = [replace(f, cause=diagnose(f, found.comparisons.get(f.tensor), trace)) for f in found.findings]
    return [*comparator.findings.values(), *findings], found, trace


def _epochs(net: DenseNet, backend: Backend, kernels: str, one_over_m: str, seed: int) -> list[Finding]:
    """What is wrong with three epochs over rows of ordinary numbers: from the second step on nothing is exact."""
    rng, spec = host_generator(seed, STREAM, 1), net.spec() | {"initializer": "auto"}
    pair = [TrainingStep(DenseNet(**spec, device=backend, kernels=kernels), one_over_m=one_over_m) for _ in range(2)]
    n = 2 * M + M // 2
    X, Y = (rng.standard_normal((n, k)).astype(net.dtype) for k in (net.sizes[0], net.sizes[-1]))
    return compare_epochs(pair[0], pair[1], (X, Y, None), EpochPlan(M, epochs=3, seed=seed), claim_of(net.dtype))


def _recorded(net: DenseNet, X: np.ndarray, Y: np.ndarray, one_over_m: str, trace: StepTrace) -> list[Finding]:
    """The same step as training plays it, gathered and recorded: the bits of the one that was called outright."""
    epoch = CapturedEpoch(_step(net, one_over_m), Batches(net, X, Y, None, batch_size=M, shuffle=False, seed=0), None)
    comparator, cost = Comparator(), epoch.run(0)
    comparator.same("recorded step", "J recorded", cost, trace.value)
    comparator.same("recorded step", "theta recorded", net.backend.to_host(net.params.theta), trace.theta_after)
    return list(comparator.findings.values())


def _step(net: DenseNet, one_over_m: str) -> TrainingStep:
    return TrainingStep(net, {"name": "sgd", "learning_rate": RATE}, one_over_m=one_over_m)


def _integers(
    name: str, shape: tuple[int, ...], rng: np.random.Generator, signs: tuple[float, ...], depth: int
) -> np.ndarray:
    """Biases of 0 and weights of 1, with signs; at most two weights (deep networks: one) to a row and to a column."""
    if name.startswith("b"):
        return rng.choice([0.0, *signs], shape)
    matrix, count = np.zeros(shape), min(shape)
    for _ in range(2 if depth < DEEP else 1):
        at = rng.permutation(shape[0])[:count], rng.permutation(shape[1])[:count]
        matrix[at] = rng.choice(signs, count)
    return matrix


def _inputs(n: int, wide: str, rng: np.random.Generator) -> np.ndarray:
    """Rows (m, n): odd numbers of 12 bits, or 0 and 1, so that every unit is on and the deltas go all the way."""
    if wide == "activations":
        return (WIDE + 2 * rng.integers(0, WIDE // 2, (M, n)) + 1) * rng.choice([-1.0, 1.0], (M, n))
    return rng.integers(0, 2, (M, n)).astype(np.float64)


def _deltas(n: int, wide: str, rng: np.random.Generator) -> np.ndarray:
    """Z - Y, rows (m, n): -1, 0 and 1, or one number of 12 bits in the first and the last example.

    Two alone, because the cost squares them.
    """
    if wide == "activations":
        return rng.integers(-1, 2, (M, n)).astype(np.float64)
    deltas = np.zeros((M, n))
    for example in (0, M - 1):
        deltas[example, rng.integers(n)] = WIDE + 1
    return deltas


def _logits(X: np.ndarray, named: dict[str, np.ndarray], depth: int) -> np.ndarray:
    """What the network gives for rows X, in float64, which is exact here."""
    A = X.T
    for l in range(1, depth + 1):
        Z = named[f"W{l}"] @ A + named[f"b{l}"]
        A = np.maximum(Z, 0.0)
    return Z.T
