"""The translator against numba: the same bits, and nothing that it does not know passes it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba", reason="numba is not installed; pip install 'backprop-gpu[fast]'")
compiler = pytest.importorskip("backprop_gpu.backends.host.compiled.compiler")
numbas = pytest.importorskip("backprop_gpu.backends.host.compiled.numbas")
native = pytest.importorskip("backprop_gpu.backends.host.compiled.native")
calling = pytest.importorskip("backprop_gpu.backends.host.compiled.calling")
parts = pytest.importorskip("backprop_gpu.backends.host.compiled.parts")
translator = pytest.importorskip("backprop_gpu.backends.host.compiled.translator")
functions = pytest.importorskip("backprop_gpu.backends.host.compiled.functions")
norms = pytest.importorskip("backprop_gpu.backends.host.compiled.norms")
updates = pytest.importorskip("backprop_gpu.backends.host.compiled.updates")
dropout = pytest.importorskip("backprop_gpu.backends.host.compiled.dropout")
kept = pytest.importorskip("support.compiled")

integers, singles, doubles = calling.integers, calling.REALS["float32"].floats, calling.REALS["float64"].floats
inline, array = parts.inline, calling.array
FACTS = (np.float32(0.1), np.float32(-2.0), np.float32(3.0))


def made(way: Any, name: str, count: int, function: Any) -> Callable[..., None]:
    """Compiled by the translator or by numba; nothing is kept."""
    assert way is numbas or compiler._translated(count, function) is not None
    code, alone = way.object_code(f"test_{way.__name__.rpartition('.')[2]}_{name}", count, function)
    assert alone
    address = native._load(f"test_{way.__name__.rpartition('.')[2]}_{name}", code)
    return ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * count)(address)


def test_every_kernel_is_translated_and_in_order() -> None:
    found = list(kept.all_kernels())
    assert len({kernel.name for kernel in found}) == len(found) > 150
    for kernel in found:
        text = translator.translate(kernel._argument_count, kernel._factory())
        assert compiler.parsed(text).get_function("kernel").name == "kernel", kernel.name


@inline
def first_beyond(x: Any, n: Any, limit: Any) -> Any:
    """Returns from several places."""
    i = 0
    while True:
        if i == n:
            return -1
        if x[i] <= limit:
            i += 1
            continue
        return i


@inline
def both(x: Any, y: Any) -> Any:
    return x + y, x * y


def of_integers(numbers: Any, n: Any, out: Any) -> None:
    a, o = integers(numbers, n), integers(out, 16)
    small, bytes_ = array(numbers, 2 * n, np.uint32), array(numbers, 8 * n, np.uint8)
    for i in range(n):
        x, y = a[i], a[(i + 1) % n]
        total, product = both(x, y)
        o[0] ^= total ^ product
        o[1] += x % y if y != 0 else 17
        o[2] ^= (x << (i & 7)) - (y >> 3) | (x & ~0 if False else y)
        if (x < y and x != 0) or not y > 5:
            o[3] += 1
        elif x == y:
            o[3] += 100
        else:
            o[3] -= 3
        u, v = np.uint64(x), np.uint64(y)
        o[4] ^= np.int64((u * v) >> np.uint64(7) ^ (u & v | u))
        o[5] += np.int64(np.uint32(u)) + np.int64(np.int32(x)) + np.int64(np.uint8(v))
        o[6] += np.int64(u < v) + 2 * np.int64(small[i] < small[i + 1])
        o[7] += bytes_[i] * (1 if x else -1)
        o[8] = i
    o[9] = first_beyond(a, n, 100)
    o[10] = first_beyond(a, n, 1 << 62)
    for i in range(n):
        if i == 3:
            break
        for j in range(i, n):
            if a[j] < 0:
                continue
            o[11] += j
    for _ in range(7):
        o[12] = o[12] * 3 + 1
    trans, ld = (111, n) if a[0] else (112, 5)
    o[13], o[14] = trans, ld
    bytes_[0] = np.uint8(o[1])


def test_integers_are_numbas() -> None:
    rng = np.random.default_rng(0)
    for numbers in (rng.integers(-50, 50, 40), rng.integers(-(2**62), 2**62, 33), np.arange(-3, 6)):
        found = []
        for way in (compiler, numbas):
            x, out = numbers.astype(np.int64), np.zeros(16, np.int64)
            FIND[way](x.ctypes.data, x.size, out.ctypes.data)
            found.append(out.tobytes() + x.tobytes())
        assert found[0] == found[1]


FIND: dict[Any, Callable[..., None]] = {}


@pytest.fixture(autouse=True, scope="module")
def _compiled() -> None:
    for way in (compiler, numbas):
        FIND[way] = made(way, "integers", 3, of_integers)


def of_reals(x: Any, y: Any, n: Any, out: Any, wide: Any) -> None:
    a, b, o, w = singles(x, n), doubles(y, n), singles(out, 8 * n), doubles(wide, 8 * n)
    total, mixed = np.float32(0.0), 0.5
    for i in range(n):
        total += a[i]
        mixed = mixed * 0.25 + a[i] * b[i] + i
        o[i] = a[i] if a[i] > np.float32(0.0) else -a[i]
        o[n + i] = np.sqrt(abs(a[i])) / FACTS[0] + np.floor(a[i] * np.float32(7.0))
        o[2 * n + i] = b[i]
        o[3 * n + i] = np.float32(i) * FACTS[1] - np.float32(np.int32(a[i] * np.float32(100.0)))
        o[4 * n + i] = calling.float_of_bits(np.int32(calling.bits_of_float(a[i]) ^ 1))
        w[i] = b[i] / (b[i] - b[i]) if i & 1 else np.floor(b[i]) - i
        w[n + i] = 1.0 if a[i] != a[i] else (2.0 if a[i] == b[i] else (3.0 if a[i] >= b[i] else 4.0))
        w[2 * n + i] = np.float64(total)
        w[3 * n + i] = mixed
        same = a[i] == a[i] and b[i] < 1.0
        w[4 * n + i] = 1.0 if same or a[i] <= np.float32(0.5) else 0.0
        s = np.float32(1.0)
        for k in range(1, len(FACTS)):
            s = s * a[i] + FACTS[k]
        o[5 * n + i] = s


FEW, MANY, SMALL = np.int32(2**30), np.uint32(2**31), np.uint8(200)


def of_constants(numbers: Any, n: Any, out: Any, wide: Any) -> None:
    """What NumPy would make of its scalars in their own types."""
    a, o, w = integers(numbers, n), integers(out, 8), doubles(wide, 4)
    o[0] = a[1] + FEW * 4
    o[1] = a[1] + (FEW << 3)
    o[2] = np.int64(MANY << 1) + np.int64(SMALL + SMALL)
    x = np.float32(a[1])
    w[0] = x * (FACTS[0] + 1)
    w[1] = (FACTS[0] * 3 - 1) / x
    w[2] = x if FACTS[0] == 0.1 else -x
    w[3] = array(numbers, 8 * n, np.uint8)[8] / x + (x < FACTS[0]) * FACTS[0] + FACTS[0]


def of_edges(numbers: Any, n: Any, out: Any, wide: Any) -> None:
    """Remainders that a processor refuses to make, and a sign that is pushed into an unsigned number."""
    a, o = integers(numbers, n), integers(out, 8)
    small = array(numbers, 2 * n, np.uint32)
    o[0] = a[1] % a[0]
    o[1] = a[2] % a[3]
    o[2] = np.int64(np.uint64(a[1]) % np.uint64(a[0]))
    o[3] = np.int64((small[6] << 32) >> 8)
    o[4] = 1 if (small[6] << 32) > (small[2] << 1) else 2


@pytest.mark.parametrize("function", [of_constants, of_edges], ids=lambda f: f.__name__)
def test_constants_and_edges_are_numbas(function: Any) -> None:
    found = []
    for way in (compiler, numbas):
        x, out, wide = np.array([0, 5, -(2**63), -1]), np.zeros(8, np.int64), np.zeros(4)
        code = made(way, function.__name__, 4, function)
        code(x.ctypes.data, x.size, out.ctypes.data, wide.ctypes.data)
        found.append((out.tolist(), wide.tolist()))
    assert found[0] == found[1]


def test_reals_are_numbas() -> None:
    rng, n = np.random.default_rng(1), 61
    x, y = rng.standard_normal(n).astype(np.float32), rng.standard_normal(n)
    x[:4] = np.inf, -np.inf, np.nan, 0.0
    x[:4] = (0.0, -0.0, 1e-30, 3.5)
    y[4:8] = np.inf, -np.inf, np.nan, -0.0
    found = []
    for way in (compiler, numbas):
        out, wide = np.zeros(8 * n, np.float32), np.zeros(8 * n)
        made(way, "reals", 5, of_reals)(*(z.ctypes.data for z in (x, y)), n, out.ctypes.data, wide.ctypes.data)
        found.append((out, wide))
    for ours, theirs in zip(*found, strict=True):
        nan = np.isnan(theirs)
        np.testing.assert_array_equal(np.isnan(ours), nan)
        assert ours[~nan].tobytes() == theirs[~nan].tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_have_numbas_bits(dtype: str) -> None:
    """One of each kind: transcendental functions, sums, a rule of updates, random words."""
    rng, n, m = np.random.default_rng(2), 5, 37

    def arrays(*shapes: tuple[int, ...]) -> list[np.ndarray]:
        return [np.abs(rng.standard_normal(shape)).astype(dtype) for shape in shapes]

    def rows() -> dict[Any, tuple[list[np.ndarray], list[int]]]:
        key, step, words = np.array([11, 12, 3, 2**31]), np.array([5]), np.zeros(4 * m, np.uint32)
        return {
            norms.inference(dtype, "gelu", keeps=True): (
                arrays((n, m), (n,), (n,), (n,), (n,), (n, m)),
                [n, m, *arrays((1,), (n, m))],
            ),
            norms.batch_norm(dtype, "tanh", keeps=False): (
                arrays((n, m), (n,), (n,), (m,), (n,), (n,), (n, m), (n, m), (n,)),
                [n, m, *arrays((m,)), 0, 0],
            ),
            updates.update(dtype, "adam"): (arrays((m,), (m,), (m,), (m,), (m,), (4,), (5,)), [0, m]),
            dropout.drop(dtype): (
                [*arrays((n, m), (n, m)), np.zeros(n * m, np.uint8), step, key, *arrays((1,)), words, np.zeros(1, int)],
                [n, m, m, 0],
            ),
        }

    for kernel in rows():
        found = []
        for way in (compiler, numbas):
            rng = np.random.default_rng(3)
            given = next(row for other, row in rows().items() if other.name == kernel.name)
            every = [*given[0], *given[1]]
            row = np.array([x.ctypes.data if isinstance(x, np.ndarray) else x for x in every], np.int64)
            made(way, kernel.name, 1, kernel._factory())(row.ctypes.data)
            found.append(b"".join(x.tobytes() for x in every if isinstance(x, np.ndarray)))
        assert found[0] == found[1], kernel.name


def powers(at: Any) -> None:
    integers(at, 1)[0] **= 2


def steps(at: Any) -> None:
    for i in range(0, 8, 2):
        integers(at, 8)[i] = 1


def chained(at: Any) -> None:
    integers(at, 2)[0] = 0 < integers(at, 2)[1] < 5


def two_types(at: Any) -> None:
    x = 1
    x = 0.5 if at else x
    integers(at, 1)[0] = np.int64(x)


def mixed_signs(at: Any) -> None:
    integers(at, 1)[0] = np.int64(np.uint64(at) + at)


def not_yet(at: Any) -> None:
    if at:
        x = at + 1
    integers(at, 1)[0] = x


def behind_a_loop(at: Any) -> None:
    for i in range(at):
        last = i
    integers(at, 2)[0] = i
    integers(at, 2)[1] = last


def elsewhere(at: Any) -> None:
    integers(at, 1)[0] = max(at, 5)


def one_of_two(at: Any) -> None:
    integers(at, 2)[0] = integers(at, 2)[0] or integers(at, 2)[1]  # a number, not whether there is one


def loop_and_then(at: Any) -> None:
    for i in range(3):
        integers(at, 4)[i] = 1
    else:
        integers(at, 4)[3] = 2


def from_the_end(at: Any) -> None:
    integers(at, 4)[0] = integers(at, 4)[-1]


def not_for_floats(at: Any) -> None:
    integers(at, 1)[0] = np.int64(FACTS[0] | 1)


def beyond_a_byte(at: Any) -> None:
    integers(at, 1)[0] = np.int64(np.uint8(-3))


def pushed_by_a_float(at: Any) -> None:
    integers(at, 1)[0] = at << FACTS[0]


def without_a_sign(at: Any) -> None:
    integers(at, 1)[0] = np.int64(-array(at, 2, np.uint32)[1])


@inline  # noqa: RET503
def falls_out(n: Any) -> Any:
    while n > 0:
        if n == 7:
            return 1
        n -= 1


@inline
def breaks_out(n: Any) -> Any:
    while True:
        if n == 7:
            return 1
        if n < 0:
            break
        n -= 1


def ends_without_its_return(at: Any) -> None:
    integers(at, 1)[0] = falls_out(at)


def ends_by_a_break(at: Any) -> None:
    integers(at, 1)[0] = breaks_out(at)


def last_of_three(at: Any) -> None:
    for k in range(3):
        if integers(at, 4)[k] > 0:
            best = k
    integers(at, 4)[3] = best


@pytest.mark.parametrize(
    "function",
    [
        *(powers, steps, chained, two_types, mixed_signs, not_yet, behind_a_loop, elsewhere),
        *(one_of_two, loop_and_then, from_the_end, without_a_sign, ends_without_its_return, ends_by_a_break),
        *(last_of_three, not_for_floats, beyond_a_byte, pushed_by_a_float),
    ],
    ids=lambda f: f.__name__,
)
def test_what_the_translator_does_not_know_is_left_to_numba(function: Any) -> None:
    assert compiler._translated(1, function) is None


def test_a_function_without_a_source_is_left_to_numba() -> None:
    names: dict[str, Any] = {"integers": integers}
    exec("def f(at):\n    integers(at, 1)[0] = 3\n", names)
    assert compiler._translated(1, names["f"]) is None


@pytest.mark.parametrize("name", ["NUMBA_OPT", "NUMBA_CPU_NAME"])
def test_settings_of_numbas_are_numbas_affair(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    assert compiler._translated(1, lambda at: None) is None


def test_long_polynomials_are_vector_code() -> None:
    """Log1p of float64 has 21 coefficients, for which numba made a loop with a jump in it."""
    log1p = functions.functions("float64").log1p_unit

    def loop(given: Any, out: Any, n: Any) -> None:
        x, y = doubles(given, n), doubles(out, n)
        for i in range(n):
            y[i] = log1p(x[i])

    module = compiler.parsed(translator.translate(3, loop))
    assert str(module).count("fmul contract double") > 20
