"""backprop-gpu parity: exit codes, what it prints, what it writes, and `train --verify`."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from support.command import SHORT, Command

from backprop_gpu import build
from backprop_gpu.backends.reference import ReferenceKernels
from backprop_gpu.build import prepare
from backprop_gpu.config_reading import load_config
from backprop_gpu.errors import ParityError
from backprop_gpu.parity.case import read_case

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path)


def test_a_healthy_device_passes(command: Command) -> None:
    out = command.ok("parity", "run", "moons", "--steps", "2", "--set", "kernels=native")
    assert "parity ok, worst ratio" in out
    assert "step 2: drift" in out


def test_json_says_everything(command: Command) -> None:
    found = json.loads(command.ok("parity", "run", "digits", "--rows", "16", "--json"))
    assert found["ok"] is True
    assert found["first"] is None
    tensors = [f["tensor"] for f in found["findings"]]
    assert tensors.index("A1") < tensors.index("dW1") < tensors.index("theta")
    assert all(f["ratio"] <= 1.0 for f in found["findings"])


def test_a_run_folder_is_judged_with_its_own_weights(command: Command) -> None:
    command.ok("train", *SHORT, "--run-dir", "run")
    assert "parity ok" in command.ok("parity", "run", "run")


@pytest.mark.parametrize("verb", ["probe", "exact"])
def test_probes_and_exact_steps_pass(command: Command, verb: str) -> None:
    assert "parity ok" in command.ok("parity", verb, "moons")


@pytest.mark.parametrize("verb", ["run", "probe", "exact"])
@pytest.mark.parametrize(("kernels", "judged"), [("reference", "ReferenceKernels"), ("native", "NativeKernels")])
def test_the_kernels_that_were_chosen_are_judged(command: Command, verb: str, kernels: str, judged: str) -> None:
    command.ok("train", *SHORT, "--set", f"kernels={kernels}", "--run-dir", "run")
    for model in (["moons", "--set", f"kernels={kernels}"], ["run"]):
        found = json.loads(command.ok("parity", verb, *model, "--json"))
        assert found["about"]["kernels"] == judged


def test_both_devices_are_judged_with_the_kernels_that_were_chosen(command: Command) -> None:
    for kernels, judged in (("reference", ["ReferenceKernels"] * 2), ("native", ["NativeKernels", "ReferenceKernels"])):
        devices = ["--devices", "numpy,array_api_strict", "--set", f"kernels={kernels}"]
        found = json.loads(command.ok("parity", "diff", "moons", *devices, "--json"))
        assert [r["about"]["kernels"] for r in found["reports"]] == judged


def test_the_configured_precision_is_judged(command: Command) -> None:
    for verb in ("run", "probe", "exact"):
        found = json.loads(command.ok("parity", verb, "moons", "--set", "dtype=float64", "--json"))
        assert found["about"]["dtype"] == "float64"


SETTINGS = ["training.batch_size=48", "training.micro_batch=7", "schedule.name=cosine", "training.epochs=3"]


def test_the_step_that_is_judged_is_the_configured_one(command: Command) -> None:
    """Batch, micro-batch and schedule, with the number of steps that it needs."""
    options = [word for setting in SETTINGS for word in ("--set", setting)]
    command.ok("parity", "run", "moons", *options, "--save", "step.case")
    config = load_config("moons", SETTINGS, device="cpu")
    recipe = read_case(command.folder / "step.case")[0].spec
    assert (recipe.micro_batch, recipe.schedule) == (7, "cosine")
    n = prepare(config, progress=False).train.n_samples
    assert recipe.total_steps == 3 * math.ceil(n / 48)
    assert read_case(command.folder / "step.case")[0].X.shape[1] == 48


def test_what_is_verified_is_the_configured_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault that micro-batches alone have, and one that a schedule alone has."""
    monkeypatch.chdir(tmp_path)

    class Overwrites(ReferenceKernels):
        def dense_vjp_params(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            super().dense_vjp_params(*args, **kwargs | {"accumulate": False})

    faults = (Overwrites, SETTINGS[:2], "dW"), (ReferenceKernels, SETTINGS[2:], "step numbers")
    for kernels, settings, wrong in faults:
        config = load_config("moons", ["verify=true", *settings], device="numpy")
        experiment = prepare(config, progress=False)
        backend = experiment.model.net.backend
        backend.kernels = lambda kind="auto", k=kernels, b=backend: k(b)  # type: ignore[misc]
        if kernels is ReferenceKernels:
            monkeypatch.setattr(type(experiment.trainer.step.schedule), "factor", lambda self, t, steps: 0.5)
        with pytest.raises(ParityError, match=f"parity wrong at {wrong}"):
            build.run(experiment, "run")


def test_two_devices_and_who_is_wrong(command: Command) -> None:
    out = command.ok("parity", "diff", "moons", "--devices", "numpy,array_api_strict:device1")
    assert "both are within their bounds" in out
    found = json.loads(command.ok("parity", "diff", "moons", "--devices", "numpy,array_api_strict", "--json"))
    assert found["ok"] is True
    assert len(found["reports"]) == 2


def test_a_case_and_a_picture_are_written_and_the_case_replays(command: Command, tmp_path: Path) -> None:
    command.ok("parity", "run", "moons", "--save", "step.case", "--plot", "ratios.png")
    assert (tmp_path / "ratios.png").read_bytes().startswith(PNG)
    assert "parity ok" in command.ok("parity", "replay", "step.case")


def test_a_case_of_a_wrong_device_says_so_elsewhere(command: Command, tmp_path: Path) -> None:
    """A fault seen here is judged the same from the file alone, with exit code 1."""
    from backprop_gpu.parity.checking import check

    class NoScale(ReferenceKernels):
        def dense_vjp_params(self, dZ, A_prev, *, scale, dW, accumulate):  # type: ignore[no-untyped-def]
            super().dense_vjp_params(dZ, A_prev, scale=scale, dW=dW, accumulate=accumulate)
            dW *= 2.0

    experiment = prepare(load_config("moons", device="numpy"), progress=False)
    backend = experiment.model.net.backend
    backend.kernels = lambda kind="auto": NoScale(backend)  # type: ignore[method-assign]
    table = experiment.train.take(np.arange(32))
    rows = experiment.model.preprocessor.transform(table), experiment.model.preprocessor.encode_target(table)
    report = check(experiment.model.net, *rows, device=backend)
    assert report.first is not None
    assert report.first.tensor.startswith("dW")
    report.save(tmp_path / "wrong.case")
    done = command("parity", "replay", "wrong.case")
    assert done.code == 1
    assert "parity wrong at dW" in done.out


def test_training_verified_before_and_after(command: Command, tmp_path: Path) -> None:
    out = command.ok("train", *SHORT, "--verify", "--run-dir", "run")
    assert out.count("parity ok, worst ratio") == 2
    lines = json.loads((tmp_path / "run" / "metrics.json").read_text())["parity"]
    assert [line.startswith("parity ok") for line in lines] == [True, True]


def test_a_device_that_fails_verification_trains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    class Half(ReferenceKernels):
        def output_delta(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            super().output_delta(*args, **kwargs)
            kwargs["dZ"][...] = kwargs["dZ"] * 0.5

    config = load_config("moons", ["verify=true"], device="numpy")
    experiment = prepare(config, progress=False)
    backend = experiment.model.net.backend
    backend.kernels = lambda kind="auto": Half(backend)  # type: ignore[method-assign]
    with pytest.raises(ParityError, match="parity wrong at dZ"):
        build.run(experiment, "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "moons", "--claim", "fp8"), "claim"),
        (("run", "moons", "--dtype", "float16"), "float"),
        (("run", "moons", "--steps", "0"), "steps must be at least 1"),
        (("run", "moons", "--rows", "0"), "--rows must be at least 1"),
        (("run", "nowhere"), "no configuration at nowhere"),
        (("run", "moons", "--device", "gpu"), "write 'cuda'"),
        (("diff", "moons", "--devices", "numpy"), "--devices takes two names"),
        (("diff", "moons", "--devices", "numpy,nope"), "nope"),
        (("replay", "missing.case"), "no parity case file at missing.case"),
    ],
)
def test_what_cannot_be_judged_is_one_line(command: Command, arguments: tuple[str, ...], words: str) -> None:
    done = command("parity", *arguments)
    assert done.code == 2
    assert words in done.err
    assert done.err.startswith("backprop-gpu: ")
    assert len(done.err.splitlines()) == 1
    assert command.files() == {}
