"""``devices --plan``: what is said is what a training run does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backprop_gpu import build
from backprop_gpu.backends.cpu.library import unavailable_reason
from backprop_gpu.cli import main
from backprop_gpu.config_reading import load_config
from backprop_gpu.planning import plan


def planned(*settings: str, name: str = "digits", device: str = "cpu") -> Any:
    return plan(load_config(name, list(settings), device=device))


def rows(found: Any) -> dict[tuple[str, str], str]:
    return {(section.title, row.name): row.text for section in found.sections() for row in section.rows}


@pytest.mark.parametrize("settings", [[], ["training.epochs=20000"], ["kernels=reference", "training.micro_batch=5"]])
def test_the_plan_is_what_prepare_builds(settings: list[str]) -> None:
    found = planned(*settings)
    experiment = build.prepare(load_config("digits", settings, device="cpu"), progress=False)
    net = experiment.model.net
    assert found.design.sizes == net.sizes
    assert type(found.kernels) is type(net.kernels)
    assert found.memory.parameters == net.params.theta.nbytes
    state = sum(x.nbytes for x in experiment.trainer.step.optimizer_state)
    assert found.memory.optimizer == 2 * state + net.params.theta.nbytes  # with the copy that undoes a step
    assert found.spec.m == (experiment.trainer.micro_batch or experiment.trainer.batch_size)
    assert found.spec.activations == tuple(net.activations)


@pytest.mark.skipif(bool(unavailable_reason()), reason=unavailable_reason())
def test_what_is_said() -> None:
    slope = "{name: leaky_relu, slope: -0.1}"
    found = rows(planned(f"model.activation=[{slope}, relu]", "loss.delta=literal", "kernels=native"))
    assert found["Plan of digits", "network"] == "64 - 64 - 32 - 10, float32, 32 examples at a time"
    assert found["Plan of digits", "device"] == "numpy: the CPU was asked for"
    assert found["Plan of digits", "kernels"].startswith("NativeKernels (")
    assert found["Plan of digits", "BLAS threads"]
    assert found["Plan of digits", "data"] == "on the device"
    assert "with a negative parameter has no native kernel" in found["Operations", "dense of layer 1"]
    assert found["Plan of digits", "recorded"].startswith("yes: native programs with Python calls between them")
    assert found["Operations", "dense of layers 2-3"] == "native"
    assert found["Operations", "dense_vjp_params of layers 1-3"] == "native"
    assert found["Memory", "parameters"] == "26.6 kB"
    assert found["Memory", "available"]


@pytest.mark.skipif(bool(unavailable_reason()), reason=unavailable_reason())
def test_whether_the_epoch_is_recorded() -> None:
    assert planned("kernels=native").recorded == "yes: one native program"
    found = planned("kernels=native", "loss.delta=literal").recorded
    assert found.startswith(
        "yes: native programs with Python calls between them (output_delta of layer 3: delta: literal"
    )
    assert planned("kernels=native", "dtype=float64").recorded == "yes: one native program"
    streamed = planned("kernels=native", "training.data_on=host")
    assert streamed.recorded == "yes: one native program, a step at a time"
    assert rows(streamed)["Operations", "gather"].startswith("the host")
    assert streamed.memory.data == 0 < planned("kernels=native").memory.data


def test_nothing_of_the_network_is_allocated() -> None:
    found = planned("model.hidden=[1000000, 1000000]", "kernels=native")
    assert found.memory.parameters > 4 * 10**12
    (section,) = [s for s in found.sections() if s.title == "Memory"]
    assert section.rows[-1].ok is not True


def test_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    device = "array_api_strict:device1"
    assert main(["devices", "--plan", "moons", "--device", device, "--set", "training.batch_size=50", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["device"], found["examples"], found["kernels"]) == (device, 50, "ReferenceKernels")
    assert found["memory"]["total"] == sum(n for k, n in found["memory"].items() if k not in ("total", "available"))
    assert found["operations"][-1] == {"operation": "capture", "layer": None, "by": "Python", "why": ""}
    assert main(["devices", "--plan", "moons"]) == 0
    assert "Memory" in capsys.readouterr().out
    assert main(["devices", "--plan", "moon"]) == 2
    assert "did you mean 'moons'" in capsys.readouterr().err
