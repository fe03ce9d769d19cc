"""What ``scripts/gpu_check --bench`` runs on a card, run here on the CPU in its place."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backprop_gpu.backends import get_backend
from backprop_gpu.backends.cpu.kernels import NativeKernels
from backprop_gpu.backends.cpu.library import unavailable_reason
from benchmarks.device_checks import graph_against_eager, kernel_sets, leaks, repeats
from benchmarks.device_roofline import UPDATE_VALUES, DeviceRoofline, best, roofline
from benchmarks.equal_work import bound, difference
from benchmarks.network_worker import losses_of
from benchmarks.on_device import lines, measure
from benchmarks.peers import PEERS, device_peers
from benchmarks.peers.naive import Naive
from benchmarks.peers.ours import Ours
from benchmarks.peers.plain_numpy import PlainNumpy
from benchmarks.peers.spec import PeerSpec
from benchmarks.roofline import reference_losses
from benchmarks.workloads import DEVICE_WORKLOADS, Workload, make_task

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "gpu_check"
CLASSES = Workload("a", (20, 16, 5), 32, 256, checked=8)
VALUES = Workload("c", (4, 16, 16, 1), 64, 512, loss="squared_error", checked=8)
RATES = {"fp32": 1e10, "tf32": 1e10, "bf16": 1e10, "bandwidth": 1e10}


def load() -> Any:
    """The script as a module."""
    loader = importlib.machinery.SourceFileLoader("gpu_check_here", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("gpu_check_here", loader))  # type: ignore[arg-type]
    loader.exec_module(module)
    return module


@pytest.mark.parametrize("work", [CLASSES, VALUES, *(w.alike for w in DEVICE_WORKLOADS if w.alike)])
@pytest.mark.parametrize("peer", [Naive("cpu"), Ours("reference"), Ours("native", eager=True), PlainNumpy()])
def test_equal_work(peer: Any, work: Workload) -> None:
    want, perturbed = reference_losses(work, "paper")
    assert difference(losses_of(peer.prepare, peer.checked_epoch, work), want, bound(want, perturbed)) is None


def test_the_reference_s_squares_have_their_derivative() -> None:
    task, peer = make_task(replace(VALUES, rows=8), rows=8), PlainNumpy("float64")
    peer.prepare(task)
    layers = peer._layers(8)
    layers[0][0][...] = peer.X
    Z, d = peer._forward(layers).copy(), np.empty((8, 1))
    loss = peer._squares(Z, peer.Y, d)
    assert loss == pytest.approx(np.mean(0.5 * (Z - task.y) ** 2))
    for i in range(8):
        moved = Z.copy()
        moved[i] += 1e-6
        assert (peer._squares(moved, peer.Y, np.empty((8, 1))) - loss) / 1e-6 == pytest.approx(d[i, 0], abs=1e-6)


def test_values_are_predicted_as_they_are() -> None:
    task = make_task(VALUES)
    found = []
    for peer in (PlainNumpy(), Ours("native")):
        peer.prepare(task)
        found.append(peer.predict(task.X[:100]))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_the_workloads_of_the_page() -> None:
    a, b, c, d = DEVICE_WORKLOADS
    assert [w.name for w in (a, b, c, d)] == ["a", "b", "c", "d"]
    flops = [0.41e9, 6.3e12, 27e6, 23e9]
    assert [w.step_flops for w in (a, b, c, d)] == pytest.approx(flops, rel=0.04)
    assert all(w.rows % w.batch_size == 0 for w in DEVICE_WORKLOADS)  # JAX scans full batches
    assert {w.sizes[1:-1] == w.alike.sizes[1:-1] or w.name == "b" for w in (b, d) if w.alike} == {True}


def test_who_is_measured() -> None:
    specs = device_peers("cuda")
    assert len({s.name for s in specs}) == len(specs)
    assert specs[0].name == "ours-cuda"
    assert {s.precision for s in specs if not s.workloads} == {"fp32"}
    assert all(s.workloads == ("b",) for s in specs if s.precision != "fp32")
    assert {s.home for s in specs if "jax" in s.packages} == {".jax_nets:JaxScan", ".jax_nets:JaxOnDevice"}
    assert all(s.variables for s in specs if "jax" in s.packages)  # it would take most of the card's memory
    assert not any(s.variables for s in PEERS)


def test_limits_and_floors() -> None:
    machine = DeviceRoofline("cpu")
    machine.size = 64
    assert machine.product_rate("float32") > 0.0
    assert machine.bandwidth() > 0.0
    assert roofline(CLASSES, 1e9, 1e6) == pytest.approx(CLASSES.step_flops / 1e9 + 28 * CLASSES.parameters / 1e6)
    assert UPDATE_VALUES * 4 == 28
    slept = best(get_backend("cpu"), lambda: time.sleep(0.002), min_time=0.004)
    assert 0.002 <= slept < 0.1


def test_rows_of_the_benchmark() -> None:
    specs = [s for s in device_peers("cpu") if s.name in ("ours-reference", "naive", "ours-cuda")]
    absent = PeerSpec("absent", ".naive:Naive", packages={"no_such_package": "no-such-package"})
    wrong = PeerSpec("wrong", "support.benchmark_peers:WrongRate")
    rows = list(measure((CLASSES, VALUES), [*specs, absent, wrong], RATES, repeats=2, min_time=0.0))
    found = {(row["workload"], row["peer"]): row for row in rows}
    assert len(found) == len(rows) == 10
    for name in ("a", "c"):
        for peer in ("ours-reference", "naive"):
            row = found[name, peer]
            assert (row["note"], len(row["repeats"])) == ("", 2)
            assert 0.0 < row["of_roofline"] == row["roofline"] / row["median"]
        assert found[name, "ours-cuda"]["note"].startswith("kernels 'cuda' do not run on numpy")
        assert found[name, "absent"]["note"] == "not installed: pip install no-such-package"
        assert found[name, "wrong"]["note"].startswith("not equal work: loss ")
    table = lines(rows)
    assert sum(line.startswith(("a ", "c ")) for line in table) == len(table) - 1
    assert any("x ours" in line for line in table)
    assert any(line.startswith("a  absent: not installed") for line in table)


def test_after_the_deadline_nobody_begins() -> None:
    specs = [s for s in device_peers("cpu") if s.name in ("ours-reference", "naive", "ours-reference-tf32")]
    rows = list(measure((CLASSES,), specs, RATES, deadline=-math.inf))
    assert [(r["peer"], r["note"]) for r in rows] == [
        ("ours-reference", "left out: the time was up"),
        ("naive", "left out: the time was up"),
    ]


def test_checks_of_a_device() -> None:
    kinds = kernel_sets("cpu")
    assert kinds == ["reference"] + ([] if unavailable_reason() else ["native"])
    for kind in kinds:
        found = graph_against_eager("cpu", kind, CLASSES)
        assert found["equal"]
        assert found["recorded"] == (kind != "reference")
        assert repeats("cpu", kind, CLASSES, steps=20) == {"steps": 24, "runs": 3, "equal": True, "finite": True}
    found = leaks("cpu", "native", replace(CLASSES, sizes=(20, 300, 300, 5)), fits=3)
    assert len(found["bytes after each fit"]) == 4
    assert found["grown"] < found["parameters"]


def test_a_recorded_step_that_is_another_step_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_too_few(self: Any, program: Any) -> Any:
        return lambda times, before=None: [program() for _ in range(times - 1)]

    monkeypatch.setattr(NativeKernels, "capture", one_too_few)
    assert graph_against_eager("cpu", "native", CLASSES, epochs=1)["equal"] is False


def test_memory_that_does_not_come_back_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from backprop_gpu.network.dense_net import DenseNet

    kept: list[Any] = []
    make = DenseNet.__init__

    def keeping(self: DenseNet, *given: Any, **settings: Any) -> None:
        make(self, *given, **settings)
        kept.append(self.params)

    monkeypatch.setattr(DenseNet, "__init__", keeping)
    found = leaks("cpu", "native", replace(CLASSES, sizes=(20, 300, 300, 5)), fits=2)
    assert found["grown"] >= found["parameters"]


def test_the_script_s_steps_on_the_cpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    script = load()
    monkeypatch.setattr(script, "check_workload", lambda: CLASSES)
    assert script.graphs("cpu").status == "passed"
    assert "reference (there is nothing to record)" in script.graphs("cpu").detail
    assert script.determinism("cpu", steps=10).status == "passed"
    monkeypatch.setattr(script, "check_workload", lambda: replace(CLASSES, sizes=(20, 200, 200, 5)))
    assert script.memory("cpu").status == "passed"
    names = ("ours-reference", "naive")
    few = [s for s in device_peers("cpu") if s.name in names]
    monkeypatch.setattr("benchmarks.peers.device_peers", lambda device: few)
    found = script.benchmark("cpu", works=(CLASSES,), repeats=1, min_time=0.0)
    assert found.status == "passed", found.detail
    assert {row["peer"] for row in found.data["rows"]} == set(names)
    assert set(found.data["limits"]) == {"fp32", "tf32", "bf16", "bandwidth"}
    assert len(found.data["table"]) == 3
    assert "a naive: " in capsys.readouterr().out
