"""``check_step`` of long products: a silent tf32 is named although every entry is within its bound."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from parity.faults import rounded_to
from support.orders import ORDERS, with_product

from backprop_gpu.parity import check_step


def cut_to(x: np.ndarray, bits: int) -> np.ndarray:
    unit = np.ldexp(1.0, np.frexp(x)[1] - 1 - bits)
    return (np.trunc(x / unit) * unit).astype(x.dtype)


def product(xp: Any, a: Any, b: Any) -> Any:
    return xp.matmul(a, b)


def layer(xp: Any, a: Any, b: Any) -> Any:
    return {"h": xp.tanh(0.02 * (a @ b)), "J": xp.sum(xp.maximum(a @ b, 0.0)) / 50.0}


LOWER = {
    "tf32": (lambda P, Q: rounded_to(P, 10) @ rounded_to(Q, 10), "rounded to 11 bits, as by tf32 or fp16"),
    "tf32, cut": (lambda P, Q: cut_to(P, 10) @ cut_to(Q, 10), "cut to 11 bits, as by tf32 or fp16"),
    "bf16": (lambda P, Q: rounded_to(P, 7) @ rounded_to(Q, 7), "rounded to 8 bits, as by bf16"),
    "one operand": (lambda P, Q: rounded_to(P, 10) @ Q, "rounded to 11 bits, as by tf32 or fp16"),
}


def operands(k: int, n: int = 12, m: int = 11) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(k)
    return rng.standard_normal((n, k)), rng.standard_normal((k, m))


@pytest.mark.parametrize("k", [1024, 4096, 20_000])
@pytest.mark.parametrize("name", LOWER)
def test_lower_precision_is_named(name: str, k: int) -> None:
    matmul, said = LOWER[name]
    found = check_step(product, *operands(k), devices=[with_product(matmul)])
    assert found.first is not None
    assert said in found.first.cause


def test_it_is_seen_behind_other_operations() -> None:
    class Operators(np.ndarray):
        """Whose operator is the product of the device."""

        def __matmul__(self, other: Any) -> Any:
            return LOWER["tf32"][0](np.asarray(self), np.asarray(other))

    device = with_product(np.matmul)
    device.asarray = lambda host, dtype=None: np.array(host, dtype).view(Operators)  # type: ignore[method-assign]
    report = check_step(layer, *operands(4096), devices=[device])
    assert {f.tensor: f.status for f in report}["h on numpy"] == "wrong"


@pytest.mark.parametrize("order", ORDERS)
def test_honest_products_are_never_accused(order: str) -> None:
    for k, n, m in ((256, 12, 11), (2048, 12, 11), (4096, 1, 1), (1000, 1, 3)):
        for fn in (product, layer):
            assert check_step(fn, *operands(k, n, m), devices=[with_product(ORDERS[order])]).ok


def test_a_claim_of_tf32_is_kept() -> None:
    matmul, _ = LOWER["tf32"]
    assert check_step(product, *operands(4096), devices=[with_product(matmul)], claim="tf32").ok
