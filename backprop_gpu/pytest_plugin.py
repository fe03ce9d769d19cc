"""The door of pytest: options, a marker and two fixtures. Every pytest run loads this file, so it loads nothing.

``parity_device`` is each device to compare in turn; ``assert_parity(fn_or_model, *arrays)`` fails where a device did
not compute what its precision allows. What they do is in ``parity/plugin.py``, which a run loads when it uses them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

MARKER = (
    "parity(claim=None, dtype=None, tolerance=None): what assert_parity checks against: fp32, tf32, bf16, fp16 or fp64"
)


def pytest_addoption(parser: Any) -> None:
    """``--parity-devices`` and ``--parity-require``."""
    group = parser.getgroup("parity", "comparison of devices (backprop-gpu)")
    group.addoption(
        "--parity-devices",
        metavar="NAMES",
        help="devices to compare: cupy:0,torch:cpu,array_api_strict,jax; default: numpy and what is installed",
    )
    group.addoption(
        "--parity-require",
        metavar="NAMES",
        help="fail where one of these devices or namespaces, such as cupy, was not compared by any test",
    )


def pytest_configure(config: Any) -> None:
    """Register the marker and the fixtures; a run that requires a device gets a check of the whole."""
    config.addinivalue_line("markers", MARKER)
    config.pluginmanager.register(_fixtures(), "parity-fixtures")
    if config.getoption("parity_require"):
        from .parity.plugin import Requirement

        config.pluginmanager.register(Requirement(config), "parity-requirement")


def pytest_generate_tests(metafunc: Any) -> None:
    """One test per device for tests that take ``parity_device``."""
    if "parity_device" in metafunc.fixturenames:
        from .parity.plugin import parametrize

        parametrize(metafunc)


def _fixtures() -> object:
    """The fixtures as a plugin of their own: made here, so that importing this file does not import pytest."""
    import pytest

    class Fixtures:
        @pytest.fixture
        def parity_device(self, request: Any) -> Any:
            """A :class:`~backprop_gpu.Backend`; the test is skipped, with the reason, where it cannot be had."""
            from .parity.plugin import device_of

            return device_of(request)

        @pytest.fixture
        def assert_parity(self, request: Any) -> Callable[..., Any]:
            """``assert_parity(fn, *arrays)`` or ``assert_parity(model, X, y)``; gives the report back."""
            from .parity.plugin import AssertParity

            return AssertParity(request)

    return Fixtures()
