"""A case file judges the same without the device that made it, and tells when it is damaged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from parity.faults import DROPOUT, EARLY, FAULTS, LATE, MICRO, FaultyBackend, seeded
from safetensors.numpy import load_file, save_file

from backprop_gpu.errors import CheckpointError
from backprop_gpu.parity.case import FORMAT
from backprop_gpu.parity.checking import check, replay
from backprop_gpu.parity.report import Report

PLANS = {"early": EARLY, "late": LATE, "micro": MICRO, "dropout": DROPOUT}


def metadata(path: Path) -> dict[str, str]:
    size = int.from_bytes(path.read_bytes()[:8], "little")
    header: dict[str, dict[str, str]] = json.loads(path.read_bytes()[8 : 8 + size])
    return header["__metadata__"]


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("kernels", ["reference", "native", "auto"])
def test_a_case_gives_the_findings_it_was_made_from(tmp_path: Path, name: str, kernels: str) -> None:
    plan = PLANS[name]
    X, y = plan.rows()
    w = np.arange(len(y)) % 3 + 0.5
    how = {"micro_batch": plan.micro_batch, "schedule": "cosine", "total_steps": 5, "clip_norm": 0.01, **plan.settings}
    report = check(plan.net(), X, y, sample_weight=w, device="numpy", kernels=kernels, steps=2, **how)
    report.save(tmp_path / "case.safetensors")
    again = replay(tmp_path / "case.safetensors")
    assert again.ok
    about_data = {"X", "Y", "weights", "theta before", "predicted AL"}
    assert again.findings == [f for f in report.steps[-1] if f.tensor not in about_data]
    assert again.about == report.about


@pytest.mark.parametrize("name", ["bias_missing", "product_in_tf32", "generator_not_restored", "l2_on_biases"])
def test_a_failing_case_replays_with_its_cause(tmp_path: Path, name: str) -> None:
    fault = FAULTS[name]
    with seeded(fault) as device:
        X, y = fault.plan.rows()
        report = check(fault.plan.net(device), X, y, steps=3, **fault.plan.settings)
    report.save(tmp_path / "case")
    again = replay(tmp_path / "case")  # the fault is gone: only the file knows of it
    assert report.first is not None
    assert again.first == report.first
    assert again.first.cause
    assert again.comparisons.keys() >= {report.first.tensor}
    assert [f.tensor for f in again.apart] == [f.tensor for f in report.apart]


@pytest.fixture
def case(tmp_path: Path) -> Path:
    path = tmp_path / "case.safetensors"
    check(EARLY.net(FaultyBackend(FAULTS["bias_twice"])), *EARLY.rows()).save(path)
    return path


def test_a_case_is_one_safetensors_file_with_a_description(case: Path) -> None:
    found = metadata(case)
    assert found["format"] == FORMAT
    content = json.loads(found["description"])
    assert content["recipe"]["sizes"] == [5, 6, 6, 4, 3]
    assert content["about"]["device"] == "numpy"
    assert "bias is added twice" in content["summary"]
    tensors = load_file(case)
    assert tensors["X"].shape == (5, 20)
    assert {"theta", "theta_after", "grad", "slot0", "slot0_after", "call0.wrote.A", "call0.revealed.Z"} <= set(tensors)


def test_a_changed_number_is_noticed(case: Path) -> None:
    tensors, about = load_file(case), metadata(case)
    tensors["theta"][3] += 1
    save_file(tensors, case, about)
    with pytest.raises(CheckpointError, match="damaged"):
        replay(case)


def test_a_changed_description_is_noticed(case: Path) -> None:
    about = metadata(case)
    about["description"] = about["description"].replace('"claim": "fp32"', '"claim": "bf16"')
    save_file(load_file(case), case, about)
    with pytest.raises(CheckpointError, match="damaged"):
        replay(case)


def test_files_that_are_no_cases_are_refused(case: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no parity case file at"):
        replay(tmp_path / "nothing")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        replay(tmp_path / "text")
    save_file(load_file(case), tmp_path / "other", {"format": "backprop_gpu/1"})
    with pytest.raises(CheckpointError, match="not a backprop_gpu parity case"):
        replay(tmp_path / "other")


def test_a_case_of_another_version_is_refused_in_one_line(case: Path) -> None:
    from backprop_gpu.tensor_file import digest

    tensors, about = load_file(case), metadata(case)
    for damage in ("theta", "call0.wrote.A"):
        fewer = {name: x for name, x in tensors.items() if name != damage}
        save_file(fewer, case, about | {"sha256": digest(fewer, about["description"])})
        with pytest.raises(CheckpointError, match="another version") as caught:
            replay(case)
        assert "\n" not in str(caught.value)


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    report = check(EARLY.net(), *EARLY.rows())
    with pytest.raises(CheckpointError, match="cannot write"):
        report.save(tmp_path / "no" / "folder")
    bare: Report = replace(report, trace=None)
    with pytest.raises(CheckpointError, match="no recorded step"):
        bare.save(tmp_path / "case")
    assert list(tmp_path.iterdir()) == []
