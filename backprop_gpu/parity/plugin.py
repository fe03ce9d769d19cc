"""What ``pytest_plugin`` does once a test asks for it: devices, comparison, and the check of what was required."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ..backends.base import Backend
from ..backends.cuda.probe import installed_wheels
from ..devices import parse
from ..errors import BackpropError, DeviceError, MissingDependencyError
from .checking import check
from .findings import Finding
from .functions import backend_of, check_step
from .report import Report

MOST_LINES = 20  # of findings in a test's report; the case file has them all
COMPARED = "parity_device"  # the name under which a test's report says what it compared


def device_names(config: Any) -> list[str]:
    """What ``--parity-devices`` names, else numpy and what is installed; what is required comes on top."""
    given = _names(config.getoption("parity_devices"))
    names = given or ["numpy", *_installed()]
    have = {name.partition(":")[0] for name in names}
    names += [name for name in _names(config.getoption("parity_require")) if name not in have | set(names)]
    return [_canonical(name) for name in names]


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _canonical(name: str) -> str:
    try:
        return name if name == "jax" else str(parse(name))
    except DeviceError as error:
        raise pytest.UsageError(f"--parity-devices, --parity-require: {error}") from None


def _installed() -> list[str]:
    """Devices whose packages are there; whether they work is for the fixture to find out."""
    needs = {
        "array_api_strict": ("array_api_strict",),
        "torch:cpu": ("torch", "array_api_compat"),
        "jax": ("jax",),
    }
    found = [name for name, modules in needs.items() if all(importlib.util.find_spec(m) for m in modules)]
    return found + (["cupy:0"] if installed_wheels() else [])


def _meant(required: str, device: str) -> bool:
    """Whether ``device`` is what ``--parity-require`` names: a namespace, or one device of it."""
    return device == required or device.partition(":")[0] == required or device == _canonical(required)


# -- fixtures ---------------------------------------------------------------------------------------------------------


def parametrize(metafunc: Any) -> None:
    """One test per device, unless the test says itself which."""
    for mark in metafunc.definition.iter_markers("parametrize"):
        names = mark.args[0] if mark.args else mark.kwargs.get("argnames", "")
        if "parity_device" in (re.split(r"[,\s]+", names) if isinstance(names, str) else names):
            return
    metafunc.parametrize("parity_device", device_names(metafunc.config), indirect=True)


def device_of(request: Any) -> Backend:
    """The device of this test; where it cannot be had the test is skipped, or fails if it is required."""
    try:
        return backend_of(request.param)
    except (DeviceError, MissingDependencyError) as error:
        if any(_meant(r, _canonical(request.param)) for r in _names(request.config.getoption("parity_require"))):
            pytest.fail(f"--parity-require: {error}", pytrace=False)
        pytest.skip(str(error))


class AssertParity:
    """See ``pytest_plugin``. A failure leaves a case file in the test's ``tmp_path`` and names it in the report."""

    def __init__(self, request: Any) -> None:
        self.request = request
        self.failures = 0

    def __call__(self, target: Any, *arrays: Any, devices: Sequence[Any] | None = None, **settings: Any) -> Report:
        """Compare, and give the report back.

        Parameters
        ----------
        target : callable, or DenseNet or a model with one
            A function fn(xp, *arrays) goes to ``check_step``, a model to ``check(model, X, y)``.
        *arrays : array_like
        devices : sequence of str or Backend, optional
            The test's ``parity_device`` where it takes one, else every device of ``--parity-devices`` that is there.
        **settings
            Of ``check_step`` or ``check``: ``claim``, ``dtype``, ``tolerance``, ...; they go before the marker's.

        Raises
        ------
        AssertionError
            Names the first operation that is wrong.
        """
        __tracebackhide__ = True
        settings = self._marked() | settings
        for device in self._devices(devices):
            report = self._report(target, arrays, device, settings)
            if not report.ok:
                self._attach(report)
                raise AssertionError(report.summary())
        return report

    def _marked(self) -> dict[str, Any]:
        marker = self.request.node.get_closest_marker("parity")
        if marker is None:
            return {}
        unknown = set(marker.kwargs) - {"claim", "dtype", "tolerance"}
        if unknown or marker.args:
            pytest.fail("mark it as @pytest.mark.parity(claim=..., dtype=..., tolerance=...), by name", pytrace=False)
        return dict(marker.kwargs)

    def _devices(self, given: Sequence[Any] | None) -> list[Backend]:
        if given is not None:
            return [backend_of(device) for device in given]
        if "parity_device" in self.request.fixturenames:
            return [self.request.getfixturevalue("parity_device")]
        found, reasons = [], []
        for name in device_names(self.request.config):
            try:
                found.append(backend_of(name))
            except (DeviceError, MissingDependencyError) as error:
                reasons.append(str(error))  # --parity-require is what insists
        if not found:
            pytest.skip("; ".join(reasons))
        return found

    def _report(self, target: Any, arrays: Sequence[Any], device: Backend, settings: dict[str, Any]) -> Report:
        if callable(target):
            report: Report = check_step(target, *arrays, devices=[device], **settings)
        else:
            report = check(target, *arrays, device=device, **settings)
        self.request.node.user_properties.append((COMPARED, device.name))
        return report

    def _attach(self, report: Report) -> None:
        """Write the case file and put its path, and what was found, into the test's report."""
        self.failures += 1
        path = Path(self.request.getfixturevalue("tmp_path")) / f"parity-case-{self.failures}.safetensors"
        try:
            report.save(path)
            lines = [f"case file: {path}"]
        except BackpropError as error:  # a full disk must not hide what was found
            lines = [f"there is no case file: {error}"]
        lines += [_line(f) for f in report.findings if f.status != "ok"][:MOST_LINES]
        self.request.node.add_report_section("call", "parity", "\n".join(lines))


def _line(f: Finding) -> str:
    cause = f"; {f.cause}" if f.cause else ""
    numbers = "" if f.worst is None else f" at {list(f.worst)}: {f.got:.9g} for {f.want:.9g}"
    return f"{f.status}: {f.operation}, {f.tensor}, {f.distance}{numbers}{cause}"


class Requirement:
    """Fails a run in which what ``--parity-require`` names was not compared. Reports come to it from every worker."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.required = _names(config.getoption("parity_require"))
        for name in self.required:
            _canonical(name)
        self.compared: set[str] = set()

    def missing(self) -> list[str]:
        """What was required and not compared."""
        return [r for r in self.required if not any(_meant(r, device) for device in self.compared)]

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Count what a test compared."""
        self.compared |= {value for name, value in report.user_properties if name == COMPARED}

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: Any, exitstatus: int) -> None:
        """The end of the run, on the controller alone."""
        worker = hasattr(self.config, "workerinput")
        checked = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
        if self.missing() and checked and not worker and not self.config.option.collectonly:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say what is missing."""
        if self.missing() and not self.config.option.collectonly:
            names = ", ".join(self.missing())
            terminalreporter.write_line(f"--parity-require: no test compared {names}", red=True)
