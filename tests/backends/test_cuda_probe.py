"""Why CUDA does not work here: each case told apart, on a stand-in module, a stand-in driver, and a real GPU."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from backprop_gpu.backends import get_backend
from backprop_gpu.backends.cuda.device import CudaBackend
from backprop_gpu.backends.cuda.probe import (
    check_cublas,
    check_nvrtc,
    driver_version,
    examine,
    installed_wheels,
    probe,
)
from backprop_gpu.backends.device_report import device_report
from backprop_gpu.errors import DeviceError

ROOT = Path(__file__).resolve().parents[2]


class CudaError(RuntimeError):
    """As cupy.cuda.runtime.CUDARuntimeError: carries the runtime's number."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


class OutOfMemory(MemoryError):
    """As cupy.cuda.memory.OutOfMemoryError."""


NO_DRIVER = CudaError(35, "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version")
OUT_OF_MEMORY = CudaError(2, "cudaErrorMemoryAllocation: out of memory")
NO_DEVICE = CudaError(100, "cudaErrorNoDevice: no CUDA-capable device is detected")


def raising(value):
    """A function that returns ``value``, or raises it if it is an exception."""

    def function(*_):
        if isinstance(value, Exception):
            raise value
        return value

    return function


class StandInDevice:
    """As cupy.cuda.Device: a context in which it is the current device."""

    stack = [0]  # noqa: RUF012
    facts: SimpleNamespace

    def __init__(self, index):
        self.id = index

    def __enter__(self):
        self.stack.append(self.id)

    def __exit__(self, *_):
        self.stack.pop()

    @property
    def compute_capability(self):
        return raising(self.facts.capability)()

    @property
    def cublas_handle(self):
        return raising(self.facts.cublas)()

    def synchronize(self):
        assert self.stack[-1] == self.id


def stand_in(**changes):
    """A module with the part of CuPy that is used, on NumPy, for a machine with one card; ``changes`` break it."""
    facts = SimpleNamespace(
        version="14.2.0", count=1, driver=13020, built=13020, capability="90", nvrtc=(13, 2), cublas=1, off_by=0.0,
        operation=None,
    )  # fmt: skip
    vars(facts).update(changes)
    cp = ModuleType("cupy")
    cp.__version__ = facts.version

    class ndarray(np.ndarray):
        device = property(lambda self: f"<CUDA Device {self.made_on}>")

        def get(self):
            return np.array(self)

    def made(x):
        x = x.view(ndarray)
        x.made_on = StandInDevice.stack[-1]
        return x

    def matmul(a, b):
        raising(facts.operation)()
        return np.matmul(a, b) + np.float32(facts.off_by)

    cp.ndarray, cp.exp, cp.sum, cp.matmul, cp.asnumpy = ndarray, np.exp, np.sum, matmul, np.array
    cp.asarray = lambda a, dtype=None, order=None, *, copy=None, blocking=False: made(np.array(a, dtype=dtype))
    cp.zeros = lambda shape, dtype=float, order="C": made(np.zeros(shape, dtype, order))
    cp.cuda = SimpleNamespace(
        Device=type("Device", (StandInDevice,), {"facts": facts}),
        nvrtc=SimpleNamespace(getVersion=raising(facts.nvrtc)),
        runtime=SimpleNamespace(
            getDeviceCount=raising(facts.count),
            driverGetVersion=lambda: facts.driver,
            runtimeGetVersion=lambda: facts.built,
            getDeviceProperties=lambda i: {"name": b"Some Card", "totalGlobalMem": 80 * 2**30},
        ),
    )
    return cp


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in ("CUDA_VISIBLE_DEVICES", "CUPY_TF32"):
        monkeypatch.delenv(name, raising=False)


def distributions(monkeypatch, folder, *names):
    """Install empty distributions of these names into ``folder``, and put it first on the path."""
    for name in names:
        info = folder / f"{name.replace('-', '_')}-14.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 14.0\n")
    # Not syspath_prepend, whose undoing would make the shortened path of `nothing_installed` permanent.
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])


# -- the checks, on a stand-in module ---------------------------------------------------------------------------------

FAULTS = {
    "no driver": ({"count": NO_DRIVER, "driver": 0}, "no NVIDIA driver was found", "install the NVIDIA driver"),
    "driver too old": (
        {"count": NO_DRIVER, "driver": 12080},
        "too old: it supports CUDA up to 12.8, CuPy needs CUDA 13",
        'update the NVIDIA driver, or pip uninstall -y {wheel}, then pip install -U "cupy-cuda12x[ctk]"',
    ),
    "driver far too old": ({"count": NO_DRIVER, "driver": 11040}, "CUDA up to 11.4", "update the NVIDIA driver"),
    "driver refused": (
        {"count": NO_DRIVER, "driver": 13020},
        "the NVIDIA driver does not start CUDA (CudaError: cudaErrorInsufficientDriver",
        "run nvidia-smi",
    ),
    "no device": ({"count": NO_DEVICE}, "no CUDA device is visible", "nvidia-smi lists a GPU"),
    "zero devices": ({"count": 0}, "no CUDA device is visible", "nvidia-smi lists a GPU"),
    "another start error": (
        {"count": CudaError(999, "cudaErrorUnknown: unknown error")},
        "does not start CUDA (CudaError: cudaErrorUnknown: unknown error)",
        "run nvidia-smi",
    ),
    "device is busy": ({"capability": CudaError(46, "busy")}, "cannot be opened (CudaError: busy)", "run nvidia-smi"),
    "card too old for CUDA 13": (
        {"capability": "70"},
        "Some Card (compute capability 7.0) is older than what CUDA 13 supports",
        'pip uninstall -y {wheel}, then pip install -U "cupy-cuda12x[ctk]"',
    ),
    "CuPy too old": (
        {"version": "13.6.0", "built": 12080},
        "CuPy 13.6.0 is too old; 14.0 or newer is needed",
        'then pip install -U "cupy-cuda12x[ctk]"',
    ),
    "no NVRTC": (
        {"nvrtc": RuntimeError("CuPy failed to load libnvrtc.so.13: OSError: no such file\nmore")},
        "NVRTC, CUDA's run-time compiler, cannot be loaded (RuntimeError: CuPy failed to load libnvrtc.so.13",
        'pip install -U "cupy-cuda13x[ctk]"',
    ),
    "no NVRTC, CUDA 12": (
        {"nvrtc": RuntimeError("no"), "built": 12090},
        "NVRTC",
        'pip install -U "cupy-cuda12x[ctk]"',
    ),
    "no cuBLAS": (
        {"cublas": ImportError("libcublas.so.13: cannot open shared object file")},
        "cuBLAS, CUDA's matrix product, cannot be used (ImportError: libcublas.so.13: cannot open",
        'pip install -U "cupy-cuda13x[ctk]"',
    ),
    "no memory to start CUDA": (
        {"count": OUT_OF_MEMORY},
        "the NVIDIA driver does not start CUDA (CudaError: cudaErrorMemoryAllocation: out of memory)",
        "free memory on the card",
    ),
    "no memory to open the device": (
        {"capability": OUT_OF_MEMORY},
        "cannot be opened (CudaError: cudaErrorMemoryAllocation",
        "free memory on the card",
    ),
    "no memory for a context": (
        {"cublas": OUT_OF_MEMORY},
        "cuBLAS, CUDA's matrix product, cannot be used (CudaError: cudaErrorMemoryAllocation: out of memory)",
        "free memory on the card",
    ),
    "no memory for a handle": (
        {"cublas": RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")},
        "cannot be used (RuntimeError: CUBLAS_STATUS_ALLOC_FAILED)",
        "free memory on the card",
    ),
    "no memory for a kernel": (
        {"operation": OUT_OF_MEMORY},
        "a first operation on CUDA device 0 fails (CudaError: cudaErrorMemoryAllocation",
        "free memory on the card",
    ),
    "no memory for cuBLAS": ({"cublas": OutOfMemory("out of memory")}, "cuBLAS", "free memory on the card"),
    "no memory to compute": ({"operation": OutOfMemory("12 bytes")}, "a first operation", "free memory on the card"),
    "an operation fails": (
        {"operation": RuntimeError("nvrtc: error: invalid value for --gpu-architecture")},
        "a first operation on CUDA device 0 fails (RuntimeError: nvrtc: error: invalid value",
        "cupy.show_config()",
    ),
    "wrong numbers": (
        {"off_by": 0.5},
        "CUDA device 0 computes wrong numbers ([25.0, 35.0] where [24.0, 34.0] is right)",
        "reinstall the NVIDIA driver",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_each_fault_is_told_apart(case):
    changes, reason, fix = FAULTS[case]
    result = examine(stand_in(**changes))
    assert not result.ok
    assert reason in result.reason
    assert fix.format(wheel=" ".join(installed_wheels()) or "cupy") in result.fix
    assert "\n" not in result.reason + result.fix


@pytest.mark.parametrize("case", FAULTS)
def test_the_selector_passes_each_fault_on(monkeypatch, case):
    changes, reason, fix = FAULTS[case]
    monkeypatch.setitem(sys.modules, "cupy", stand_in(**changes))
    chosen = get_backend("auto")
    fix = fix.format(wheel=" ".join(installed_wheels()) or "cupy")
    assert chosen.name == "numpy"
    assert chosen.reason.startswith("CUDA cannot be used: ")
    assert reason in chosen.reason
    assert fix in chosen.reason
    with pytest.raises(DeviceError) as caught:
        get_backend("cuda")
    assert str(caught.value).startswith("cupy:0 cannot be used: ")
    assert reason in str(caught.value)
    assert fix in str(caught.value)
    assert "\n" not in str(caught.value)
    (row,) = [row for section in device_report() for row in section.rows if row.name == "cupy"]
    assert row.ok is False
    assert reason in row.text


def test_the_selector_takes_a_card_that_works(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", stand_in())
    for name in ("auto", "cuda", "cupy:0"):
        assert get_backend(name).name == "cupy:0"
    assert get_backend("auto", sizes=(4, 8, 1)).name == "numpy"
    assert get_backend("auto", sizes=(4096, 4096, 4096)).name == "cupy:0"
    with pytest.raises(DeviceError, match=r"cupy:3 cannot be used: there is no CUDA device 3: only cuda:0 is visible"):
        get_backend("cuda:3")


def test_the_first_fault_is_reported():
    result = examine(stand_in(count=NO_DEVICE, nvrtc=RuntimeError("no"), cublas=ImportError("no"), off_by=1.0))
    assert "no CUDA device is visible" in result.reason
    assert "NVRTC" in examine(stand_in(nvrtc=RuntimeError("no"), cublas=ImportError("no"), off_by=1.0)).reason


@pytest.mark.parametrize(("count", "visible"), [(1, "only cuda:0 is visible"), (4, "cuda:0 to cuda:3 are visible")])
def test_index_out_of_range(count, visible):
    result = examine(stand_in(count=count), 4)
    assert (result.ok, result.reason) == (False, f"there is no CUDA device 4: {visible}")
    assert result.fix == "use cuda:0"


def test_a_mask_is_named(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    result = examine(stand_in(count=NO_DEVICE))
    assert result.reason.endswith("(CUDA_VISIBLE_DEVICES='')")
    assert result.fix.startswith("unset CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    assert examine(stand_in(), 2).reason.endswith("(CUDA_VISIBLE_DEVICES='2')")


@pytest.mark.parametrize("capability", ["75", "90", "120"])
def test_all_is_well(capability):
    result = examine(stand_in(capability=capability))
    assert (result.ok, result.reason, result.fix) == (True, "CUDA works on Some Card (cuda:0)", "")


def test_an_old_card_works_with_cuda_12():
    assert examine(stand_in(capability="61", built=12080)).ok


@pytest.mark.parametrize(("value", "noted"), [("1", True), ("0", False), ("", False)])
def test_tf32_is_never_silent(monkeypatch, value, noted):
    monkeypatch.setenv("CUPY_TF32", value)
    result = examine(stand_in())
    assert result.ok
    assert ("CUPY_TF32=1 is set" in result.reason) is noted


# -- the import -------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_cupy(monkeypatch):
    """As if CuPy had never been imported; what is installed is hidden by what the test puts first on the path."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "cupy"]:
        monkeypatch.delitem(sys.modules, name)


@pytest.fixture
def nothing_installed(monkeypatch):
    """As if no distribution of CuPy were installed, in an environment that may have one."""
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if not list(Path(entry or ".").glob("cupy*"))])
    monkeypatch.setitem(sys.modules, "cupy", None)


@pytest.mark.usefixtures("nothing_installed")
def test_no_package():
    result = probe()
    assert not result.ok
    assert result.reason.startswith("CuPy is not installed")
    assert 'pip install -U "cupy-cuda1' in result.fix


def test_several_wheels(monkeypatch, tmp_path, nothing_installed):
    distributions(monkeypatch, tmp_path, "cupy-cuda12x", "cupy-cuda13x")
    result = probe()
    assert not result.ok
    assert result.reason == "2 CuPy packages are installed over each other (cupy-cuda12x, cupy-cuda13x)"
    assert result.fix.startswith('pip uninstall -y cupy-cuda12x cupy-cuda13x, then pip install -U "cupy-cuda1')


def test_one_wheel_and_a_package_with_a_similar_name(monkeypatch, tmp_path, nothing_installed):
    distributions(monkeypatch, tmp_path, "cupy-cuda13x", "cupy-xarray")
    assert installed_wheels() == ["cupy-cuda13x"]


def test_a_wheel_whose_module_is_gone(monkeypatch, tmp_path, nothing_installed):
    distributions(monkeypatch, tmp_path, "cupy-cuda13x")
    result = probe()
    assert result.reason.startswith("CuPy is installed but cannot be imported (ModuleNotFoundError")
    assert result.fix == "pip install --force-reinstall --no-deps cupy-cuda13x"


def test_a_broken_module_is_one_line_and_silent(monkeypatch, tmp_path, no_cupy):
    package = tmp_path / "cupy"
    package.mkdir()
    source = "import warnings\nwarnings.warn('several packages\\nare installed')\nraise AttributeError('two\\nlines')\n"
    (package / "__init__.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    result = probe()
    assert result.reason == "CuPy is installed but cannot be imported (AttributeError: two)"
    assert "pip install" in result.fix


def test_a_leftover_folder(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cupy", ModuleType("cupy"))
    assert probe().reason == "CuPy is installed incompletely"
    assert "pip install" in probe().fix


# -- the backend, on the stand-in module ------------------------------------------------------------------------------


def test_arrays_are_made_on_the_backends_device(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", stand_in(count=2))
    backend = CudaBackend(1)
    assert backend.name == "cupy:1"
    x, z = backend.asarray([[1.0, 2.0]], dtype="float32"), backend.zeros([2, 3], "float64")
    assert (x.made_on, x.dtype, z.made_on, z.dtype, z.shape) == (1, np.float32, 1, np.float64, (2, 3))
    assert StandInDevice.stack == [0]
    assert backend.owns(x)
    assert not backend.owns(np.zeros(3))
    assert type(backend.to_host(x)) is np.ndarray
    backend.synchronize()
    with pytest.raises(DeviceError, match="already"):
        backend.asarray(x)


def test_a_card_is_described(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", stand_in(capability="120"))
    assert CudaBackend(0).describe() == {
        "name": "Some Card",
        "compute capability": "12.0",
        "memory": "80.0 GiB",
        "driver": "for CUDA up to 13.2",
        "CUDA runtime": "13.2",
        "CuPy": "14.2.0",
    }


# -- a stand-in driver ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """The folder of a compiled stand-in for libcuda.so.1."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("the stand-in driver needs Linux and a C compiler")
    folder = tmp_path_factory.mktemp("driver")
    source = ROOT / "tests" / "support" / "fake_libcuda.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "libcuda.so.1", source], check=True)
    return folder


def probe_in_a_process(folder, script="", **settings):
    """What ``probe()`` says in a new process that finds the libraries in ``folder`` first."""
    environment = {**os.environ, **settings, "PYTHONPATH": str(ROOT)}
    if folder is not None:
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("LD_LIBRARY_PATH")]))
    script += (
        "\nimport dataclasses, json; from backprop_gpu.backends.cuda.probe import driver_version, probe"
        "\nprint(json.dumps([driver_version(), dataclasses.asdict(probe())]))"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    version, result = json.loads(done.stdout)
    return version, result["reason"], result["fix"]


@pytest.mark.parametrize(
    ("version", "told", "extra"), [(12080, "12.8", "cuda12x"), (13000, "13.0", "cuda13x"), (14010, "14.1", "cuda13x")]
)
def test_the_driver_says_which_cupy_to_install(driver, version, told, extra):
    # An environment that has CuPy is made to look as if it had none.
    hide = "import sys; sys.modules['cupy'] = None; from backprop_gpu.backends.cuda import probe as p; p._WHEELS = ()"
    found, reason, fix = probe_in_a_process(driver, hide, STANDIN_CUDA_VERSION=str(version))
    assert found == version
    assert reason == f"CuPy is not installed (the NVIDIA driver is there, for CUDA up to {told})"
    assert fix == f'pip install -U "cupy-{extra}[ctk]"'


@pytest.fixture(scope="module")
def real_cupy():
    """CuPy itself, on a machine without an NVIDIA driver."""
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("CuPy is not installed")
    if driver_version():
        pytest.skip("an NVIDIA driver is here, so that its absence cannot be seen")
    import cupy

    return cupy


def test_real_cupy_without_a_driver(real_cupy):
    version, reason, fix = probe_in_a_process(None)
    assert (version, reason) == (0, "CuPy is installed but no NVIDIA driver was found")
    assert fix.startswith("install the NVIDIA driver")


@pytest.mark.parametrize(
    ("settings", "says", "helps"),
    [
        ({"STANDIN_CUDA_INIT": "100"}, "no CUDA device is visible", "nvidia-smi lists a GPU"),
        ({"STANDIN_CUDA_INIT": "2"}, "CUDA (CUDARuntimeError: cudaErrorMemoryAllocation", "free memory on the card"),
        ({"STANDIN_CUDA_INIT": "999"}, "does not start CUDA (CUDARuntimeError: cudaErrorUnknown", "run nvidia-smi"),
        ({"STANDIN_CUDA_INIT": "35"}, "CUDA (CUDARuntimeError: cudaErrorInsufficientDriver", "run nvidia-smi"),
        ({"STANDIN_CUDA_VERSION": "11040"}, "supports CUDA up to 11.4, CuPy needs CUDA 1", "update the NVIDIA driver"),
        ({"CUDA_VISIBLE_DEVICES": ""}, "(CUDA_VISIBLE_DEVICES='')", "unset CUDA_VISIBLE_DEVICES"),
    ],
)  # fmt: skip
def test_real_cupy_with_a_driver_that_fails(real_cupy, driver, settings, says, helps):
    _, reason, fix = probe_in_a_process(driver, **settings)
    assert says in reason
    assert helps in fix


def test_real_cupy_for_cuda_13_with_a_driver_for_12(real_cupy, driver):
    if real_cupy.cuda.runtime.runtimeGetVersion() < 13000:
        pytest.skip("this CuPy is for CUDA 12")
    _, reason, fix = probe_in_a_process(driver, STANDIN_CUDA_VERSION="12080")
    assert "it supports CUDA up to 12.8, CuPy needs CUDA 13" in reason
    assert 'then pip install -U "cupy-cuda12x[ctk]"' in fix


def test_real_cupy_nvrtc(real_cupy):
    loads = False
    with contextlib.suppress(Exception):
        loads = real_cupy.cuda.nvrtc.getVersion() >= (12, 0)
    result = check_nvrtc(real_cupy)
    assert (result is None) is loads  # it needs no driver, only the library
    if result is not None:
        assert 'pip install -U "cupy-cuda1' in result.fix


def test_real_cupy_cublas_without_a_device(real_cupy):
    result = check_cublas(real_cupy)
    assert result.reason.startswith("cuBLAS, CUDA's matrix product, cannot be used (")
    assert 'pip install -U "cupy-cuda1' in result.fix
    assert "\n" not in result.reason


# -- a real GPU -------------------------------------------------------------------------------------------------------


@pytest.fixture
def gpu():
    result = probe()
    if not result.ok:
        pytest.skip(result.reason)
    return CudaBackend(0, result.reason)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
def test_gpu_takes_and_gives_arrays(gpu, dtype):
    host = (np.arange(6).reshape(2, 3) % 2).astype(dtype, order="F")
    x = gpu.asarray(host)
    gpu.synchronize()
    assert gpu.owns(x)
    assert x.device == gpu.device
    assert x.dtype == gpu.dtype(dtype)
    assert x.flags.c_contiguous
    np.testing.assert_array_equal(gpu.to_host(x), host, strict=True)
    np.testing.assert_array_equal(gpu.to_host(gpu.zeros((2, 3), dtype)), np.zeros((2, 3), dtype), strict=True)


@pytest.mark.gpu
def test_gpu_is_described(gpu):
    told = gpu.describe()
    assert all(told.values())
    assert told["name"] in gpu.reason
