"""The probes find every loss of bits and every lost term, at every K, and never accuse an honest product."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.backends import Case, cases

from backprop_gpu.backends import get_backend
from backprop_gpu.backends.base import Backend
from backprop_gpu.backends.cpu.library import unavailable_reason
from backprop_gpu.backends.reference import ReferenceKernels
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.parity.findings import Finding
from backprop_gpu.parity.probes import UPLOADED, LayerShape, probe, shapes_of

Matmul = Callable[[np.ndarray, np.ndarray], np.ndarray]
TERMS = (32, 128, 512, 1024, 4096, 16384)
KERNELS = ("dense", "dense_vjp_input", "dense_vjp_params")


class Numpy:
    """NumPy with some functions in the place of its own."""

    def __init__(self, **own: Any) -> None:
        self.own = own

    def __getattr__(self, name: str) -> Any:
        return self.own[name] if name in self.own else getattr(np, name)


class OnlyIn(ReferenceKernels):
    """The reference, one of whose products is another."""

    def __init__(self, backend: Backend, kernel: str, matmul: Matmul) -> None:
        super().__init__(backend)
        self.kernel, self.other = kernel, ReferenceKernels(Backend("numpy", Numpy(matmul=matmul)))

    def __getattribute__(self, name: str) -> Any:
        if name in KERNELS and name == super().__getattribute__("kernel"):
            return getattr(super().__getattribute__("other"), name)
        return super().__getattribute__(name)


def kernels_with(matmul: Matmul) -> ReferenceKernels:
    return ReferenceKernels(Backend("numpy", Numpy(matmul=matmul)))


def asked(matmul: Matmul, shapes: Sequence[tuple[int, int, int]], dtype: str = "float32") -> list[Finding]:
    """The findings about products alone."""
    kernels = kernels_with(matmul)
    found = probe(kernels.backend, kernels, shapes, dtype)
    return [f for f in found if f.operation in ("probe one-hot", "probe accumulator")]


def wrong(findings: Sequence[Finding]) -> list[Finding]:
    return [f for f in findings if f.status == "wrong"]


def long_in_each(K: int) -> list[tuple[int, int, int]]:
    """Layers in which one product after another has sums of K terms."""
    return [(5, K, 6), (K, 5, 6), (5, 6, K)]


# -- honest products --------------------------------------------------------------------------------------------------


def sequential(a: np.ndarray, b: np.ndarray, order: slice = slice(None)) -> np.ndarray:
    """One term after the other."""
    total = np.zeros((a.shape[0], b.shape[1]), a.dtype)
    for column, row in zip(a.T[order], b[order], strict=True):
        total += column[:, None] * row
    return total


def split(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Four parts, added up pairwise."""
    parts = [x @ y for x, y in zip(np.array_split(a, 4, axis=1), np.array_split(b, 4, axis=0), strict=True)]
    return (parts[3] + parts[1]) + (parts[0] + parts[2])


HONEST: dict[str, Matmul] = {
    "blas": np.matmul,
    "sequential": sequential,
    "reversed": lambda a, b: sequential(a, b, slice(None, None, -1)),
    "split": split,
}


@pytest.mark.parametrize("K", TERMS)
@pytest.mark.parametrize("order", HONEST)
def test_no_order_of_summation_is_accused(order: str, K: int) -> None:
    found = asked(HONEST[order], long_in_each(K) if K <= 1024 or order in ("blas", "split") else [(3, K, 4)])
    assert len(found) >= 9
    assert max(f.k for f in found) == K
    assert all(f.ratio == 0.0 and f.status == "ok" for f in found), wrong(found)


@pytest.mark.parametrize("case", cases())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_kernel_sets_of_this_package_pass(case: Case, dtype: str) -> None:
    shapes = [(1, 1, 1), (4, 3, 2), (17, 31, 33), (2, 5, 1), (1, 2, 3), (64, 65, 63)]
    found = probe(case.backend, case.kernels(), shapes, dtype, seed=3)
    assert not wrong(found)
    assert {f.operation for f in found} == {
        f"probe {p}" for p in ("upload", "one-hot", "accumulator", "one term", "many terms", "subnormal", "philox")
    }
    assert len([f for f in found if f.operation == "probe one-hot"]) == 6 * len(shapes)


@pytest.mark.skipif(bool(unavailable_reason()), reason=unavailable_reason())
def test_native_kernels_pass() -> None:
    backend = get_backend("cpu")
    assert not wrong(probe(backend, backend.kernels("native"), [(17, 31, 33), (1, 2, 3)]))


# -- faulty products --------------------------------------------------------------------------------------------------


def to_bits(x: np.ndarray, bits: int) -> np.ndarray:
    """Rounded to so many bits of mantissa, the leading one among them."""
    drop = np.finfo(x.dtype).nmant + 1 - bits
    words = np.ascontiguousarray(x).view(f"i{x.dtype.itemsize}")
    to_even = (1 << (drop - 1)) - 1 + ((words >> drop) & 1)
    return ((words + to_even) >> drop << drop).view(x.dtype)


def rounded(bits: int, which: str = "both") -> Matmul:
    def matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a = to_bits(a, bits) if which in ("left", "both") else a
        b = to_bits(b, bits) if which in ("right", "both") else b
        return a @ b

    return matmul


def half_operands(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a.astype(np.float16).astype(a.dtype) @ b.astype(np.float16).astype(a.dtype)


def half_accumulator(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Exact products, added up in float16."""
    total = np.zeros((a.shape[0], b.shape[1]), np.float16)
    for column, row in zip(a.T, b, strict=True):
        total = (total + column[:, None] * row).astype(np.float16)
    return total.astype(a.dtype)


def chunked_half_accumulator(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """float16 within 32 terms, float32 between: one-hot rows of numbers that fit float16 would not show it."""
    chunks = range(0, a.shape[1], 32)
    return sum(half_accumulator(a[:, i : i + 32], b[i : i + 32]) for i in chunks)


def short_accumulator(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Full mantissas pass singly; sums keep 22 bits."""
    total = np.zeros((a.shape[0], b.shape[1]), a.dtype)
    for column, row in zip(a.T, b, strict=True):
        term = column[:, None] * row
        joined = (total != 0.0) & (term != 0.0)
        total = np.where(joined, to_bits(total + term, 22), total + term)
    return total


def last_term_dropped(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, :-1] @ b[:-1]


def terms_swapped(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, ::-1] @ b


FAULTS: dict[str, tuple[Matmul, str]] = {
    "tf32": (rounded(11), "11 of 24 bits are kept, as by tf32 or fp16"),
    "tf32-left": (rounded(11, "left"), "11 of 24 bits"),
    "tf32-right": (rounded(11, "right"), "11 of 24 bits"),
    "bf16": (rounded(8), "8 of 24 bits are kept, as by bf16"),
    "last-bit": (rounded(23), "of 24 bits are kept"),
    "fp16-operands": (half_operands, "11 of 24 bits"),
    "fp16-accumulator": (half_accumulator, "11 of 24 bits"),
    "fp16-chunks": (chunked_half_accumulator, "11 of 24 bits"),
    "short-accumulator": (short_accumulator, "a short accumulator"),
    "last-term": (last_term_dropped, "terms of the sum are left out"),
    "swapped": (terms_swapped, "entries differ"),
}


@pytest.mark.parametrize("K", TERMS)
@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_found_at_every_length(fault: str, K: int) -> None:
    matmul, cause = FAULTS[fault]
    loops = fault in ("fp16-accumulator", "fp16-chunks", "short-accumulator")
    shapes = [(3, K, 4)] if loops and K > 1024 else long_in_each(K)
    found = wrong(asked(matmul, shapes))
    about = [f for f in found if f.k == K]
    assert {f.tensor.partition(" ")[0].rstrip(",") for f in about} >= ({"dense"} if len(shapes) == 1 else set(KERNELS))
    assert all(f.ratio == math.inf and f.worst is not None and f.got != f.want for f in about)
    assert any(cause in f.cause for f in about), [f.cause for f in about]


@pytest.mark.parametrize("seed", range(6))
def test_the_last_bit_of_a_single_number_counts(seed: int) -> None:
    backend, kernels = both_of(rounded(23))
    one_hot = [f for f in probe(backend, kernels, [(1, 1, 1)], seed=seed) if f.operation == "probe one-hot"]
    assert [f.status for f in one_hot] == ["wrong"] * 6


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_faulty_kernel_is_named_and_no_other(kernel: str) -> None:
    backend = get_backend("cpu")
    found = wrong(probe(backend, OnlyIn(backend, kernel, rounded(11)), [(6, 40, 9)]))
    assert found
    assert {f.tensor.partition(" ")[0].rstrip(",") for f in found} == {kernel}


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_operand_that_loses_bits_is_named(side: str) -> None:
    found = wrong(asked(rounded(11, side), [(6, 40, 9)]))
    one_hot = [f for f in found if f.operation == "probe one-hot"]
    assert len(one_hot) == 3
    assert all(f"{side} operand" in f.tensor for f in one_hot)


def test_float32_arithmetic_under_float64_is_found() -> None:
    def single(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a.astype(np.float32) @ b.astype(np.float32)).astype(np.float64)

    causes = [f.cause for f in wrong(asked(single, [(6, 40, 9)], "float64"))]
    assert any("24 of 53 bits are kept, as by float32" in cause for cause in causes)


def test_a_fault_in_one_entry_of_a_large_product_is_found() -> None:
    def edge(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        product = a @ b
        if product.shape == (65, 64):
            product[64, 63] = 0.0
        return product

    found = wrong(asked(edge, [(65, 33, 64)]))
    assert {f.worst for f in found} == {(64, 63)}
    assert all("1 of 4,160 entries" in f.cause for f in found)


def test_the_seed_changes_the_questions_and_not_the_answers() -> None:
    backend = get_backend("cpu")
    kernels = kernels_with(rounded(11))
    first, again, other = (probe(backend, kernels, [(4, 20, 5)], seed=s) for s in (1, 1, 2))
    assert first == again
    assert [(f.got, f.want) for f in first] != [(f.got, f.want) for f in other]
    assert [f.status for f in first] == [f.status for f in other]


# -- transfers, subnormal numbers, random numbers ---------------------------------------------------------------------


class Meddling(Backend):
    """A device that changes what is uploaded."""

    def __init__(self, change: Callable[[np.ndarray], np.ndarray]) -> None:
        super().__init__("numpy", np)
        self.change = change

    def asarray(self, host: Any, dtype: str | None = None) -> np.ndarray:
        return self.change(super().asarray(host, dtype))


def flushed(x: np.ndarray) -> np.ndarray:
    """Subnormal numbers to zero."""
    if x.dtype.kind != "f":
        return x
    return np.where(np.abs(x) < np.finfo(x.dtype).smallest_normal, np.copysign(np.zeros_like(x), x), x)


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (lambda x: x, set()),
        (lambda x: x + 0 if x.dtype.kind == "f" else x, {"float16", "float32", "float64"}),  # -0.0 + 0 is 0.0
        (flushed, {"float16", "float32", "float64"}),
        (
            lambda x: np.nan_to_num(x, nan=0.0, posinf=np.inf, neginf=-np.inf) if x.dtype.kind == "f" else x,
            {"float16", "float32", "float64"},
        ),
        (lambda x: x.astype(np.int32).astype(x.dtype) if x.dtype == np.int64 else x, {"int64"}),
        (lambda x: x[::-1].copy() if x.dtype == bool else x, {"bool"}),
    ],
    ids=["nothing", "minus-zero", "subnormal", "nan", "int64", "bool"],
)
def test_an_upload_that_changes_a_bit_is_found(change: Callable[[np.ndarray], np.ndarray], seen: set[str]) -> None:
    backend = Meddling(change)
    with np.errstate(all="ignore"):
        found = probe(backend, ReferenceKernels(backend), [])
    uploads = [f for f in found if f.operation == "probe upload"]
    assert [f.tensor for f in uploads] == list(UPLOADED)
    assert {f.tensor for f in wrong(uploads)} == seen
    assert all("SHA-256" in f.cause for f in wrong(uploads))


def test_subnormal_numbers_that_are_flushed_are_a_warning() -> None:
    found = [f for f in probe(*both_of(lambda a, b: flushed(a @ b)), [(4, 5, 3)]) if f.operation == "probe subnormal"]
    assert [(f.tensor, f.status) for f in found] == [("dense, product", "warning"), ("dense, bias", "ok")]
    assert 0.0 < found[0].ratio < 1.0
    assert "flushed to zero" in found[0].cause


def test_subnormal_numbers_that_become_something_else_are_wrong() -> None:
    def shifted(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        product = a @ b
        return np.where((product != 0.0) & (np.abs(product) < 1e-37), product + np.float32(1e-30), product)

    found = [f for f in probe(*both_of(shifted), [(4, 5, 3)]) if f.operation == "probe subnormal"]
    assert found[0].status == "wrong"


def both_of(matmul: Matmul) -> tuple[Backend, ReferenceKernels]:
    kernels = kernels_with(matmul)
    return kernels.backend, kernels


def philox(backend: Backend, kernels: Any) -> dict[str, Finding]:
    return {f.tensor: f for f in probe(backend, kernels, []) if f.operation == "probe philox"}


def test_integers_that_wrap_too_early_are_found() -> None:
    class Short(Backend):
        def asarray(self, host: Any, dtype: str | None = None) -> np.ndarray:
            made = super().asarray(host, dtype)
            return made % 2**16 if dtype == "int64" and made.size == 1 and made.max() > 2**31 else made

    backend = Short("numpy", np)
    found = philox(backend, ReferenceKernels(backend))
    assert found["words"].status == "wrong"


@pytest.mark.parametrize("field", ["layer", "seed", "step", "first", "examples", "quads", "rate"])
def test_a_mask_that_is_drawn_from_something_else_is_found(field: str) -> None:
    class Other(ReferenceKernels):
        def mask(self, dropout: Any, n: int) -> Any:
            return super().mask(
                replace(
                    dropout, **{field: getattr(dropout, field) * 2 if field == "rate" else getattr(dropout, field) + 1}
                ),
                n,
            )

    backend = get_backend("cpu")
    found = philox(backend, Other(backend))
    assert found["dropout mask"].status == "wrong"
    assert found["words"].status == "ok"


# -- shapes -----------------------------------------------------------------------------------------------------------


def test_the_shapes_of_a_network_are_its_layers_without_repeats() -> None:
    net = DenseNet([7, 5, 5, 5, 2], loss="categorical_cross_entropy", device="cpu")
    assert shapes_of(net, 9) == (LayerShape(5, 7, 9), LayerShape(5, 5, 9), LayerShape(2, 5, 9))
    assert not wrong(probe(net.backend, net.kernels, shapes_of(net, 9)))
    assert "tolerance" not in inspect.signature(probe).parameters
