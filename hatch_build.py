"""Build hook: the kernel library is compiled with the system's C++ compiler and put into the wheel.

Without a compiler, or where it fails, the wheel is pure and the reference kernels run; one line says so here, and
``backprop-gpu devices`` says it again. The hook needs nothing but the standard library and hatchling.
"""

import importlib.util
import platform
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = Path(__file__).resolve().parent


def load_build() -> Any:
    """``backprop_gpu/native/build.py`` by its path: the package itself needs NumPy, which a build environment lacks."""
    spec = importlib.util.spec_from_file_location("native_build", HERE / "backprop_gpu" / "native" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def wheel_tag(machine: str) -> str:
    """For any Python 3, this system and the processor family that was built for (never what Python was built for)."""
    if sys.platform == "darwin":
        release = ".".join(platform.mac_ver()[0].split(".")[:1]) or "11"
        return f"py3-none-macosx_{release}_0_{'arm64' if machine == 'aarch64' else machine}"
    if sys.platform == "win32":
        return f"py3-none-win_{ {'x86_64': 'amd64', 'aarch64': 'arm64'}[machine] }"
    return f"py3-none-linux_{machine}"


class NativeLibraryHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs before a wheel is put together."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile. ``version`` is "standard", or "editable", whose library stays in the checkout's ``build/native``."""
        if self.target_name != "wheel":
            return
        native = load_build()
        output = HERE / "build" / "native" / native.library_name()
        try:
            native.build(output)
        except native.BuildError as problem:
            self.app.display_warning(f"backprop_gpu: native kernels are left out, reference kernels run: {problem}")
            return
        if version != "editable":
            build_data["force_include"][str(output)] = f"backprop_gpu/backends/cpu/{output.name}"
            build_data["pure_python"] = False
            build_data["tag"] = wheel_tag(native.machine())
