"""From a device name to a backend, and the reasons given."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest

from backprop_gpu.backends import Backend, get_backend, require_owned
from backprop_gpu.backends import select as selecting
from backprop_gpu.backends.cpu.library import unavailable_reason
from backprop_gpu.backends.cuda import device as cuda_device
from backprop_gpu.backends.cuda import probe as cuda_probe
from backprop_gpu.backends.cuda.probe import Probe
from backprop_gpu.backends.select import predict_step_seconds, select, step_flops
from backprop_gpu.devices import DeviceSpec
from backprop_gpu.errors import DeviceError, MissingDependencyError

SMALL, LARGE = (30, 64, 32, 2), (4096,) * 9  # sizes


class AnyCuda(Backend):
    """Stands for the CUDA backend where only the choice is tested."""

    def __init__(self, index: int = 0, reason: str = "") -> None:
        super().__init__(f"cupy:{index}", np, None, reason)


@pytest.fixture
def cuda(monkeypatch):
    """Let the probe find what the test says, on any machine."""

    def finds(result: Probe) -> None:
        monkeypatch.setattr(cuda_probe, "probe", lambda device=0: result)
        monkeypatch.setattr(cuda_device, "CudaBackend", AnyCuda)

    return finds


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv("BACKPROP_GPU_DEVICE", raising=False)


# -- by name ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cpu", "numpy", DeviceSpec("numpy")])
def test_numpy(name):
    backend = get_backend(name)
    assert (backend.name, backend.xp) == ("numpy", np)
    assert backend.reason


def test_a_backend_is_returned_as_it_is():
    backend = get_backend("cpu")
    assert get_backend(backend) is backend


def test_the_variable_is_read(monkeypatch):
    monkeypatch.setenv("BACKPROP_GPU_DEVICE", "array_api_strict:device2")
    assert get_backend().name == "array_api_strict:device2"
    assert get_backend("auto").name == "array_api_strict:device2"
    assert get_backend("cpu").name == "numpy"


@pytest.mark.parametrize("name", ["numpy", "array_api_strict:device1", "array_api_strict:CPU_DEVICE"])
def test_a_backends_name_gives_it_again(name):
    assert get_backend(name).name == name


def test_unknown_namespaces():
    with pytest.raises(DeviceError, match="did you mean 'numpy'"):
        get_backend("nunpy")
    with pytest.raises(DeviceError, match="there is no device 'jax:cpu'; use one of auto"):
        get_backend(DeviceSpec("jax", "cpu"))


@pytest.mark.parametrize("name", ["numpy", "array_api_strict"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_values_are_uploaded_into_a_buffer(name, dtype):
    if name != "numpy":
        pytest.importorskip(name)
    backend = get_backend(name)
    buffer = backend.zeros((2, 2), dtype)
    for values in ([[1.5, 2.0], [3.0, 1e-3]], np.array([[5.5, 6.0], [7.0, 0.1]])):
        values = np.asarray(values).astype("int64").tolist() if dtype == "int64" else values
        backend.upload(values, buffer, dtype)
        assert np.array_equal(backend.to_host(buffer), np.array(values, dtype))


def test_a_little_room_is_always_there(monkeypatch):
    backend = get_backend("numpy")
    monkeypatch.setattr(backend, "available", lambda: 2**21)
    assert backend.has_room(2**21)
    assert not backend.has_room(2**21 + 1)
    monkeypatch.setattr(backend, "available", lambda: 0)
    assert backend.has_room(1000)
    assert not backend.has_room(2**30)
    monkeypatch.setattr(backend, "available", lambda: None)
    assert backend.has_room(2**60)


def test_rows_are_lent_where_they_can_be_read():
    backend, x = get_backend("numpy"), np.arange(12.0).reshape(3, 4)
    assert backend.asarray_read_only(x, "float64") is x
    for other, dtype in ((x, "float32"), (x[:, ::2], "float64"), (x.T, "float64"), (x.astype(">f8"), "float64")):
        got = backend.asarray_read_only(other, dtype)
        assert not np.shares_memory(got, other)
        assert got.flags.c_contiguous
        assert np.array_equal(got, other)
        assert got.dtype == np.dtype(dtype)


def test_importing_loads_nothing_optional():
    script = (
        "import sys, backprop_gpu.backends, backprop_gpu.backends.device_report; print(sorted({'cupy', 'torch',"
        " 'array_api_strict', 'array_api_compat', 'threadpoolctl', 'yaml', 'pydantic', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- array_api_strict -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["CPU_DEVICE", "device1", "device2"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
def test_strict_devices_take_and_give_arrays(device, dtype):
    backend = get_backend(f"array_api_strict:{device}")
    host = (np.arange(6).reshape(2, 3) % 2).astype(dtype, order="F")
    x = backend.asarray(host)
    back = backend.to_host(x)
    assert x.device == backend.device == backend.xp.Device(device)
    assert x.dtype == backend.dtype(dtype)
    assert backend.owns(x)
    assert not backend.owns(host)
    np.testing.assert_array_equal(back, host, strict=True)
    back[0, 0] = 1 - back[0, 0]  # a copy: the device's array stays as it was
    np.testing.assert_array_equal(backend.to_host(x), host)


def test_strict_zeros():
    backend = get_backend("array_api_strict:device1")
    x = backend.zeros((2, 3), "float32")
    assert x.device == backend.device
    np.testing.assert_array_equal(backend.to_host(x), np.zeros((2, 3), np.float32), strict=True)


def test_strict_unknown_device():
    with pytest.raises(DeviceError, match=r"no device 'device9'; it has CPU_DEVICE, device1, device2"):
        get_backend("array_api_strict:device9")


def test_strict_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "array_api_strict", None)
    with pytest.raises(
        MissingDependencyError, match=r"^array_api_strict is not installed; pip install array-api-strict$"
    ):
        get_backend("array_api_strict")


# -- torch ------------------------------------------------------------------------------------------------------------


def test_torch_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "array_api_compat.torch", raising=False)
    with pytest.raises(MissingDependencyError, match=r"^torch is not installed; pip install array-api-compat torch$"):
        get_backend("torch:cpu")


def test_torch_broken(monkeypatch, tmp_path):
    (tmp_path / "torch.py").write_text("raise OSError('libtorch_cpu.so: cannot open\\nmore')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torch" or name == "array_api_compat.torch"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingDependencyError, match=r"cannot be imported \(OSError: libtorch_cpu.so: cannot open\)"):
        get_backend("torch")


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
def test_torch_takes_and_gives_arrays(dtype):
    pytest.importorskip("torch", reason="torch is not installed")
    backend = get_backend("torch")
    host = (np.arange(6).reshape(2, 3) % 2).astype(dtype)
    x = backend.asarray(host)
    back = backend.to_host(x)
    assert backend.name == "torch:cpu"
    assert x.dtype == backend.dtype(dtype)
    assert backend.owns(x)
    assert not backend.owns(host)
    np.testing.assert_array_equal(back, host, strict=True)
    back[0, 0] = 1 - back[0, 0]
    host[0, 1] = 1 - host[0, 1]
    assert not np.array_equal(backend.to_host(x), back)
    assert not np.array_equal(backend.to_host(x), host)
    np.testing.assert_array_equal(backend.to_host(backend.zeros((2, 3), dtype)), np.zeros((2, 3), dtype), strict=True)
    with backend.activate():
        backend.synchronize()


def test_torch_device_that_is_not_there():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if torch.cuda.is_available():
        pytest.skip("torch has CUDA here")
    with pytest.raises(DeviceError, match=r"^torch:cuda:0 cannot be used \(.*\); use torch:cpu"):
        get_backend("torch:cuda")


# -- auto, and CUDA by name -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [None, SMALL, LARGE])
def test_auto_without_cuda_says_why_and_what_helps(cuda, sizes):
    cuda(Probe(False, "no NVIDIA driver was found", "install it"))
    backend = get_backend("auto", sizes=sizes)
    assert backend.name == "numpy"
    assert backend.reason == "CUDA cannot be used: no NVIDIA driver was found; install it"


def test_auto_takes_cuda_where_it_works(cuda):
    cuda(Probe(True, "CUDA works on a card"))
    backend = get_backend(sizes=None)
    assert (backend.name, backend.reason) == ("cupy:0", "CUDA works on a card")


def test_auto_takes_cuda_for_a_large_network(cuda):
    cuda(Probe(True, "CUDA works on a card"))
    backend = get_backend("auto", sizes=LARGE)
    assert backend.name == "cupy:0"
    assert "a step of this network with 512 examples is predicted at 23 ms there" in backend.reason


def test_auto_takes_the_cpu_for_a_small_network_and_says_so(cuda):
    cuda(Probe(True, "CUDA works on a card"))
    backend = get_backend("auto", sizes=SMALL)
    assert backend.name == "numpy"
    # The CPU's share depends on its cores: 0.16 ms on two.
    assert re.fullmatch(
        r"CUDA works, but a step of this network with 512 examples is predicted at 1\.2 ms there and 0\.\d+ ms on the"
        r" CPU; use --device cuda to override",
        backend.reason,
    )


@pytest.mark.parametrize("name", ["cuda", "cupy:0"])
def test_cuda_by_name_is_an_error_where_it_does_not_work(cuda, name):
    cuda(Probe(False, "no NVIDIA driver was found", "install it"))
    with pytest.raises(DeviceError, match=r"^cupy:0 cannot be used: no NVIDIA driver was found; install it$"):
        get_backend(name, sizes=SMALL)


def test_cuda_by_name_is_taken_for_any_network(cuda):
    cuda(Probe(True, "CUDA works on a card; CUPY_TF32=1 is set"))
    backend = get_backend("cuda:1", sizes=SMALL)
    assert backend.name == "cupy:1"
    assert "CUPY_TF32=1 is set" in backend.reason


# -- kernels ----------------------------------------------------------------------------------------------------------


def test_auto_takes_the_fastest_kernels_of_numpy():
    chosen, reason = select(SMALL, device="cpu"), unavailable_reason()
    expected = ("reference", reason) if reason else ("native", "the fastest that is there")
    assert (chosen.kernels, chosen.because) == expected
    assert select(LARGE, "float64", device="cpu").kernels == chosen.kernels


def test_auto_without_native_kernels_says_why(monkeypatch):
    why = "the kernel library was not built"
    monkeypatch.setattr(selecting, "unavailable_reason", lambda: why)
    chosen = select(SMALL, device="cpu")
    assert (chosen.kernels, chosen.because) == ("reference", why)


@pytest.mark.parametrize("name", ["host", "compiled"])
def test_names_of_kernel_sets_that_are_gone_mean_the_one_in_their_place(name, monkeypatch, caplog):
    assert select(SMALL, device="cpu", kernels=name).kernels == select(SMALL, device="cpu").kernels
    assert caplog.messages == [f"kernels: {name} is now 'native'; write that, or 'auto'"]
    monkeypatch.setattr(selecting, "unavailable_reason", lambda: "the kernel library was not built")
    assert select(SMALL, device="cpu", kernels=name).kernels == "reference", "what ran everywhere still does"


def test_auto_takes_the_formulas_on_every_other_device():
    chosen = select(SMALL, device="array_api_strict")
    assert (chosen.backend.name, chosen.kernels) == ("array_api_strict:CPU_DEVICE", "reference")


@pytest.mark.parametrize("name", ["reference", "native"])
def test_kernels_by_name_are_taken_as_they_are(name):
    chosen = select(SMALL, device="cpu", kernels=name)
    assert (chosen.kernels, chosen.because) == (name, f"{name} was asked for")


# -- prediction -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "m", "flops"),
    [
        ((784, 512, 512, 10), 128, 0.41e9),
        ((4096,) * 9, 8192, 6.3e12),
        ((4, 64, 64, 1), 1024, 27e6),
        ((32, 64, 64, 64, 64, 16), 2**18, 23e9),
    ],
)
def test_flops_of_known_networks(sizes, m, flops):
    assert step_flops(sizes, m) == pytest.approx(flops, rel=0.03)


def test_flops_are_those_of_the_products():
    # One layer: the forward product and dW; two layers: those of both, and the input gradient of the second.
    assert step_flops((3, 5), 7) == 2 * (2 * 7 * 3 * 5)
    assert step_flops((3, 5, 2), 7) == 2 * (2 * 7 * 3 * 5) + 3 * (2 * 7 * 5 * 2)


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_more_work_takes_longer(kind):
    steps = [((64, 64, 64), "float32"), ((128, 128, 128), "float32"), ((128, 128, 128), "float64")]
    steps.append(((128, 128, 128, 128), "float64"))
    times = [predict_step_seconds(sizes, dtype, kind) for sizes, dtype in steps]
    assert times == sorted(times)
    assert len(set(times)) == len(times)


# -- arrays of another device -----------------------------------------------------------------------------------------


def test_arrays_of_the_backend_pass():
    for name in ("numpy", "array_api_strict:device1"):
        backend = get_backend(name)
        require_owned(backend, "X", backend.zeros((2, 3), "float32"))


def test_a_numpy_array_on_another_device_is_named():
    expected = r"^X is a numpy array but the model is on array_api_strict:device1; pass it through backend\.asarray$"
    with pytest.raises(DeviceError, match=expected):
        require_owned(get_backend("array_api_strict:device1"), "X", np.zeros(3))


def test_another_device_of_the_same_namespace_is_named():
    x = get_backend("array_api_strict:device2").zeros((3,), "float32")
    expected = (
        r"^Y is an array on array_api_strict device .*device2.* but the model is on array_api_strict:device1; copy"
    )
    with pytest.raises(DeviceError, match=expected):
        require_owned(get_backend("array_api_strict:device1"), "Y", x)


def test_an_array_of_another_namespace_on_numpy_is_named():
    x = get_backend("array_api_strict").zeros((3,), "float32")
    with pytest.raises(
        DeviceError, match=r"^X is an array on array_api_strict device .* but the model is on numpy; copy"
    ):
        require_owned(get_backend("numpy"), "X", x)


@pytest.mark.parametrize("name", ["numpy", "array_api_strict:device1"])
def test_what_is_no_array_is_named(name):
    with pytest.raises(DeviceError, match=r"^X is a list, not an array, but the model is on .*backend\.asarray$"):
        require_owned(get_backend(name), "X", [1.0, 2.0])
