"""The command, run for real with our own kernels and plain NumPy; and with peers that do other work."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from backprop_gpu.config_reading import load_config
from backprop_gpu.errors import ConfigError, DeviceError
from benchmarks import command, peers, scaling, startup
from benchmarks.measure import chosen
from benchmarks.peers import PEERS
from benchmarks.peers.spec import PeerSpec
from benchmarks.workloads import WORKLOADS, Workload

TINY = Workload("tiny", (30, 16, 2), 32, 100, checked=3, epochs=2)  # three full batches and a ragged one


def run(*arguments: str) -> int:
    return command.run(command.parser().parse_args(arguments))


def test_steps_of_ours_and_plain_numpy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "out.json"
    common = ("--workloads", "W2", "--peers", "numpy,ours", "--repeats", "2", "--min-time", "0")
    assert run("step", *common, "--json", str(file), "--markdown") == 0
    read = json.loads(file.read_text(encoding="utf-8"))
    assert [(row["workload"], row["peer"], row["base"]) for row in read["rows"]] == [
        ("W2", "ours", "ours"),
        ("W2", "numpy", "ours"),
    ]
    for row in read["rows"]:
        assert len(row["repeats"]) == 2
        assert 0.0 < row["q1"] <= row["median"] <= row["q3"]
        assert row["of_roofline"] == row["roofline"] / row["median"] > 0.0
    assert {"roofline", "ours", "numpy"} <= set(read["pools"])
    assert "| W2 | numpy |" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["epoch", "fit", "inference"])
def test_the_other_measurements(kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(WORKLOADS, kind, (TINY,))
    assert run(kind, "--peers", "ours,numpy", "--repeats", "1") == 0
    out = capsys.readouterr().out
    assert [line.split()[:2] for line in out.splitlines()[1:3]] == [["tiny", "ours"], ["tiny", "numpy"]]


def test_a_fit_to_a_target_says_what_it_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    work = replace(WORKLOADS["fit"][0], target=0.5, checked=3)
    monkeypatch.setitem(WORKLOADS, "fit", (work, replace(work, name="never", target=1.1, epochs=2)))
    assert run("fit", "--peers", "ours", "--repeats", "1", "--json", str(tmp_path / "out.json")) == 0
    reached, never = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["rows"]
    assert float(reached["note"].rpartition(" ")[2]) >= 0.5
    assert reached["of_roofline"] is None
    assert never["note"].startswith("failed: 2 epochs, test accuracy")


@pytest.mark.parametrize(
    ("kind", "fault"), [("step", "WrongRate"), ("step", "LeavesOutTheLast"), ("inference", "WrongBias")]
)
def test_unequal_work_fails_the_run(
    kind: str, fault: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(WORKLOADS, kind, (replace(TINY, checked=6),))
    monkeypatch.setattr(peers, "PEERS", (*PEERS[:1], PeerSpec("fake", f"support.benchmark_peers:{fault}")))
    assert run(kind, "--repeats", "1", "--min-time", "0", "--markdown") == 1
    fake, ours = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| tiny")]
    assert "| fake |  |  |  |  | not equal work: loss" in fake
    assert "| ours |" in ours
    assert "1.00" in ours


def test_peers_that_cannot_take_part_are_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(WORKLOADS, "step", (replace(TINY, activation="gelu"),))
    absent = PeerSpec("absent", ".plain_numpy:PlainNumpy", packages={"no_such_package": "no-such-package"})
    limited = PeerSpec("limited", ".plain_numpy:PlainNumpy", activations=("relu",))
    dies = PeerSpec("dies", "support.benchmark_peers:Breaks")
    monkeypatch.setattr(peers, "PEERS", (*PEERS[:1], absent, limited, dies))
    assert run("step", "--repeats", "1", "--min-time", "0", "--markdown") == 0
    out = capsys.readouterr().out
    assert "| absent |  |  |  |  | not installed: pip install no-such-package |" in out
    assert "| limited |  |  |  |  | has no gelu |" in out
    assert "| dies |  |  |  |  | failed: its process died |" in out
    assert "| ours | " in out


def test_unknown_names_are_one_line() -> None:
    with pytest.raises(ConfigError, match=r"no workload of step is called 'W9'.*W1, W2"):
        run("step", "--workloads", "W9")
    with pytest.raises(ConfigError, match=r"no peer is called 'tensorch' .did you mean 'torch'"):
        run("step", "--peers", "tensorch")
    with pytest.raises(ConfigError, match="products measures all it has; leave --workloads and --peers out"):
        run("products", "--workloads", "W1")
    with pytest.raises(ConfigError, match="--repeats must be at least 1"):
        run("step", "--repeats", "0")


def test_peers_by_measurement() -> None:
    assert "onnxruntime" in [spec.name for spec in chosen([], "inference")]
    assert {"onnxruntime", "jax-scan"} & {spec.name for spec in chosen([], "step")} == {"jax-scan"}
    assert [spec.name for spec in chosen(["numpy", "ours"], "fit")] == ["ours", "numpy"]


def test_every_peer_has_its_class() -> None:
    folder = Path(peers.__file__).parent
    for spec in (*peers.PEERS, *peers.device_peers("cpu")):
        module, _, name = spec.home.partition(":")
        assert f"class {name}(" in (folder / f"{module.removeprefix('.')}.py").read_text(encoding="utf-8"), spec.home


def test_growth_of_a_small_sweep() -> None:
    found = list(scaling.rows(1, 0.0, largest=32))
    assert {row["axis"] for row in found} == {"width", "depth", "batch", "rows"}
    for axis in ("width", "depth", "batch", "rows"):
        flops = [row["flops"] for row in found if row["axis"] == axis]
        assert flops == sorted(set(flops))
        assert [row["exponent"] is None for row in found if row["axis"] == axis] == [True] + [False] * (len(flops) - 1)


def test_exponent_of_the_last_decades() -> None:
    flops = [10.0**k for k in range(4, 10)]
    assert scaling.exponent(flops, [1e-9 * f for f in flops]) == pytest.approx(1.0)
    assert scaling.exponent(flops, [1e-9 * f**1.5 for f in flops]) == pytest.approx(1.5)
    flat_then_linear = [max(1e-3, 1e-10 * f) for f in flops]  # overhead up to 1e7 operations
    assert scaling.exponent(flops, flat_then_linear) == pytest.approx(1.0)


def test_startup_waits_for_a_file_or_for_the_end(tmp_path: Path) -> None:
    file = tmp_path / "line"
    code = f"import time, pathlib; pathlib.Path({str(file)!r}).write_text('x'); time.sleep(0.5)"
    early = startup._process("-c", code, until=file)
    late = startup._process("-c", code)
    assert 0.0 < early < late
    with pytest.raises(DeviceError, match=r"python -c .* failed: .*ZeroDivisionError"):
        startup._process("-c", "1 / 0")


def test_startup_s_processes_have_the_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(startup, "_process", lambda *words, environment, **more: seen.append(environment) or 0.0)
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    for variables in ({}, {"OPENBLAS_CORETYPE": None}):
        startup.jobs(tmp_path, variables)["import backprop_gpu"]()
        assert seen[-1].get("OPENBLAS_CORETYPE") == (None if variables else "Haswell")


def test_startup_s_configuration_is_valid(tmp_path: Path) -> None:
    (tmp_path / "bench.yaml").write_text(startup._CONFIG, encoding="utf-8")
    config = load_config(str(tmp_path / "bench.yaml"))
    assert (config.optimizer.name, config.training.epochs, config.training.batch_size) == ("adam", 20, 32)
