"""Probes of a device that have no tolerance: each has one right answer, to the bit, whatever the order of summation.

A bound for K terms grows with K, so that a product which silently rounds its operands to tf32 passes it from K = 1024
on. What is asked here has no rounding at all in honest arithmetic: copies, sums with one term that is not zero, sums of
multiples of one unit that fit the accumulator, numbers of a counter-based generator.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .._typing import Array
from ..backends.base import Backend
from ..backends.protocol import Dropout, Kernels
from ..maths.activations import get_activation
from ..maths.random import philox_words
from .findings import Finding
from .probe_sums import probe_sums
from .probe_values import bit_equal, full_mantissas, lost_bits

if TYPE_CHECKING:
    from ..network.dense_net import DenseNet

PASSES = 4  # products per one-hot probe: enough to reach every term where K <= 4 N, the first and the last always
UPLOADED = ("bool", "uint8", "int32", "int64", "float16", "float32", "float64", "complex64", "complex128")

# kat_vectors of the Random123 distribution, philox4x32 with 10 rounds: counter, key, words.
KNOWN_ANSWERS = (
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
)


class LayerShape(NamedTuple):
    """A layer of n units on k inputs and m examples: W (n, k), A_prev (k, m), dZ (n, m)."""

    n: int
    k: int
    m: int


def shapes_of(net: DenseNet, m: int) -> tuple[LayerShape, ...]:
    """The distinct layer shapes of a network on m examples, in the order of its layers."""
    return tuple(dict.fromkeys(LayerShape(n, k, m) for k, n in zip(net.widths, net.widths[1:], strict=False)))


def probe(
    backend: Backend,
    kernels: Kernels,
    shapes: Sequence[tuple[int, int, int]],
    dtype: str = "float32",
    seed: int = 0,
) -> list[Finding]:
    """Ask a device questions with one right answer.

    Parameters
    ----------
    backend, kernels : the device and the kernel set on it that a model uses
    shapes : sequence of (n, k, m)
        See :func:`shapes_of`. Every product of a training step is asked at each of them: ``dense`` (sums of k terms),
        ``dense_vjp_input`` (n) and ``dense_vjp_params`` (m).
    dtype : {"float32", "float64"}, default "float32"
    seed : int, default 0
        Of the numbers that are sent.

    Returns
    -------
    list of Finding
        ``probe upload``: bytes that come back as they went up. ``probe one-hot``: one-hot rows times full mantissas,
        either operand. ``probe accumulator``: 1 + (K - 1) eps, exact in any order. ``probe one term``, ``probe many
        terms``: the same of row sums, costs, penalties and norms. ``probe subnormal``: a warning
        where they are flushed to zero. ``probe philox``: published answers, and a dropout mask of the kernels.
        All but the warning have ratio 0 or infinity.
    """
    rng = np.random.default_rng(seed)
    with backend.activate():
        found = [_upload(backend, name, rng) for name in UPLOADED if hasattr(backend.xp, name)]
        for shape in shapes:
            for product in _products(backend, kernels, LayerShape(*shape), dtype):
                found += [_one_hot(product, side, rng) for side in ("left", "right")]
                found.append(_accumulator(product))
        found += probe_sums(backend, kernels, shapes, dtype, rng) if shapes else []
        if shapes:
            found += _subnormals(backend, kernels, LayerShape(*shapes[0]), dtype, rng)
        found += [_published_words(backend), _mask(backend, kernels, dtype, rng)]
    return found


# -- (a) transfers ----------------------------------------------------------------------------------------------------


def _values(name: str, rng: np.random.Generator) -> np.ndarray:
    """Every kind of number that a dtype has: random bits, and for floats NaN, infinities, both zeros, subnormals."""
    dtype = np.dtype(name)
    if name == "bool":
        return rng.integers(0, 2, 509).astype(bool)
    x = np.frombuffer(rng.bytes(509 * dtype.itemsize), dtype).copy()
    if dtype.kind not in "fc":
        return x
    parts = x.view(x.real.dtype)
    parts[np.isnan(parts)] = np.nan  # whether a payload survives is left open by IEEE 754
    info = np.finfo(dtype)
    tiny = info.smallest_subnormal
    special = [0.0, -0.0, np.nan, np.inf, -np.inf, tiny, -tiny, info.smallest_normal - tiny, info.max, -info.max]
    parts[: len(special)] = special
    return x


def _upload(backend: Backend, name: str, rng: np.random.Generator) -> Finding:
    want = _values(name, rng)
    got = backend.to_host(backend.asarray(want, name))
    sums = [hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest() for x in (want, got)]
    message = f"SHA-256 {sums[0][:16]} went up and {sums[1][:16]} came down"
    return bit_equal("probe upload", name, 1, got, want, lambda: message)


# -- (b), (c) products ------------------------------------------------------------------------------------------------


class _Product(NamedTuple):
    """One product of a step as left (M, K) times right (K, N), computed by a kernel and copied to the host."""

    name: str
    shape: tuple[int, int, int]
    dtype: np.dtype
    multiply: Callable[[np.ndarray, np.ndarray], np.ndarray]


def _products(backend: Backend, kernels: Kernels, shape: LayerShape, dtype: str) -> Iterator[_Product]:
    n, k, m = shape
    identity = get_activation("identity")

    def up(x: np.ndarray) -> Array:
        return backend.asarray(x, dtype)

    def new(*size: int) -> Array:
        return backend.zeros(size, dtype)

    def forward(W: np.ndarray, A_prev: np.ndarray) -> np.ndarray:
        A, saved = new(n, m), kernels.saved(n, k, m, dtype, identity, None)
        kernels.dense(up(W), up(A_prev), new(n, 1), identity, None, A=A, saved=saved)
        return backend.to_host(A)

    def vjp_input(W_T: np.ndarray, dZ: np.ndarray) -> np.ndarray:
        A_prev, saved, out, db = new(k, m), kernels.saved(k, n, m, dtype, identity, None), new(k, m), new(k, 1)
        kernels.dense(new(k, 1), new(1, m), new(k, 1), identity, None, A=A_prev, saved=saved)
        kernels.dense_vjp_input(
            up(W_T.T), up(dZ), identity, None, A_prev, saved, scale=None, dZ_prev=out, db_prev=db, accumulate=False
        )
        return backend.to_host(out)

    def vjp_params(dZ: np.ndarray, A_prev_T: np.ndarray) -> np.ndarray:
        dW = new(n, k)
        kernels.dense_vjp_params(up(dZ), up(A_prev_T.T), scale=None, dW=dW, accumulate=False)
        return backend.to_host(dW)

    kind = np.dtype(dtype)
    yield _Product("dense", (n, k, m), kind, forward)
    yield _Product("dense_vjp_input", (k, n, m), kind, vjp_input)
    yield _Product("dense_vjp_params", (n, m, k), kind, vjp_params)


def _picked(rng: np.random.Generator, K: int, count: int) -> Iterator[np.ndarray]:
    """Which term each row picks, pass by pass: the last and the first term first, then the others in random order."""
    order = np.array([K - 1, 0][:K], np.int64)
    order = np.concatenate([order, 1 + rng.permutation(K - 2)]) if K > 2 else order
    for start in range(0, min(K, PASSES * count), count):
        yield np.resize(order[start : start + count], count)


def _one_hot(product: _Product, side: str, rng: np.random.Generator) -> Finding:
    """One operand (``side``) picks one term of each sum; the other must come through bit for bit."""
    M, K, N = product.shape
    full = full_mantissas(rng, (K, N) if side == "left" else (M, K), product.dtype)
    for picked in _picked(rng, K, M if side == "left" else N):
        hot = np.zeros((len(picked), K), product.dtype)
        hot[np.arange(len(picked)), picked] = 1
        got = product.multiply(hot, full) if side == "left" else product.multiply(full, hot.T)
        want = full[picked] if side == "left" else full[:, picked]
        tensor = f"{product.name} {'right' if side == 'left' else 'left'} operand, {M}x{K}x{N}"
        finding = bit_equal("probe one-hot", tensor, K, got, want, lambda got=got: lost_bits(got))  # type: ignore[misc]
        if finding.status != "ok":
            break
    return finding


def _accumulator(product: _Product) -> Finding:
    """1 + (K - 1) eps: multiples of eps below 2, so that every partial sum, in any order, fits the mantissa."""
    M, K, N = product.shape
    eps = float(np.finfo(product.dtype).eps)
    left = np.full((M, K), eps, product.dtype)
    left[np.arange(M), np.arange(M) % K] = 1
    want = np.full((M, N), 1 + (K - 1) * eps, product.dtype)
    got = product.multiply(left, np.ones((K, N), product.dtype))
    terms = f"1 and {K - 1} times {eps:.3g} are added up"
    return bit_equal(
        "probe accumulator", f"{product.name}, {M}x{K}x{N}", K, got, want, lambda: f"{terms}; {_short(got)}"
    )


def _short(got: np.ndarray) -> str:
    missing = float(np.max(np.abs(got)))
    return f"a short accumulator loses them: the largest sum is {missing!r}"


# -- (d) subnormal numbers --------------------------------------------------------------------------------------------


def _subnormals(
    backend: Backend, kernels: Kernels, shape: LayerShape, dtype: str, rng: np.random.Generator
) -> Iterator[Finding]:
    """A product and a bias that are subnormal; flushed to 0 they differ by less than the bounds' eta, so: a warning."""
    kind, (n, k, m) = np.dtype(dtype), shape
    info = np.finfo(kind)
    identity, zeros = get_activation("identity"), np.zeros

    def values(*size: int) -> np.ndarray:
        return (rng.integers(1, 2**info.nmant, size) * float(info.smallest_subnormal)).astype(kind)

    hot = zeros((k, m), kind)
    picked = np.arange(m) % k
    hot[picked, np.arange(m)] = 1
    W, b = values(n, k), values(n, 1)
    asked = {
        "product": (W, hot, zeros((n, 1), kind), W[:, picked]),
        "bias": (zeros((n, k), kind), hot, b, np.broadcast_to(b, (n, m))),
    }
    for tensor, (W, A_prev, b, want) in asked.items():
        A, saved = backend.zeros((n, m), dtype), kernels.saved(n, k, m, dtype, identity, None)
        W, A_prev, b = (backend.asarray(x, dtype) for x in (W, A_prev, b))
        kernels.dense(W, A_prev, b, identity, None, A=A, saved=saved)
        got = backend.to_host(A)
        finding = bit_equal(
            "probe subnormal", f"dense, {tensor}", 1, got, want, lambda: "subnormal numbers do not pass"
        )
        off = float(np.max(np.abs(got.astype(np.float64) - want))) / float(info.smallest_normal)
        if finding.status != "ok" and off < 1.0:
            cause = f"subnormal numbers are flushed to zero: {finding.want:.3g} became {finding.got:.3g}"
            head = ("probe subnormal", finding.tensor, finding.shape, 1, off, None, finding.worst)
            finding = Finding(*head, finding.got, finding.want, "warning", cause)
        yield finding


# -- (e) random numbers -----------------------------------------------------------------------------------------------


def _philox(seed: int, counter: Sequence[int]) -> tuple[int, ...]:
    """Philox-4x32-10 in unbounded integers (Salmon et al. 2011, section 3.3), apart from ``maths.random``."""
    k0, k1 = seed % 2**32, seed >> 32
    x0, x1, x2, x3 = (c % 2**32 for c in counter)
    for _ in range(10):
        p0, p1 = 0xD2511F53 * x0, 0xCD9E8D57 * x2
        x0, x1, x2, x3 = (p1 >> 32) ^ x1 ^ k0, p1 % 2**32, (p0 >> 32) ^ x3 ^ k1, p0 % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return x0, x1, x2, x3


def _published_words(backend: Backend) -> Finding:
    """The published vectors, computed by the device's namespace."""
    want = np.array([words for _, _, words in KNOWN_ANSWERS], np.int64)
    got = []
    for counter, key, _ in KNOWN_ANSWERS:
        columns = [backend.asarray([c], "int64") for c in counter]
        words = philox_words(backend.xp, key[0] + (key[1] << 32), columns)
        got.append([int(backend.to_host(w)[0]) for w in words])
    return bit_equal("probe philox", "words", 1, np.array(got, np.int64), want, lambda: "64-bit integers go wrong")


def _mask(backend: Backend, kernels: Kernels, dtype: str, rng: np.random.Generator) -> Finding:
    """A dropout mask of the kernels: W = 0 and b = 1, so that what is not dropped is not 0."""
    n, m, rate, layer, step, first = 37, 5, 0.375, 3, 2**31 + 11, 2**32 - 3
    seed = int(rng.integers(0, 2**63)) * 2 + 1
    want = np.empty((n, m), bool)
    for u in range(n):
        for e in range(m):
            want[u, e] = _philox(seed, (u // 4, first + e, layer, step))[u % 4] < (1.0 - rate) * 2**32
    up, identity = backend.asarray, get_activation("identity")
    dropout = Dropout(
        rate,
        seed,
        layer,
        quads=up(np.arange(math.ceil(n / 4))[:, None], "int64"),
        examples=up(np.arange(m)[None, :], "int64"),
        step=up([step], "int64"),
        first=up([first], "int64"),
    )
    A, saved = backend.zeros((n, m), dtype), kernels.saved(n, n, m, dtype, identity, dropout)
    W, A_prev, b = backend.zeros((n, 1), dtype), backend.zeros((1, m), dtype), up(np.ones((n, 1)), dtype)
    kernels.dense(W, A_prev, b, identity, dropout, A=A, saved=saved)
    comparison = backend.to_host(A) != 0.0
    return bit_equal(
        "probe philox", "dropout mask", 1, comparison, want, lambda: "the kernels draw other masks than the host"
    )
