"""Does a device compute a network's training step as exactly as its precision allows? Every tensor of it is checked."""

from __future__ import annotations

import math
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..backends import Backend, get_backend
from ..errors import ConfigError
from ..maths.random import host_generator
from ..network.dense_net import BLOCK_ROWS, DenseNet
from ..network.model_file import load_model
from ..network.step import TrainingStep
from ..network.targets import check_rows, check_targets, check_weights
from .case import of_another_version, read_case
from .claims import claim_of
from .class_weights import compare_class_weights, row_weights
from .comparator import Comparator
from .diagnosis.diagnose import diagnose
from .findings import Finding
from .oracle.products import LONG
from .prediction import compare_prediction
from .probe_sums import probe_sums
from .probes import LayerShape, probe, shapes_of
from .recorded_epochs import EpochPlan, compare_epochs, rows_and_batch
from .report import Drift, Report
from .step_replay import Replayed, compare_step
from .trace import StepTrace, TraceSpec, layer_calls, trace_step

STREAM = 3  # the part of the seed's randomness that this uses: the order of rows, biases and state that were all 0
PERIOD = 8191  # random numbers of an optimizer's state, over and over: a prime, so that no two layers look alike
SUMS = ("db", "dgamma", "value", "J", "norm")  # whose bounds hide a lower precision where they are long
CLEARED = 0.25  # of the difference that tf32 would leave


def check(
    model: Any,
    X: Any,
    y: Any,
    *,
    sample_weight: Any = None,
    device: str | Backend | None = None,
    kernels: str | None = None,
    dtype: str = "float32",
    claim: str | None = None,
    steps: int = 1,
    optimizer: Any = "adam",
    micro_batch: int | None = None,
    seed: int = 0,
    epochs: int = 0,
    batch_size: int | None = None,
    shuffle: bool = True,
    streamed: bool = False,
    **settings: Any,
) -> Report:
    """Check every tensor of a training step of this network, and of a prediction, on these rows, on this device.

    Parameters
    ----------
    model : DenseNet, an object whose ``net`` is one, a fitted estimator, or a run folder or model file
        Not changed: a copy on the device is trained. Biases that are all 0, what a new normalized layer starts with
        and the optimizer's state get random values there, since 0 would hide a missing term.
    X, y, sample_weight : (n_samples, n_0), as for :meth:`DenseNet.cost`
        One batch, in a random order that ``seed`` gives; of an estimator with class weights, these count as well, and
        its ``fit`` must give what the same weights as ``sample_weight`` give.
    device, kernels : default those of the model; on another device its fastest kernels, unless the model's are the
        reference, which every device has
    dtype : {"float32", "float64"}, default "float32"
    claim : {"fp32", "tf32", "bf16", "fp16", "fp64"}, optional
        The precision that the device is held to; left out, the one of ``dtype``.
    steps : int, default 1
        Each is checked from the device's own state; from two on, the drift from a float64 run is reported.
    optimizer, micro_batch, **settings
        As for :class:`~backprop_gpu.network.step.TrainingStep`.
    epochs, batch_size, shuffle, streamed
        With ``epochs``, the first two and the last of so many epochs are checked as well, as training runs them:
        batches of ``batch_size`` (default: two fifths of the rows, so that there are two and a ragged tail) in the
        order that ``seed`` gives, gathered and stepped by the recorded programs; ``streamed``: from rows on the host.
        The single step then takes the first ``batch_size`` rows of its order.

    Returns
    -------
    Report

    Raises
    ------
    ConfigError, ShapeError, DataError, DeviceError
        For settings, rows or a device that the network would not take.
    """
    net, (y, sample_weight, first) = network_of(model), _labels_and_weights(model, X, y, sample_weight)
    _at_least(1, steps=steps, batch_size=batch_size)
    _at_least(0, epochs=epochs)
    run = _Run(net, X, y, sample_weight, device, kernels, dtype, seed, optimizer, settings)
    if epochs:
        run.m = min(batch_size or rows_and_batch(run.n, run.n)[1], run.n)
    claim = claim_of(dtype, claim or (run.net.kernels.precision if dtype == "float32" else None))
    wide = _in_float64(run.step, optimizer, settings) if steps > 1 else None
    report = _report(run, claim, *_take(run, claim, steps, micro_batch, wide))
    report.steps[0] = first + report.steps[0]
    if report.ok:
        run.predict(claim, report)
    if epochs and report.ok:
        plan = EpochPlan(run.m, epochs, micro_batch, shuffle, seed, streamed)
        report.steps[-1] = report.steps[-1] + run.epochs(plan, claim)
    return report


def _labels_and_weights(model: Any, X: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, list[Finding]]:
    """Targets and weights as the network of a model takes them, and what was found about class weights."""
    if not hasattr(model, "network_targets"):
        return y, sample_weight, []
    found: list[Finding] = []
    if getattr(model, "class_weight", None) is not None:
        found = compare_class_weights(model, X, y, sample_weight)
        by_class = row_weights(model.class_weight, y)
        sample_weight = by_class if sample_weight is None else by_class * np.asarray(sample_weight)
    return model.network_targets(y), sample_weight, found  # y holds labels in its user's words


def _at_least(least: int, **numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is not None and number < least:
            raise ConfigError(f"{name} must be at least {least}, got {number}")


def replay(path: str | os.PathLike[str], *, custom: Any = ()) -> Report:
    """Check a case that :meth:`Report.save` wrote, on any machine, without the device.

    ``custom``: the activations of your own that it was recorded with, as for :meth:`DenseNet.load`.

    Raises
    ------
    CheckpointError
        If the file is missing, not a case, damaged, written by another version, or lacks an activation of yours.
    """
    trace, about = read_case(path, custom)
    with of_another_version(path):
        found = compare_step(trace, about["claim"])
        return Report([_explained(found, trace)], found.inputs, about, [], trace, found.comparisons)


def network_of(model: Any) -> DenseNet:
    """The network of a DenseNet, of an object whose ``net`` is one, of an estimator, or of a run folder or model file.

    Raises
    ------
    ConfigError, CheckpointError
        For anything else.
    """
    if isinstance(model, str | os.PathLike):
        path = Path(model)
        return load_model(DenseNet, path / "model.safetensors" if path.is_dir() else path, "numpy")[0]
    net = model.network() if hasattr(model, "network_targets") else getattr(model, "net", model)
    if not isinstance(net, DenseNet):
        kind = type(model).__name__
        raise ConfigError(f"parity takes a DenseNet, a model with a net, or a run folder, got {kind}")
    return net


def place_of(net: DenseNet, device: str | Backend | None, kernels: str | None) -> tuple[Backend, str]:
    """The device and the kernel set that are checked: the network's own where nothing else is asked for."""
    backend = net.backend if device is None else get_backend(device)
    own = backend.name == net.backend.name or net.kernels_kind == "reference"
    return backend, kernels or (net.kernels_kind if own else "auto")


def _take(
    run: _Run, claim: str, steps: int, micro_batch: int | None, wide: TrainingStep | None
) -> tuple[list[Replayed], StepTrace, list[Drift]]:
    """Steps up to the first wrong one: what was found of each, the last one's trace, and how far each has drifted."""
    checked: list[Replayed] = []
    drift: list[Drift] = []
    trace: StepTrace | None = None
    for t in range(steps):
        checks, before = Comparator() if t else run.start, trace
        trace = trace_step(run.step, *run.batch(t, checks), micro_batch=micro_batch)
        if before is not None:
            checks.same("step", "theta before", trace.theta, before.theta_after)
            trace.previous, before.previous = before, None
        checked.append(_joined(checks, compare_step(trace, claim)))
        if wide is not None:
            drift.append(_drift(trace, wide))
        if any(f.status == "wrong" for f in checked[-1].findings):
            break
    assert trace is not None
    return checked, trace, drift


class _Run:
    """A copy of the network on the device, and the rows there."""

    def __init__(
        self,
        net: DenseNet,
        X: Any,
        y: Any,
        sample_weight: Any,
        device: str | Backend | None,
        kernels: str | None,
        dtype: str,
        seed: int,
        optimizer: Any,
        settings: dict[str, Any],
    ) -> None:
        X = check_rows(X, net.sizes[0])
        Y = check_targets(y, net.loss, net.sizes[-1], X.shape[0])
        w = None if sample_weight is None else check_weights(sample_weight, X.shape[0])
        self.rng, self.n = host_generator(seed, STREAM), X.shape[0]
        self.m = self.n
        backend, kind = place_of(net, device, kernels)
        self.net = _copy(net, dtype, backend, kind, self.rng)
        self.step = TrainingStep(self.net, optimizer, **settings)
        self.optimizer, self.settings, self.start = optimizer, settings, Comparator()
        # As it is stored on the device: what float32 does to the rows is not the device's fault.
        labels = net.loss.labels == "classes" and Y.dtype == np.int64
        self.rows = [X.astype(dtype), Y if labels else Y.astype(dtype), None if w is None else w.astype(dtype)]
        within = self.net.params.flat({name: np.ones(shape) for name, _, _, shape in self.net.params.spans})
        with backend.activate():
            scale = 10.0 ** self.rng.uniform(-10.0, -1.5, PERIOD)
            for k, (name, buffer) in enumerate(zip(self.step.optimizer.state, self.step.optimizer_state, strict=True)):
                host = backend.to_host(buffer)
                if host.any():  # every optimizer's state starts at 0
                    self.start.same("step", f"state {k} at first", host, np.zeros_like(host))
                state = np.resize(self._state(name, scale), buffer.shape)
                buffer[...] = backend.asarray(state * within, dtype)  # what pads the tensors stays 0
            self.sources = [None if x is None else backend.asarray(x, str(x.dtype)) for x in self.rows]

    def _state(self, name: str, scale: np.ndarray) -> np.ndarray:
        """Random state of an optimizer whose gradients had been of this scale: from far below epsilon to far above.

        With one scale alone, an epsilon in the wrong place would be lost in the rounding of theta.
        """
        if name == "average":
            return self.rng.uniform(0.0, 1e-3, PERIOD)
        second = name in ("s", "v_max") or (name == "v" and "m" in self.step.optimizer.state)
        return scale**2 if second else scale * self.rng.uniform(0.1, 1.0, PERIOD)

    def predict(self, claim: str, report: Report) -> None:
        """Add what is wrong with a prediction to a report; the layers of a step are there already."""
        with np.errstate(all="ignore"):  # a step may have been far too long
            found = compare_prediction(self.step, self.rows[0][: 2 * BLOCK_ROWS], claim)
        reported = [f for f in found.findings if f.status != "ok" or f.tensor == "predicted AL"]
        report.steps[-1] = report.steps[-1] + reported
        report.inputs |= found.inputs
        report.comparisons |= found.comparisons

    def epochs(self, plan: EpochPlan, claim: str) -> list[Finding]:
        """What is wrong with epochs over the rows, from new networks and an optimizer that has taken no step."""
        pair = []
        for _ in range(2):
            net = _copy(self.net, self.net.dtype, self.net.backend, self.net.kernels_kind, self.rng)
            pair.append(TrainingStep(net, self.optimizer, **self.settings))
        with np.errstate(all="ignore"):
            return compare_epochs(pair[0], pair[1], self.rows, plan, claim)

    def batch(self, t: int, comparator: Comparator) -> list[Any]:
        """``m`` rows in a fresh order, gathered on the device as in training; columns, checked bit for bit."""
        backend, order = self.net.backend, self.rng.permutation(self.n)
        columns: list[Any] = []
        with backend.activate():
            counters = backend.zeros((2,), "int64")
            place = backend.asarray(order, "int64")
            for name, rows, source in zip(("X", "Y", "weights"), self.rows, self.sources, strict=True):
                if rows is None:
                    columns.append(None)
                    continue
                out = backend.zeros((self.m, rows.shape[1]), str(rows.dtype))
                self.net.kernels.gather(source, place, counters, self.m, out=out)
                comparator.same("upload" if t == 0 else "gather", name, backend.to_host(out), rows[order[: self.m]])
                columns.append(out.T)
        return columns


def _copy(net: DenseNet, dtype: str, device: Backend | str, kernels: str, rng: np.random.Generator) -> DenseNet:
    """The same network and parameters on a device; what is all 0 or all 1 since it is new becomes random numbers."""
    copy = DenseNet(**(net.settings() | {"dtype": dtype, "initializer": "zeros"}), device=device, kernels=kernels)
    named = net.parameters()
    for name, value in named.items():
        if not name.startswith("W") and (np.all(value == 0.0) or np.all(value == 1.0)):
            named[name] = value + rng.uniform(-0.1, 0.1, value.shape)
    copy.set_parameters(named)
    return copy


def _in_float64(step: TrainingStep, optimizer: Any, settings: dict[str, Any]) -> TrainingStep:
    """The same step, from the same state, on NumPy in float64."""
    net = step.net
    wide = DenseNet(
        **(net.settings() | {"dtype": "float64", "initializer": "zeros"}), device="numpy", kernels="reference"
    )
    wide.set_parameters(net.parameters())
    copy = TrainingStep(wide, optimizer, **settings)
    for buffer, source in zip(copy.optimizer_state, step.optimizer_state, strict=True):
        # Each dtype pads its tensors to another length.
        buffer[...] = wide.params.flat(net.params.named(net.backend.to_host(source)))
    return copy


def _drift(trace: StepTrace, wide: TrainingStep) -> Drift:
    """Take the same step in float64, and see how far apart parameters and ReLUs are."""
    X, Y, w = trace.X, trace.Y, trace.weights
    Y = Y if Y.dtype == np.int64 else Y.astype(np.float64)
    w = None if w is None else w.astype(np.float64)
    other = trace_step(wide, X.astype(np.float64), Y, w, micro_batch=trace.spec.micro_batch)
    ours, theirs = (_named(t.spec, t.theta_after) for t in (trace, other))
    theta = max(float(np.max(np.abs(ours[name] - theirs[name]))) for name in ours)
    flips = units = 0
    names = [*(name for name, _ in trace.spec.activations), "identity"]
    here, there = (layer_calls(t.calls) for t in (trace, other))
    for n, (a, b) in enumerate(zip(here, there, strict=False)):
        if names[n % len(names)] in ("relu", "leaky_relu"):
            flips += int(np.count_nonzero((a.wrote["A"] > 0) != (b.wrote["A"] > 0)))
            units += a.wrote["A"].size
    return Drift(trace.t + 1, theta, flips, units)


def _named(spec: TraceSpec, vector: np.ndarray) -> dict[str, np.ndarray]:
    return {name: vector[at : at + math.prod(shape)].astype(np.float64) for name, (at, shape) in spec.layout.items()}


def _joined(first: Comparator, then: Replayed) -> Replayed:
    """The findings about a step's data before those about the step."""
    findings = [*first.findings.values(), *then.findings]
    return Replayed(findings, first.inputs | then.inputs, first.comparisons | then.comparisons, then.tf32)


def _suspects(net: DenseNet, m: int, checked: Replayed) -> list[LayerShape]:
    """Layers with sums so long that the bound may hide a lower precision, unless the rms is far below tf32's."""
    found = []
    for f in checked.findings:
        product = f.operation in ("dense", "dense_vjp_input", "dense_vjp_params") and not f.tensor.startswith("db")
        if product and f.k >= LONG and checked.tf32.get(f.tensor, math.inf) > CLEARED:
            l = int(re.sub(r"\D", "", f.tensor)) + (f.operation == "dense_vjp_input")
            found.append(LayerShape(net.widths[l], net.widths[l - 1], m))
    return list(dict.fromkeys(found))


def _long_sums(checked: Replayed) -> bool:
    """Whether all is within its bounds, and that of a sum is so wide that it may hide a lower precision."""
    found = checked.findings
    return all(f.status != "wrong" for f in found) and any(f.k >= LONG and f.tensor.startswith(SUMS) for f in found)


def _explained(checked: Replayed, trace: StepTrace) -> list[Finding]:
    """The findings of a step with their likely causes."""
    return [replace(f, cause=diagnose(f, checked.comparisons.get(f.tensor), trace)) for f in checked.findings]


def _report(run: _Run, claim: str, checked: list[Replayed], trace: StepTrace, drift: list[Drift]) -> Report:
    steps = [r.findings for r in checked]
    steps[-1] = _explained(checked[-1], trace)
    if claim == "fp32":
        shapes = _suspects(run.net, run.m, checked[-1])
        if shapes:
            steps[-1] = steps[-1] + probe(run.net.backend, run.net.kernels, shapes, run.net.dtype)
        elif _long_sums(checked[-1]):
            of = trace.spec.micro_batch or run.m, run.net.dtype, run.rng
            sums = probe_sums(run.net.backend, run.net.kernels, shapes_of(run.net, min(of[0], run.m)), *of[1:])
            steps[-1] = steps[-1] + [f for f in sums if f.status != "ok"]
    inputs = {tensor: names for r in checked for tensor, names in r.inputs.items()}
    about = {
        "device": run.net.backend.name,
        "kernels": trace.spec.kernels,
        "dtype": run.net.dtype,
        "claim": claim,
        "sizes": list(run.net.sizes),
        "examples": run.m,
        "steps": len(checked),
    }
    return Report(steps, inputs, about, drift, trace, checked[-1].comparisons)
