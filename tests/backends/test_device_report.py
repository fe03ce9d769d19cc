"""What ``backprop-gpu devices`` shows, whatever is missing."""

from __future__ import annotations

import sys

import pytest

from backprop_gpu.backends.cuda.probe import probe
from backprop_gpu.backends.device_report import device_report

TITLES = ["Devices", "Used", "Processor", "Versions", "Hints"]


def rows(sections):
    return {(section.title, row.name): row for section in sections for row in section.rows}


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv("BACKPROP_GPU_DEVICE", raising=False)


def test_a_whole_report():
    sections = device_report()
    assert [section.title for section in sections] == TITLES
    found = rows(sections)
    assert found["Devices", "numpy"].ok is True
    assert found["Used", "used"].ok is True
    assert found["Used", "because"].text
    assert found["Versions", "Python"].text == sys.version.split()[0]
    assert all(row.text and "\n" not in row.text for row in found.values())


def test_why_there_is_no_cuda():
    result = probe(0)
    if result.ok:
        pytest.skip("CUDA works here")
    found = rows(device_report())
    assert found["Devices", "cupy"].text == f"{result.reason}; {result.fix}"
    assert found["Devices", "cupy"].ok is False
    assert result.reason in found["Used", "because"].text
    assert found["Hints", "CUDA"].text == result.fix


def test_nothing_optional_is_installed(monkeypatch):
    for name in ("cupy", "torch", "array_api_strict", "array_api_compat", "array_api_compat.torch", "threadpoolctl"):
        monkeypatch.setitem(sys.modules, name, None)
    sections = device_report()
    found = rows(sections)
    assert [section.title for section in sections] == TITLES
    assert "pip install array-api-strict" in found["Devices", "array_api_strict"].text
    assert "pip install array-api-compat torch" in found["Devices", "torch"].text
    assert found["Used", "used"].text == "numpy"
    assert found["Hints", "BLAS"].text.startswith("pip install threadpoolctl")


def test_a_part_that_breaks_leaves_the_others(monkeypatch):
    from backprop_gpu.backends import device_report as module

    def breaks():
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(module, "blas", breaks)
    found = rows(device_report())
    assert found["Processor", "unknown"].text == "could not be found out (RuntimeError: two)"
    assert found["Devices", "numpy"].ok is True


@pytest.mark.parametrize(("name", "says"), [("gpu", "write 'cuda'"), ("cuda:99", "cannot be used")])
def test_a_device_that_cannot_be_used(monkeypatch, name, says):
    assert says in rows(device_report(name))["Used", "used"].text
    monkeypatch.setenv("BACKPROP_GPU_DEVICE", name)
    found = rows(device_report())
    assert found["Used", "asked for"].text == f"{name} (BACKPROP_GPU_DEVICE)"
    assert found["Used", "used"].ok is False
