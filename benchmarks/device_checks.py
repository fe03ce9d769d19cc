"""Checks on a card besides speed: recorded steps equal unrecorded ones, runs repeat bit for bit, memory is freed."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import numpy as np

from backprop_gpu.backends import get_backend
from backprop_gpu.devices import KERNEL_SETS
from backprop_gpu.errors import DeviceError, MissingDependencyError
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.training.trainer import Trainer

from .peers.ours import ADAM, Ours
from .workloads import Task, Workload, make_task


def kernel_sets(device: str) -> list[str]:
    """The kernel sets that a device has."""
    backend, found = get_backend(device), []
    for kind in KERNEL_SETS:
        try:
            backend.kernels(kind)
        except (DeviceError, MissingDependencyError):
            continue
        found.append(kind)
    return found


def _trained(task: Task, device: str, kernels: str, eager: bool, epochs: int) -> tuple[np.ndarray, np.ndarray, Ours]:
    """Parameters and losses after so many epochs, each in an order of its own."""
    peer, rng = Ours(kernels, device, eager), np.random.default_rng(5)
    peer.prepare(task)
    losses = [peer.epoch(rng.permutation(len(task.X))) for _ in range(epochs)]
    return peer.net.backend.to_host(peer.net.params.theta), np.concatenate(losses), peer


def graph_against_eager(device: str, kernels: str, work: Workload, epochs: int = 2) -> dict[str, Any]:
    """Train by the recorded step and by calling each operation: the same bits? ``recorded``: was a step recorded?"""
    task = make_task(work)
    theta, losses, peer = _trained(task, device, kernels, False, epochs)
    plain, plain_losses, _ = _trained(task, device, kernels, True, epochs)
    replay = peer.passes.replays[0][0]
    by_python = getattr(replay, "__qualname__", "").startswith("ReferenceKernels")
    unsupported_reason = "there is nothing to record" if by_python else getattr(replay, "unsupported_reason", None)
    return {
        "recorded": unsupported_reason is None,
        "unsupported_reason": unsupported_reason,
        "equal": bool(np.array_equal(theta, plain) and np.array_equal(losses, plain_losses)),
        "largest difference": float(np.max(np.abs(theta - plain), initial=0.0)),
        "finite": bool(np.isfinite(theta).all()),
    }


def repeats(device: str, kernels: str, work: Workload, steps: int = 1000, runs: int = 3) -> dict[str, Any]:
    """Train the same from the start, ``runs`` times over ``steps`` steps: the same bits?"""
    task, epochs = make_task(work), -(-steps // work.batches)
    found = [_trained(task, device, kernels, False, epochs)[:2] for _ in range(runs)]
    same = [np.array_equal(theta, found[0][0]) and np.array_equal(J, found[0][1]) for theta, J in found]
    finite = bool(np.isfinite(found[0][0]).all())
    return {"steps": epochs * work.batches, "runs": runs, "equal": all(same), "finite": finite}


def leaks(device: str, kernels: str, work: Workload, fits: int = 5) -> dict[str, Any]:
    """Bytes in use on the device after each of some fits, after everything they allocated was freed."""
    backend, task = get_backend(device), make_task(work)
    tracing = backend.used() is None and not tracemalloc.is_tracing()
    if tracing:
        tracemalloc.start()
    used = []
    try:
        for _ in range(fits + 1):
            net = DenseNet(work.sizes, loss=work.loss, device=backend, kernels=kernels)
            trainer = Trainer(net, optimizer=ADAM, epochs=1, batch_size=work.batch_size, progress=False)
            trainer.fit(task.X, task.y)
            del net, trainer
            gc.collect()
            there = backend.used()
            used.append(tracemalloc.get_traced_memory()[0] if there is None else there)
    finally:
        if tracing:
            tracemalloc.stop()
    # The first fit compiles and fills caches.
    return {"bytes after each fit": used, "grown": used[-1] - used[1], "parameters": 4 * work.parameters}
