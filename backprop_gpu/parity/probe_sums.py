"""Probes of sums that are no products: row sums (db, dgamma), the cost, the penalty, norms.

As with products, a bound for K terms hides a sum that is taken in tf32, bf16 or fp16 once K is long. Where one term
alone is not 0 the sum is a copy of it, bit for bit; where all terms are multiples of one unit and fit the accumulator,
every order gives the same bits. A root is given a few units in the last place: a device may scale before it squares.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .._typing import Array
from ..backends.base import Backend
from ..backends.protocol import Kernels
from ..maths.activations import get_activation
from ..maths.losses import get_loss
from .findings import Finding
from .probe_values import bit_equal, full_mantissas, lost_bits

ONE_TERM, MANY = "probe one term", "probe many terms"
LOSSES = ("binary_cross_entropy", "categorical_cross_entropy", "squared_error")
FAR = 128.0  # a logit so far off that exp(-FAR) is lost beside 1: the loss is FAR itself, and its derivative 1
ODD = 2731  # needs 12 bits, one more than tf32 and fp16 have; its square needs 23
SMALL, LARGE = 799, 399  # LARGE^2 + SMALL = 400^2
ULPS = 8

Total = Callable[[np.ndarray], np.ndarray | None]


def probe_sums(
    backend: Backend, kernels: Kernels, shapes: Sequence[tuple[int, int, int]], dtype: str, rng: np.random.Generator
) -> list[Finding]:
    """Ask for every sum of a training step that is no product, at the shapes (n, k, m) of layers."""
    found: list[Finding] = []
    summing = _Sums(backend, kernels, dtype)
    done: set[str] = set()
    for n, k, m in dict.fromkeys(shapes):
        asked: list[tuple[str, int, Total]] = [
            (f"db of dense_vjp_input {n}x{k}", m, lambda x, n=n, k=k: summing.below(x, n, k)),  # type: ignore[misc]
            ("dgamma", m, lambda x, n=n: summing.dgamma(x, n)),  # type: ignore[misc]
        ]
        for loss in LOSSES:
            asked += [
                (f"db of {loss}", m, lambda x, loss=loss: summing.output(loss, x)[0]),  # type: ignore[misc]
                (f"cost of {loss}", m, lambda x, loss=loss: summing.output(loss, x)[1]),  # type: ignore[misc]
            ]
        asked.append(("penalty of l1", n * k, summing.l1))
        for name, K, total in asked:
            if (title := f"{name}, {K} terms") not in done:
                done.add(title)
                found += _asked(title, K, total, np.dtype(dtype), rng)
    lengths = {SMALL + 1, *(n * k + n for n, k, _ in shapes)}
    for length in sorted(lengths):
        found += _norms(summing, length, rng)
    return found


def _asked(name: str, K: int, total: Total, dtype: np.dtype, rng: np.random.Generator) -> Iterator[Finding]:
    """One term that is not 0, first, last and between; then 1 and K - 1 times eps."""
    for at in dict.fromkeys((K - 1, 0, int(rng.integers(K)))):
        terms = np.zeros(K, dtype)
        terms[at] = abs(full_mantissas(rng, (1, 1), dtype)[0, 0])
        got = total(terms)
        if got is None:
            return
        want = np.full(got.shape, terms[at], dtype)
        finding = bit_equal(ONE_TERM, name, K, got, want, lambda got=got: lost_bits(got))  # type: ignore[misc]
        if finding.status != "ok":
            break
    yield finding
    eps = float(np.finfo(dtype).eps)
    terms = np.full(K, eps, dtype)
    terms[K // 2] = 1
    got = total(terms)
    if got is None:
        return
    want = np.full(got.shape, 1 + (K - 1) * eps, dtype)
    text = f"1 and {K - 1} times {eps:.3g} are added up: a short accumulator loses them"
    yield bit_equal(MANY, name, K, got, want, lambda: text)


class _Sums:
    """Each sum of a kernel set as a function of its terms (K,), which are positive."""

    def __init__(self, backend: Backend, kernels: Kernels, dtype: str) -> None:
        self.backend, self.kernels, self.dtype = backend, kernels, dtype
        self.identity = get_activation("identity")

    def up(self, x: Any) -> Array:
        return self.backend.asarray(x, self.dtype)

    def new(self, *shape: int) -> Array:
        return self.backend.zeros(shape, self.dtype)

    def host(self, x: Array) -> np.ndarray:
        return self.backend.to_host(x)

    def below(self, terms: np.ndarray, n: int, k: int) -> np.ndarray | None:
        """db (k, 1) of a layer whose dZ has these terms in every row: W has 1 in its first row, and 0 elsewhere.

        None if the product before it is wrong, which has probes of its own.
        """
        m, kernels = len(terms), self.kernels
        W, dZ = np.zeros((n, k)), np.zeros((n, m))
        W[0], dZ[0] = 1.0, terms
        A, saved, db = self.new(k, m), kernels.saved(k, n, m, self.dtype, self.identity, None), self.new(k, 1)
        kernels.dense(self.new(k, 1), self.new(1, m), self.new(k, 1), self.identity, None, A=A, saved=saved)
        out = {"dZ_prev": self.new(k, m), "db_prev": db}
        kernels.dense_vjp_input(
            self.up(W), self.up(dZ), self.identity, None, A, saved, scale=None, accumulate=False, **out
        )
        return self.host(db) if np.array_equal(self.host(out["dZ_prev"]), np.tile(terms, (k, 1))) else None

    def dgamma(self, terms: np.ndarray, n: int) -> np.ndarray:
        """dgamma (n, 1) of a normalized layer with X = 1 and dU these terms in every row."""
        m, dgamma = len(terms), self.new(n, 1)
        dU, X = self.up(np.tile(terms, (n, 1))), self.up(np.ones((n, m)))
        ones = self.up(np.ones((n, 1)))
        out = {"dZ": self.new(n, m), "dgamma": dgamma}
        self.kernels.batch_norm_vjp(dU, X, ones, ones, None, scale=None, accumulate=False, **out)
        return self.host(dgamma)

    def output(self, loss: str, terms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """db and the cost over its size for one example: terms are the weights of examples that are all far off."""
        m, of = len(terms), get_loss(loss)
        Z, Y, size = np.zeros((1, m)), np.zeros((1, m)), 1.0
        if loss == "categorical_cross_entropy":
            Z, Y = np.zeros((2, m)), np.ones((1, m))
        Z[0] = 2.0 if loss == "squared_error" else FAR
        size, slope = (2.0, 2.0) if loss == "squared_error" else (FAR, 1.0)
        labels = self.backend.asarray(Y, "int64" if of.labels == "classes" else self.dtype)
        db, value = self.new(len(Z), 1), self.new(1)
        self.kernels.output_delta(
            of,
            "fused",
            self.up(Z),
            labels,
            self.up(terms[None, :]),
            inverse_denominator=self.up(np.ones(1)),
            early=True,
            dZ=self.new(*Z.shape),
            db=db,
            value=value,
            accumulate=False,
        )
        kind = np.dtype(self.dtype).type
        return self.host(db)[:1] / kind(slope), self.host(value) / kind(size)

    def l1(self, terms: np.ndarray) -> np.ndarray:
        """The penalty |theta|_1."""
        value, strength = self.new(1), self.up(np.ones(1))
        self.kernels.penalty(self.up(terms), self.new(len(terms)), l1=strength, l2=None, value=value)
        return self.host(value)

    def l2(self, terms: np.ndarray) -> np.ndarray:
        """The penalty |theta|^2."""
        value, strength = self.new(1), self.up(np.full(1, 2.0))
        self.kernels.penalty(self.up(terms), self.new(len(terms)), l1=None, l2=strength, value=value)
        return self.host(value)

    def norm(self, terms: np.ndarray) -> np.ndarray:
        """|terms|_2, by ``global_norm``."""
        norm, factor = self.new(1), self.new(1)
        self.kernels.global_norm(self.up(terms), 1.0, norm=norm, factor=factor)
        return self.host(norm)


def _norms(summing: _Sums, length: int, rng: np.random.Generator) -> Iterator[Finding]:
    """3-4-5 times an odd number among zeros; then one large number and many small ones, whose squares give a square."""
    kind = np.dtype(summing.dtype)
    few = np.zeros(length, kind)
    few[rng.permutation(length)[:2]] = 3 * ODD, 4 * ODD
    square = np.zeros(length, kind)
    square[-1] = ODD
    many = np.zeros(length, kind)
    many[rng.permutation(length)[: SMALL + 1]] = 1
    if length > SMALL:
        many[np.flatnonzero(many)[SMALL // 2]] = LARGE
    for name, terms, total in (("global_norm", few, summing.norm), ("penalty of l2", square, summing.l2)):
        want = 5.0 * ODD if total == summing.norm else float(ODD) ** 2
        yield _near(ONE_TERM, f"{name}, {length} terms", length, total(terms), want, ULPS, "its operands are rounded")
    if length > SMALL:
        for name, total in (("global_norm", summing.norm), ("penalty of l2", summing.l2)):
            want = 400.0 if total == summing.norm else 400.0**2
            lost = "a short accumulator loses the small ones, or operands are rounded"
            yield _near(MANY, f"{name}, {length} terms", length, total(many), want, SMALL + ULPS, lost)


def _near(operation: str, name: str, k: int, got: np.ndarray, want: float, ulps: int, cause: str) -> Finding:
    """Within so many roundings: the zeros add none."""
    u = float(np.finfo(got.dtype).eps) / 2.0
    off = abs(float(got[0]) - want) / (ulps * u * want)
    finding = Finding(operation, name, (1,), k, off if off == off else math.inf, None, (0,), float(got[0]), want)
    if finding.ratio <= 1.0:
        return finding
    return replace(finding, status="wrong", cause=f"{float(got[0])!r} for {want!r}: {cause}")
