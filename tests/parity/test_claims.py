"""A claim of precision is verified: what rounds its operands to tf32 or bf16 is not float32, however long the sums."""

from __future__ import annotations

import numpy as np
import pytest
from parity.faults import rounded_to
from support.orders import HalfKernels, With, with_product

from backprop_gpu.backends import Backend
from backprop_gpu.errors import ConfigError
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.parity.checking import check
from backprop_gpu.parity.claims import CLAIMS, ULPS, bounds_of, claim_of
from backprop_gpu.parity.report import Report

BITS = {"tf32": 10, "bf16": 7}
TERMS = (32, 128, 512, 1024, 4096, 16384)
# Where the long sum is: in the forward product, in the input gradient, in the weights' gradient.
PLACES = ("dense", "dense_vjp_input", "dense_vjp_params")


def rounding(claim: str) -> Backend:
    """NumPy whose products round their operands as the claim says."""
    bits = BITS[claim]

    def product(P: np.ndarray, Q: np.ndarray) -> np.ndarray:
        return rounded_to(P, bits) @ rounded_to(Q, bits)

    return with_product(product)


def judged(
    device: Backend | str, place: str, K: int, claim: str, activation: str = "tanh", kernels: str = "reference"
) -> Report:
    sizes, m = {"dense": ([K, 4, 3], 5), "dense_vjp_input": ([3, 4, K], 5), "dense_vjp_params": ([3, 4, 2], K)}[place]
    net = DenseNet(sizes, activation=activation, loss="squared_error", device=device, kernels=kernels, seed=K)
    rng = np.random.default_rng(K)
    X, y = rng.standard_normal((m, sizes[0])), rng.standard_normal((m, sizes[-1]))
    return check(net, X, y, claim=claim, optimizer="sgd")


@pytest.mark.parametrize("K", TERMS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("claim", BITS)
def test_lower_precision_passes_only_where_it_is_declared(claim: str, place: str, K: int) -> None:
    undeclared = judged(rounding(claim), place, K, "fp32")
    assert not undeclared.ok, f"{claim} operands pass for float32 at K = {K}"
    declared = judged(rounding(claim), place, K, claim)
    assert declared.ok, declared.summary()
    assert judged("numpy", place, K, "fp32").ok


@pytest.mark.parametrize("place", PLACES)
def test_at_long_sums_it_is_the_probe_that_sees_it(place: str) -> None:
    """The worst case of 16,384 roundings is wider than one rounding of each operand."""
    report = judged(rounding("tf32"), place, 16384, "fp32")
    wrong = [f for f in report.findings if f.status == "wrong" and f.k == 16384]
    assert {f.operation for f in wrong} == {"probe one-hot"}
    assert any(place in f.tensor for f in wrong)


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "sigmoid"])
@pytest.mark.parametrize("kernels", ["native", "reference"])
@pytest.mark.parametrize("place", PLACES)
def test_an_honest_device_is_not_probed_where_its_rms_speaks_for_it(place: str, kernels: str, activation: str) -> None:
    """A probe costs more than the step."""
    for K in (512, 16384):
        report = judged("numpy", place, K, "fp32", activation, kernels)
        assert not [f for f in report.findings if f.operation.startswith("probe")]


def test_the_rms_warns_where_the_bound_is_blind() -> None:
    found = {f.tensor: f for f in judged(rounding("tf32"), "dense", 16384, "fp32").findings}
    assert found["Z1"].ratio <= 1.0
    assert found["Z1"].status == "warning"
    assert found["Z1"].rms is not None
    assert found["Z1"].rms > 50


def test_the_cause_names_the_precision() -> None:
    for claim, word in (("tf32", "tf32"), ("bf16", "bf16")):
        first = judged(rounding(claim), "dense", 128, "fp32").first
        assert first is not None
        assert first.tensor == "Z1"
        assert word in first.cause


def test_bf16_does_not_pass_for_tf32() -> None:
    assert not judged(rounding("bf16"), "dense", 64, "tf32").ok


def test_fp16_layers_pass_as_fp16_alone() -> None:
    half = With(HalfKernels)
    assert judged(half, "dense", 64, "fp16").ok
    for claim in ("fp32", "tf32"):
        assert not judged(half, "dense", 64, claim).ok


def test_float32_products_in_a_float64_network_are_found() -> None:
    def product(P: np.ndarray, Q: np.ndarray) -> np.ndarray:
        return (P.astype(np.float32) @ Q.astype(np.float32)).astype(P.dtype)

    X, y = np.random.default_rng(0).standard_normal((6, 30)), np.ones((6, 2))
    net = DenseNet([30, 5, 2], loss="squared_error", dtype="float64", device=with_product(product))
    report = check(net, X, y, dtype="float64")
    assert report.about["claim"] == "fp64"
    assert report.first is not None
    assert report.first.tensor == "Z1"


def test_claims_and_dtypes_must_fit() -> None:
    assert claim_of("float32") == "fp32"
    assert claim_of("float64") == "fp64"
    with pytest.raises(ConfigError, match="did you mean 'tf32'"):
        claim_of("float32", "tf23")
    with pytest.raises(ConfigError, match="float64 arrays"):
        claim_of("float32", "fp64")


@pytest.mark.parametrize("kind", ULPS)
@pytest.mark.parametrize("claim", CLAIMS)
def test_master_weights_stay_float32(claim: str, kind: str) -> None:
    layers, master = bounds_of(kind, claim), bounds_of(kind, claim, master=True)
    assert layers.u == CLAIMS[claim].u
    assert layers.u_in == CLAIMS[claim].u_in
    assert master.u == (2.0**-53 if claim == "fp64" else 2.0**-24)
    assert master.u_in == 0.0
