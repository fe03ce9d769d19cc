"""The fast CUDA kernel set as a whole, on the emulated device: shapes larger than the laws', and graphs."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.backends import Case
from support.bench import Bench, same_bits
from support.emulated_cuda import EmulatedBackend, EmulatedLauncher, compiled, host_text, obstacle
from support.judging import product, ratio, summed

from backprop_gpu import parity
from backprop_gpu.backends.base import Backend
from backprop_gpu.backends.cuda import compile
from backprop_gpu.backends.cuda.gemm import WORKSPACE, Product
from backprop_gpu.backends.cuda.graph import UNROLLED, WARM_UP
from backprop_gpu.backends.cuda.kernels import CudaKernels
from backprop_gpu.backends.plan import StepSpec
from backprop_gpu.backends.reference import ReferenceKernels
from backprop_gpu.errors import ConfigError, DeviceError
from backprop_gpu.maths.activations import get_activation
from backprop_gpu.maths.losses import get_loss
from backprop_gpu.maths.normalization import part_sizes
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.spec import step_spec
from backprop_gpu.network.step import TrainingStep
from backprop_gpu.parity.oracle import layers, losses, updates
from backprop_gpu.training import epoch as epochs_module
from backprop_gpu.training.batches import BatchBuffers, Batches, StreamedBatches
from backprop_gpu.training.epoch import CapturedEpoch

OBSTACLE = obstacle()
pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=str(OBSTACLE))

SETTINGS: list[dict[str, Any]] = [
    {},
    {"optimizer": "adamw", "dropout": 0.3, "activation": "gelu", "l2": 0.1, "clip_norm": 0.5},
    {"optimizer": "nesterov", "activation": "tanh", "one_over_m": "late", "micro_batch": 5, "weighted": True},
    {"optimizer": "lion", "activation": ["elu", "silu"], "l1": 0.01, "schedule": "cosine", "dtype": "float64"},
    {"optimizer": "sgd", "activation": "softplus", "micro_batch": 7, "dropout": [0.2, 0.5], "reduction": "sum"},
    {"batch_norm": [False, True], "activation": "tanh", "dropout": 0.3, "weighted": True},
    {"batch_norm": True, "activation": "gelu", "micro_batch": 7, "optimizer": {"name": "adam", "average": 0.9}},
    {"members": 3, "adapters": "all", "dropout": 0.3, "micro_batch": 7, "one_over_m": "late"},
]


def build(settings: dict[str, Any], *, kernels: str = "cuda", backwards: bool = False, n: int = 53) -> CapturedEpoch:
    """An epoch of batches of 16 with a ragged tail, on the emulated device."""
    s = dict(settings)
    rng, dtype = np.random.default_rng(3), s.pop("dtype", "float32")
    X, y = rng.standard_normal((n, 6)).astype(dtype), rng.integers(0, 4, (n, 1))
    weights = rng.integers(0, 3, (n, 1)) + 0.5 if s.pop("weighted", False) else None
    micro_batch = s.pop("micro_batch", None)
    net = DenseNet(
        [6, 9, 7, 4],
        activation=s.pop("activation", "relu"),
        dropout=s.pop("dropout", 0.0),
        batch_norm=s.pop("batch_norm", False),
        members=s.pop("members", 1),
        adapters=s.pop("adapters", "first"),
        loss="categorical_cross_entropy",
        device=EmulatedBackend(backwards=backwards),
        kernels=kernels,
        seed=5,
        dtype=dtype,
    )
    step = TrainingStep(net, s.pop("optimizer", "adam"), total_steps=40, **s)
    return CapturedEpoch(step, Batches(net, X, y, weights, batch_size=16, shuffle=True, seed=1), micro_batch)


def device(epochs: CapturedEpoch) -> EmulatedBackend:
    backend = epochs.step.net.backend
    assert isinstance(backend, EmulatedBackend)
    return backend


def kernels_of(epochs: CapturedEpoch) -> CudaKernels:
    kernels = epochs.step.net.kernels
    assert isinstance(kernels, CudaKernels)
    return kernels


# --- whole epochs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_graph_is_what_python_would_have_run(settings: dict[str, Any]) -> None:
    """Bit for bit, ragged tail and micro-batches included; nothing falls back; nothing is written beside an array."""
    played, called = build(settings), build(settings)
    sizes = Counter(part_sizes(53, 16, even="batch_norm" in settings))  # of batches, and how many there are of each
    programs = [
        called.step.program(
            called.program.table, called.program.values, BatchBuffers(called.batches, m), settings.get("micro_batch")
        )
        for m in sizes
    ]
    called.replays = [
        (lambda times, before=None, program=program: [program() for _ in range(times)], times)  # type: ignore[misc]
        for program, (_, times) in zip(programs, called.replays, strict=True)
    ]
    for epoch in range(6):
        np.testing.assert_array_equal(played.run(epoch), called.run(epoch))
    np.testing.assert_array_equal(played.step.net.params.theta, called.step.net.params.theta)
    assert kernels_of(played).reasons == {}
    assert [replay.unsupported_reason for replay, _ in played.replays] == [None, None]  # type: ignore[attr-defined]
    graphs = device(played).launcher.graphs
    launches = sorted(6 * times - WARM_UP for times in sizes.values())
    assert sorted(graph.launches for graph in graphs) == launches
    assert device(played).check_guards() > 10


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_no_bit_depends_on_the_order_of_threads_and_blocks(settings: dict[str, Any]) -> None:
    forwards, backwards = (build(settings, backwards=b) for b in (False, True))
    for epoch in range(2):
        np.testing.assert_array_equal(forwards.run(epoch), backwards.run(epoch))
    np.testing.assert_array_equal(forwards.step.net.params.theta, backwards.step.net.params.theta)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_reference_trains_alike(settings: dict[str, Any]) -> None:
    """Two epochs apart by rounding alone: costs to 1e-4 of each other, far below what one wrong operand does."""
    fast, plain = (build(settings, kernels=kernels) for kernels in ("cuda", "reference"))
    assert isinstance(plain.step.net.kernels, ReferenceKernels)
    assert not isinstance(plain.step.net.kernels, CudaKernels)
    for epoch in range(2):
        np.testing.assert_allclose(fast.run(epoch), plain.run(epoch), rtol=1e-4)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_parity_finds_nothing(batch_norm: bool) -> None:
    """Every tensor of a step within the bound of its operation, probes of the products and of the masks included."""
    rng = np.random.default_rng(4)
    X, y = rng.standard_normal((40, 12)), rng.integers(0, 5, 40)
    net = DenseNet(
        [12, 33, 9, 5],
        activation=["gelu", "elu"],
        dropout=[0.25, 0.0],
        batch_norm=batch_norm,
        loss="categorical_cross_entropy",
        device=EmulatedBackend(),
        kernels="cuda",
    )
    report = parity.check(net, X, y, device=net.backend, kernels="cuda", micro_batch=24)
    assert report.ok, report.summary()


@pytest.mark.parametrize("claim", ["tf32", "bf16"])
def test_a_lower_precision_is_judged_as_what_it_claims_to_be(claim: str) -> None:
    """Products of rounded factors pass as their claim, which the kernel set states itself, and fail as float32."""
    rng = np.random.default_rng(4)
    X, y = rng.standard_normal((40, 12)), rng.standard_normal((40, 2))
    device = EmulatedBackend(precision=claim)
    net = DenseNet([12, 33, 9, 2], activation="tanh", loss="squared_error", device=device, kernels="cuda")
    report = parity.check(net, X, y, device=net.backend, kernels="cuda")
    assert report.ok, report.summary()
    assert report.about["claim"] == claim
    assert not parity.check(net, X, y, device=net.backend, kernels="cuda", claim="fp32").ok


# --- shapes of many blocks -----------------------------------------------------------------------------------------

LARGE = [(70, 3, 1000), (1, 2, 4097), (129, 4, 150), (3, 5, 700)]  # (units, inputs, examples)


@pytest.fixture(params=["float32", "float64"])
def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(Case("emulated", "cuda"), request.param)


@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_bias_gradients_over_many_blocks(bench: Bench, shape: tuple[int, int, int]) -> None:
    """Several blocks share a unit's examples; the last of them adds up. Scaled, added to, and in either layout."""
    (n, k, m), B = shape, bench.B
    rng, g = np.random.default_rng(shape), get_activation("silu")
    W, dZ = bench.normal(rng, k, n), bench.normal(rng, k, m)
    A_prev, saved = bench.forward(bench.normal(rng, n, 2), bench.normal(rng, 2, m), bench.normal(rng, n, 1), g, None)
    scale, old = np.array([0.3], bench.dtype), bench.normal(rng, n, 1)
    z = bench.get(bench.kernels.debug_tensors(saved)["Z"])
    wanted = layers.activation_vjp(B, "silu", {}, product(B, W.T, dZ), B.given(z), B.given(bench.get(A_prev)))
    bits = []
    for transposed in (False, True):
        start = bench.put(bench.blank(m, n)).T if transposed else bench.put(bench.blank(n, m))
        db = bench.put(old)
        bench.kernels.dense_vjp_input(
            *(bench.put(W), bench.put(dZ), g, None, A_prev, saved),
            scale=bench.put(scale),
            dZ_prev=start,
            db_prev=db,
            accumulate=True,
        )
        assert ratio(bench.get(start), wanted) <= 1.0
        bias = summed(B, bench.get(start), scale, old)
        assert ratio(bench.get(db), bias) <= 1.0
        bits.append(bench.get(db))
    same_bits(*bits)  # the layout of dZ does not change the order of its sum


@pytest.mark.parametrize(
    ("loss", "n_outputs"),
    [
        *(("categorical_cross_entropy", n) for n in (2, 31, 32, 33, 100)),
        *(("squared_error", n) for n in (1, 3, 100)),
        *(("binary_cross_entropy", n) for n in (1, 33)),
    ],
)
def test_costs_over_many_blocks(bench: Bench, loss: str, n_outputs: int) -> None:
    m, B, rng = 1100, bench.B, np.random.default_rng(n_outputs)
    Z, w = bench.normal(rng, n_outputs, m), bench.normal(rng, 1, m) ** 2
    w[:, ::5] = 0.0
    Y = {
        "categorical_cross_entropy": losses.one_hot(rng.integers(0, n_outputs, (1, m)), n_outputs),
        "squared_error": bench.normal(rng, n_outputs, m),
        "binary_cross_entropy": rng.integers(0, 2, (n_outputs, m)).astype(float),
    }[loss].astype(bench.dtype)
    out = bench.output_delta(get_loss(loss), "fused", Z, Y, w, inverse=1.0 / m, early=False)
    s = B.given(np.array([1.0 / m], bench.dtype))
    dZ = losses.output_delta(B, loss, vars(get_loss(loss)), "fused", B.given(Z), B.given(Y), w, None)
    assert ratio(out["dZ"], dZ) <= 1.0
    assert ratio(out["db"], summed(B, out["dZ"], s.v)) <= 1.0
    each = losses.weighted_loss(B, loss, vars(get_loss(loss)), B.given(Z), B.given(Y), w)
    assert ratio(out["value"], losses.cost(each, s, B.given(np.zeros(1)))) <= 1.0


@pytest.mark.parametrize("size", [2048, 2049, 50_000])
def test_penalty_and_norm_over_many_blocks(bench: Bench, size: int) -> None:
    rng, B = np.random.default_rng(size), bench.B
    theta, grad = bench.normal(rng, size), bench.normal(rng, size)
    l1, l2 = np.array([0.3], bench.dtype), np.array([0.2], bench.dtype)
    given = {"theta": theta, "l1": l1, "l2": l2}
    out = bench.run("penalty", given, {"grad": grad, "value": np.ones(1)})
    strengths = B.given(l1), B.given(l2)
    assert ratio(out["grad"], updates.penalized(B, B.given(theta), B.given(grad), *strengths)) <= 1.0
    assert ratio(out["value"], updates.penalty_cost(B, B.given(theta), B.given(np.ones(1)), *strengths)) <= 1.0
    start = {"norm": bench.blank(1), "factor": bench.blank(1)}
    out = bench.run("global_norm", {"grad": grad}, start, max_norm=1)
    assert ratio(out["norm"], updates.global_norm(B, grad)) <= 1.0


def test_a_dropout_mask_over_many_blocks(bench: Bench) -> None:
    n, m, rate = 134, 900, 0.4
    dropout = bench.dropout(rate, n, m)
    ones = np.ones((n, 1), bench.dtype), np.ones((1, m), bench.dtype), np.zeros((n, 1), bench.dtype)
    A, saved = bench.forward(*ones, get_activation("identity"), dropout)
    mask = layers.philox_mask(n, rate, 5, 2, 3, 2 + np.arange(m))
    same_bits(bench.get(bench.kernels.debug_tensors(saved)["mask"]), mask)
    same_bits(bench.get(A), np.where(mask, 1.0 / (1.0 - rate), 0.0).astype(bench.dtype))


def test_a_wide_gather(bench: Bench) -> None:
    rng = np.random.default_rng(5)
    source, order = bench.normal(rng, 300, 77), rng.permutation(300)
    given = {"source": source, "order": order, "counters": np.array([2, 0])}
    out = bench.run("gather", given, {"out": bench.blank(70, 77)}, stride=100)["out"]
    same_bits(out, source[order[200:270]])


# --- what falls back -----------------------------------------------------------------------------------------------


def test_the_literal_form_is_computed_by_the_reference_and_ends_a_recording() -> None:
    settings = {"delta": "literal"}
    literal, plain = (build(settings, kernels=kernels) for kernels in ("cuda", "reference"))
    for epoch in range(WARM_UP + 1):
        np.testing.assert_allclose(literal.run(epoch), plain.run(epoch), rtol=1e-4)
    assert set(kernels_of(literal).reasons) == {"output_delta"}
    for replay, _ in literal.replays:
        assert "output_delta: delta: literal has no CUDA kernel, fused has" in replay.unsupported_reason  # type: ignore[attr-defined]
    assert device(literal).launcher.graphs == []


def test_matrices_with_gaps_both_ways_are_multiplied_by_the_reference() -> None:
    backend = EmulatedBackend()
    kernels, g, rng = backend.kernels("cuda"), get_activation("relu"), np.random.default_rng(6)
    W, gaps, b = rng.standard_normal((4, 3)), rng.standard_normal((6, 10))[::2, ::2], np.ones((4, 1))
    A, saved = np.empty((4, 5)), kernels.saved(4, 4, 5, "float64", g, None)
    kernels.dense(W, gaps, b, g, None, A=A, saved=saved)
    np.testing.assert_allclose(A, np.maximum(W @ gaps + b, 0.0), rtol=1e-12)
    dA, db, dW = np.empty((8, 10))[::2, ::2], np.empty((4, 1)), np.empty((3, 5))
    back, dZ = rng.standard_normal((3, 4)), rng.standard_normal((3, 5))
    kernels.dense_vjp_input(*(back, dZ, g, None, A, saved), scale=None, dZ_prev=dA, db_prev=db, accumulate=False)
    np.testing.assert_allclose(dA, np.where(A > 0, back.T @ dZ, 0.0), rtol=1e-12)
    np.testing.assert_allclose(db[:, 0], dA.sum(1), rtol=1e-12)
    kernels.dense_vjp_params(dZ, rng.standard_normal((10, 10))[::2, ::2], scale=None, dW=dW, accumulate=False)
    assert set(kernels.reasons) == {"dense", "dense_vjp_input", "dense_vjp_params"}


class Picky(EmulatedLauncher):
    """A cuBLASLt that has no algorithm for products with nine rows or columns."""

    def run(self, work: Any) -> None:
        if isinstance(work, Product) and 9 in (work.M, work.N):
            raise DeviceError("cublasLtMatmulAlgoGetHeuristic: not supported")
        super().run(work)


def test_a_product_that_cublaslt_refuses_is_the_references() -> None:
    """Asked once for each shape; every step then is run by Python."""
    picky, plain = build({}), build({})
    kernels_of(picky).launcher = Picky()
    for epoch in range(WARM_UP + 1):
        np.testing.assert_allclose(picky.run(epoch), plain.run(epoch), rtol=1e-4)
    reason = "cublasLtMatmulAlgoGetHeuristic: not supported"
    assert kernels_of(picky).reasons == dict.fromkeys(("dense", "dense_vjp_input", "dense_vjp_params"), reason)
    assert {replay.unsupported_reason for replay, _ in picky.replays} == {f"dense: {reason}"}  # type: ignore[attr-defined]


def test_the_complex_step_is_for_the_reference_alone() -> None:
    with pytest.raises(ConfigError, match="dtype must be float32 or float64"):
        DenseNet([3, 2], loss="squared_error", dtype="complex128", device=EmulatedBackend(), kernels="cuda")


# --- the graph -----------------------------------------------------------------------------------------------------


def test_a_buffer_that_moved_is_not_replayed() -> None:
    """The graph would write where nobody looks; recording again would do."""
    epochs = build({})
    for epoch in range(3):
        epochs.run(epoch)
    epochs.step.value = epochs.step.value.copy()
    with pytest.raises(DeviceError, match=r"a buffer of the captured step has moved since; capture the step again"):
        epochs.run(3)


def test_a_program_that_changed_is_not_replayed() -> None:
    epochs = build({"l2": 0.5})
    for epoch in range(3):
        epochs.run(epoch)
    epochs.step.l2 = 0.0
    with pytest.raises(DeviceError, match="moved"):
        epochs.run(3)


class Refusing(EmulatedLauncher):
    """A device that captures nothing."""

    def record(self, work: Sequence[Any]) -> Any:
        raise DeviceError("the step cannot be captured: CUDARuntimeError")


def test_a_device_that_cannot_capture_runs_every_step_by_python() -> None:
    refused, plain = build({}), build({})
    kernels_of(refused).launcher = Refusing()
    refused.replays = [
        (kernels_of(refused).capture(replay.program), times)  # type: ignore[attr-defined]
        for replay, times in refused.replays
    ]
    for epoch in range(6):
        np.testing.assert_array_equal(refused.run(epoch), plain.run(epoch))
    for replay, _ in refused.replays:
        assert replay.unsupported_reason == "the step cannot be captured: CUDARuntimeError"  # type: ignore[attr-defined]


def test_long_replays_launch_several_steps_at_once() -> None:
    epochs = build({}, n=16 * 21)
    ((replay, times),) = epochs.replays
    epochs.program.begin(0)
    replay(times)  # 3 by Python, 18 as 2 graphs of 8 and 2 of 1
    one, eight = device(epochs).launcher.graphs
    assert len(eight.work) == UNROLLED * len(one.work)
    assert (one.launches, eight.launches) == (2, 2)
    epochs.program.begin(1)
    replay(times)
    assert (one.launches, eight.launches) == (2 + 5, 2 + 2)


def test_tracing_runs_nothing() -> None:
    epochs = build(SETTINGS[1])
    epochs.run(0)
    before = epochs.step.net.params.theta.copy(), epochs.step._counters.copy(), epochs.step.value.copy()
    replay = epochs.replays[0][0]
    tape = kernels_of(epochs).trace(replay.program)  # type: ignore[attr-defined]
    for x, now in zip(before, (epochs.step.net.params.theta, epochs.step._counters, epochs.step.value), strict=True):
        np.testing.assert_array_equal(x, now)
    # advance, 2 gathers, 3 layers of 2, delta 2, 3 dW, 2 vjps of 2, penalty, norm, 2 updates
    assert len(tape) == 1 + 2 + 6 + 2 + 3 + 4 + 1 + 1 + 2


def test_a_steady_step_makes_no_buffer() -> None:
    epochs = build(SETTINGS[1])
    epochs.run(0)
    before = dict(kernels_of(epochs)._buffers)
    epochs.run(1)
    assert kernels_of(epochs)._buffers.keys() == before.keys()
    for counters in (x for (dtype, *_), x in before.items() if dtype == "int32"):
        assert (counters == 0).all()  # every kernel leaves its counters as it found them


# --- choosing ------------------------------------------------------------------------------------------------------


def test_cuda_kernels_are_for_cuda_alone() -> None:
    with pytest.raises(DeviceError, match=r"kernels 'cuda' do not run on numpy"):
        Backend("numpy", np).kernels("cuda")


def test_layers_have_their_examples_contiguous() -> None:
    net = DenseNet([3, 4, 2], loss="squared_error", device=EmulatedBackend(), kernels="cuda")
    ws = net.workspace(7)
    for x in (*ws.A[1:], *ws.dZ[1:]):
        assert x.flags.f_contiguous
        assert not x.flags.c_contiguous
    assert net.params.W[1].flags.c_contiguous


def test_the_emulation_sees_a_barrier_that_is_not_reached() -> None:
    """The judge itself: threads that part before a barrier are a fault, not a wait."""
    extra = """
    namespace wrong { using integer = long long;
    void k(integer n) { if (threadIdx.x < n) __syncthreads(); }
    void shuffles(integer n) { if (threadIdx.x != n) __shfl_xor_sync(0u, 1.0f, 1); } }
    using wrong::k; using wrong::shuffles;
    EMULATE(k)
    EMULATE(shuffles)
    """
    library = compiled(host_text("float32", extra))
    for kernel, n, fine in (("k", 0, True), ("k", compile.THREADS, True), ("k", 5, False), ("shuffles", 3, False)):
        function = getattr(library, f"emulate_{kernel}")
        function.restype = ctypes.c_char_p
        assert (function(1, 1, np.array([n]).tobytes(), 0) is None) == fine, (kernel, n)


# -- said beforehand -------------------------------------------------------------------------------------------------


def spec_of(epochs: CapturedEpoch) -> StepSpec:
    return step_spec(epochs.step, epochs.batches.batch_size, None)


LEFT_OUT: list[dict[str, Any]] = [
    {"delta": "literal"},
    {"activation": ["relu", replace(get_activation("tanh"), name="own")]},
]


@pytest.mark.parametrize("settings", [*SETTINGS, *LEFT_OUT])
def test_what_is_said_is_what_falls_back(settings: dict[str, Any]) -> None:
    epochs = build(settings)
    epochs.run(0)
    epochs.run(1)
    *choices, capture = kernels_of(epochs).dispatch_report(spec_of(epochs))
    assert [(c.operation, c.layer) for c in choices] == spec_of(epochs).operations()
    assert {c.operation for c in choices if c.why} == set(kernels_of(epochs).reasons)
    obstacles = [replay.unsupported_reason for replay, _ in epochs.replays]  # type: ignore[attr-defined]
    assert (capture.by == "a CUDA graph") == (obstacles == [None] * len(obstacles)) == (not capture.why)


@pytest.mark.parametrize("claim", ["fp32", "bf16"])
@pytest.mark.parametrize("settings", SETTINGS[:2])
def test_the_scratch_is_foretold(settings: dict[str, Any], claim: str) -> None:
    epochs = build(settings, n=48)
    kernels = epochs.step.net.kernels = CudaKernels(epochs.step.net.backend, EmulatedLauncher(precision=claim))
    epochs = CapturedEpoch(epochs.step, epochs.batches, None)
    epochs.run(0)
    made = sum(x.nbytes for x in kernels._buffers.values())
    made += sum(x.nbytes for of_loss in kernels._of_losses.values() for x in of_loss[::2])
    assert kernels.workspace_bytes(spec_of(epochs)) == WORKSPACE + made
    assert 0 < made < WORKSPACE


def test_what_is_left_to_maths_takes_more() -> None:
    fine, literal = build({}), build({"delta": "literal"})
    more = kernels_of(literal).workspace_bytes(spec_of(literal)), kernels_of(fine).workspace_bytes(spec_of(fine))
    assert more[0] > more[1]


# -- batches from the host -------------------------------------------------------------------------------------------


def test_a_streamed_epoch_is_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epochs_module, "SLICE_SECONDS", 1e9)  # a slice is an epoch, whatever else the machine is doing
    resident, other = build(SETTINGS[1]), build(SETTINGS[1])
    traced: list[int] = []
    trace = CudaKernels.trace
    monkeypatch.setattr(CudaKernels, "trace", lambda self, program: (traced.append(1), trace(self, program))[1])
    X, Y, weights = other.batches.rows
    streamed = CapturedEpoch(
        other.step, StreamedBatches(other.step.net, X, Y, weights, batch_size=16, shuffle=True, seed=1), None
    )
    for epoch in range(3):
        np.testing.assert_array_equal(streamed.run(epoch), resident.run(epoch))
    np.testing.assert_array_equal(other.step.net.params.theta, resident.step.net.params.theta)
    traced.clear()
    for epoch in range(3, 6):
        np.testing.assert_array_equal(streamed.run(epoch), resident.run(epoch))
    assert len(traced) == 2 * 3  # full batches and the tail, once in each epoch
