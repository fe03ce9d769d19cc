"""The launcher that calls CuPy and cuBLASLt, with stand-ins for both that run on the host (``support.fake_cuda``).

They take what a card would be given: the text of the sources, eight bytes an argument, cuBLASLt's sixteen arguments.
That CuPy's and cuBLASLt's own functions behave like them is for a card to show.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.emulated_cuda import EmulatedBackend, obstacle
from support.fake_cuda import FakeCublasLt, FakeCupy, Stream, fake_cuda

from backprop_gpu.backends.cuda import gemm
from backprop_gpu.backends.cuda.device import PRECISION_OF, CudaBackend
from backprop_gpu.backends.cuda.kernels import CudaKernels
from backprop_gpu.backends.reference import ReferenceKernels
from backprop_gpu.backends.select import fastest_kernels, select
from backprop_gpu.config import Config
from backprop_gpu.errors import DeviceError
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.step import TrainingStep
from backprop_gpu.training.batches import Batches
from backprop_gpu.training.epoch import CapturedEpoch

OBSTACLE = obstacle()
pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=str(OBSTACLE))


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[FakeCupy, FakeCublasLt]]:
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path))
    with fake_cuda(monkeypatch) as both:
        yield both


def epochs(launcher: str, dtype: str, kernels: str = "cuda") -> CapturedEpoch:
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((53, 6)).astype(dtype), rng.integers(0, 4, (53, 1))
    net = DenseNet(
        [6, 9, 7, 4],
        activation="gelu",
        dropout=0.2,
        loss="categorical_cross_entropy",
        device=CudaBackend(0) if launcher == "cupy" else EmulatedBackend(),
        kernels=kernels,
        dtype=dtype,
    )
    step = TrainingStep(net, "adam", total_steps=40, clip_norm=1.0, l2=0.01, one_over_m="late")
    return CapturedEpoch(step, Batches(net, X, y, None, batch_size=16, shuffle=True, seed=1), 10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cupy_is_given_what_the_emulation_is_given(stand_ins: tuple[FakeCupy, FakeCublasLt], dtype: str) -> None:
    """Whole epochs, eager and captured, bit for bit."""
    here, there = epochs("cupy", dtype), epochs("emulated", dtype)
    for epoch in range(5):
        np.testing.assert_array_equal(here.run(epoch), there.run(epoch))
    np.testing.assert_array_equal(here.step.net.params.theta, there.step.net.params.theta)
    assert [replay.unsupported_reason for replay, _ in here.replays] == [None, None]  # type: ignore[attr-defined]
    cupy, _ = stand_ins
    assert len(cupy.streams) == 3  # the current one, and one for each of two captures
    assert all("--gpu-architecture=sm_90" in options for options in cupy.compiled)
    assert len(cupy.compiled) == 5 if dtype == "float64" else 4  # gather is in float32's module


@pytest.mark.parametrize(("kernels", "compute"), [("cuda", 68), ("cuda-tf32", 77), ("cuda-bf16", 68)])
def test_a_claim_is_a_compute_type(stand_ins: tuple[FakeCupy, FakeCublasLt], kernels: str, compute: int) -> None:
    epochs("cupy", "float32", kernels).run(0)
    _, library = stand_ins
    used = {x["compute"] for x in library.table.values() if x["kind"] == "operation"}
    assert used == {compute}
    assert {p.factors for p in library.products} == {"bfloat16" if kernels == "cuda-bf16" else "float32"}
    assert compute == gemm.COMPUTE_TYPES[PRECISION_OF[kernels]]


def test_float64_has_no_claim(stand_ins: tuple[FakeCupy, FakeCublasLt]) -> None:
    epochs("cupy", "float64", "cuda-tf32").run(0)
    _, library = stand_ins
    assert {x["compute"] for x in library.table.values() if x["kind"] == "operation"} == {70}


def test_plans_are_made_once_for_a_shape(stand_ins: tuple[FakeCupy, FakeCublasLt]) -> None:
    run = epochs("cupy", "float32")
    run.run(0)
    _, library = stand_ins
    before = len(library.table)
    run.run(1)
    assert len(library.table) == before
    assert len(library.products) > 20


def test_a_failed_capture_is_one_line_of_ours(
    stand_ins: tuple[FakeCupy, FakeCublasLt], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = epochs("cupy", "float32")
    run.run(0)

    def refuses() -> None:
        raise RuntimeError("cudaErrorStreamCaptureUnsupported: operation not permitted")

    monkeypatch.setattr(Stream, "begin_capture", lambda self: refuses())
    monkeypatch.setattr(Stream, "end_capture", lambda self: refuses())
    for epoch in range(1, 5):
        run.run(epoch)
    reasons = {replay.unsupported_reason for replay, _ in run.replays}  # type: ignore[attr-defined]
    assert reasons == {
        "the step cannot be captured: RuntimeError: cudaErrorStreamCaptureUnsupported: operation not permitted"
    }


def test_the_fast_set_is_taken_by_name_alone(stand_ins: tuple[FakeCupy, FakeCublasLt]) -> None:
    backend = CudaBackend(0)
    assert fastest_kernels(backend)[0] == "reference"
    assert isinstance(backend.kernels("reference"), ReferenceKernels)
    for kind, precision in PRECISION_OF.items():
        kernels = backend.kernels(kind)
        assert isinstance(kernels, CudaKernels)
        assert kernels.precision == precision
    with pytest.raises(DeviceError, match="kernels 'native' do not run on cupy:0"):
        backend.kernels("native")


@pytest.mark.parametrize(("old", "new"), [("fused", "cuda"), ("fused-tf32", "cuda-tf32"), ("fused-bf16", "cuda-bf16")])
def test_the_old_names_mean_the_new_ones(
    old: str, new: str, stand_ins: tuple[FakeCupy, FakeCublasLt], caplog: pytest.LogCaptureFixture
) -> None:
    assert select([3, 2], device=CudaBackend(0), kernels=old).kernels == new
    assert caplog.messages == [f"kernels: {old} is now '{new}'; write that, or 'auto'"]


def test_configurations_may_name_it() -> None:
    for kind in (*PRECISION_OF, "fused", "fused-tf32", "fused-bf16"):
        assert Config.model_validate({"data": {"source": "digits"}, "kernels": kind}).kernels == kind
