"""Numbers to ask a device with, and how what comes back is compared: bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .findings import Finding


def _bits(x: np.ndarray) -> np.ndarray:
    """The bytes of x as (size, itemsize), in the order of its entries."""
    return np.ascontiguousarray(x).reshape(-1).view(np.uint8).reshape(x.size, x.dtype.itemsize)


def bit_equal(
    operation: str, tensor: str, k: int, got: np.ndarray, want: np.ndarray, cause: Callable[[], str]
) -> Finding:
    """Equal bit for bit, or wrong; ``cause`` is asked only then."""
    if got.shape != want.shape or got.dtype != want.dtype:
        text = f"{got.dtype} {got.shape} came back for {want.dtype} {want.shape}"
        return Finding(operation, tensor, want.shape, k, math.inf, status="wrong", cause=text)
    differs = (_bits(got) != _bits(want)).any(axis=1)
    if not differs.any():
        return Finding(operation, tensor, want.shape, k, 0.0)
    with np.errstate(all="ignore"):
        gap = np.abs(got.astype(complex) - want.astype(complex)).reshape(-1)
    gap = np.where(np.isnan(gap), np.inf, gap)
    at = np.unravel_index(int(np.argmax(np.where(differs, gap, -1.0))), want.shape)
    worst = tuple(int(i) for i in at)
    text = f"{int(differs.sum()):,} of {want.size:,} entries differ; {cause()}"
    numbers = float(np.real(got[at])), float(np.real(want[at]))
    return Finding(operation, tensor, want.shape, k, math.inf, None, worst, *numbers, status="wrong", cause=text)


def full_mantissas(rng: np.random.Generator, shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """Numbers of either sign in [1, 2) that need every bit of the dtype: the last one is set in each."""
    last = np.finfo(dtype).nmant
    fraction = (rng.integers(0, 2**last, shape) | 1).astype(dtype) * dtype.type(2.0**-last)
    return (1 + fraction) * rng.choice(np.array([-1, 1], dtype), shape)


def _kept_bits(x: np.ndarray) -> int:
    """The bits of mantissa that any entry needs: those before the zeros at the end that all have in common."""
    words = np.bitwise_or.reduce(x[np.isfinite(x)].view(f"u{x.dtype.itemsize}"), axis=None)
    last = np.finfo(x.dtype).nmant
    common = int(words) & (2**last - 1) | 2**last
    return last + 1 - ((common & -common).bit_length() - 1)


def lost_bits(got: np.ndarray) -> str:
    """What the wrong copies look like."""
    all_bits = int(np.finfo(got.dtype).nmant) + 1
    kept = _kept_bits(got)
    if kept < all_bits:
        looks = {24: "float32", 11: "tf32 or fp16", 8: "bf16"}.get(kept)
        return f"{kept} of {all_bits} bits are kept" + (f", as by {looks}" if looks else "")
    zeros = int((got == 0.0).sum())
    return f"{zeros:,} are 0: terms of the sum are left out" if zeros else "terms are mixed up"
