"""The equal-work check: rounding passes, anything else that changes the work does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.benchmark_peers import LeavesOutTheLast, WrongBias, WrongRate

from benchmarks.equal_work import bound, difference
from benchmarks.network_worker import losses_of
from benchmarks.peers.ours import Ours
from benchmarks.peers.plain_numpy import PlainNumpy
from benchmarks.roofline import reference_losses, reference_probabilities
from benchmarks.workloads import WORKLOADS, make_task

W2 = WORKLOADS["step"][1]
SMALL = {name: replace(W2, name=name, activation=name) for name in ("relu", "tanh", "sigmoid", "gelu")}


def verdict(peer: PlainNumpy | Ours, activation: str, adam: str = "paper") -> str | None:
    want, perturbed = reference_losses(SMALL[activation], adam)
    return difference(losses_of(peer.prepare, peer.epoch, SMALL[activation]), want, bound(want, perturbed))


@pytest.mark.parametrize("activation", SMALL)
@pytest.mark.parametrize("kernels", ["native", "reference", "auto"])
def test_our_kernels_do_equal_work(kernels: str, activation: str) -> None:
    assert verdict(Ours(kernels), activation) is None


@pytest.mark.parametrize("activation", SMALL)
@pytest.mark.parametrize("adam", ["paper", "epsilon_hat"])
def test_plain_numpy_agrees_with_its_reference(adam: str, activation: str) -> None:
    assert verdict(PlainNumpy("float32", adam), activation, adam) is None


@pytest.mark.parametrize("activation", SMALL)
@pytest.mark.parametrize("fault", [WrongRate, LeavesOutTheLast])
def test_other_work_is_caught(fault: type[PlainNumpy], activation: str) -> None:
    found = verdict(fault(), activation)
    assert found is not None
    assert "of 32 is" in found


def test_the_bound_is_tight() -> None:
    """A hundredth of what a 1% wrong learning rate changes is already more than rounding explains."""
    want, perturbed = reference_losses(W2, "paper")
    wrong = losses_of((peer := WrongRate()).prepare, peer.epoch, W2)
    assert np.max(np.abs(wrong - want) / bound(want, perturbed)) > 100.0


def test_losses_fall() -> None:
    want, _ = reference_losses(W2, "paper")
    assert len(want) == 32
    assert want[-8:].mean() < 0.9 * want[:8].mean()


def test_predictions() -> None:
    work = replace(W2, batch_size=256)
    want, perturbed = reference_probabilities(work)
    allowed, task = bound(want, perturbed), make_task(work, rows=512)
    found = []
    for peer in (Ours("native"), PlainNumpy(), WrongBias()):
        peer.prepare(task)
        found.append(difference(peer.predict(task.X).reshape(-1), want, allowed))
    assert found[:2] == [None, None]
    assert found[2] is not None


def test_bound_grows_with_the_disturbance_and_never_shrinks() -> None:
    reference = np.array([2.0, 1.0, 0.5])
    allowed = bound(reference, [reference, reference + np.array([0.0, 1e-3, 0.0])])
    np.testing.assert_allclose(allowed, 8 * (np.array([0.0, 1e-3, 1e-3]) + 2.0**-24 * np.array([2.0, 1.0, 1.0])))


def test_lengths_and_nan_are_differences() -> None:
    reference, allowed = np.ones(3), np.full(3, 0.1)
    assert difference(np.ones(3), reference, allowed) is None
    assert difference(np.ones(2), reference, allowed) == "2 losses, expected 3"
    assert str(difference(np.array([1.0, np.nan, 1.0]), reference, allowed)).startswith("loss 2 of 3 is nan")
