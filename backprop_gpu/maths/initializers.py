"""Initial weights, drawn on the host in float64 and rounded once, so that every device and dtype starts alike.

Each takes a generator and (n, k) = (units, inputs) and returns W (n, k); biases start at 0. :func:`on_data` takes
examples too, and gives biases.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..errors import ConfigError, did_you_mean


def zeros(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    """W = 0: every unit of a layer then learns the same (course 2, week 1)."""
    return np.zeros((n, k))


def _normal(variance: Callable[[int, int], float]) -> Callable[[np.random.Generator, int, int], np.ndarray]:
    return lambda rng, n, k: rng.standard_normal((n, k)) * math.sqrt(variance(n, k))


def _uniform(variance: Callable[[int, int], float]) -> Callable[[np.random.Generator, int, int], np.ndarray]:
    # U(-a, a) has variance a^2 / 3.
    return lambda rng, n, k: rng.uniform(-1.0, 1.0, (n, k)) * math.sqrt(3.0 * variance(n, k))


def _he(n: int, k: int) -> float:
    """2 / inputs (He, Zhang, Ren & Sun 2015, equation 10)."""
    return 2.0 / k


def _pytorch(n: int, k: int) -> float:
    """1 / (3 inputs): U(-1/sqrt(k), 1/sqrt(k)), the start of PyTorch's Linear, where TabM begins too."""
    return 1.0 / (3.0 * k)


def _glorot(n: int, k: int) -> float:
    """2 / (inputs + units) (Glorot & Bengio 2010, equation 16)."""
    return 2.0 / (n + k)


def _lecun(n: int, k: int) -> float:
    """1 / inputs (LeCun, Bottou, Orr & Müller 1998, section 4.6); the course's 1/sqrt(n) is its normal form."""
    return 1.0 / k


def orthogonal(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    """Rows or columns orthonormal, uniform over such matrices (Saxe, McClelland & Ganguli 2014; Mezzadri 2007)."""
    q, r = np.linalg.qr(rng.standard_normal((max(n, k), min(n, k))))
    # QR fixes signs by convention; multiplying by those of r's diagonal makes the draw uniform.
    q *= np.where(np.diag(r) < 0.0, -1.0, 1.0)
    return q if n >= k else q.T.copy()


def course_small(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    """0.01 N(0, 1) (course week 4, ``initialize_parameters``)."""
    return rng.standard_normal((n, k)) * 0.01


KINKS = 5  # examples of which a bias is a mean


def on_data(rng: np.random.Generator, n: int, A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """W (n, k) and b (n, 1) of n units from examples A (k, m) that enter the layer.

    Each unit's W A has the standard deviation 1, whatever A's scale: W = V / std(V A), V ~ N(0, 1). Its bias is -W a,
    where W a is a convex combination of W A at five examples (weights of a flat Dirichlet distribution), so that Z is
    0, where rectifiers have their kink, within the data. A unit that is the same for all examples keeps V.

    Source: Holzmueller, Grinsztajn & Steinwart 2024, section 3 and appendix: weights "std", biases "he+5" (after
    Steinwart 2019, "A sober look at neural network initializations").
    """
    V = rng.standard_normal((n, A.shape[0]))
    deviation = np.std(V @ A, axis=1, keepdims=True)
    W = V / np.where(deviation > 0.0, deviation, 1.0)
    Z = W @ A
    examples, share = rng.integers(0, A.shape[1], (n, KINKS)), rng.exponential(size=(n, KINKS))
    share /= share.sum(axis=1, keepdims=True)
    return W, -np.sum(share * np.take_along_axis(Z, examples, axis=1), axis=1, keepdims=True)


INITIALIZERS: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "zeros": zeros,
    "he_normal": _normal(_he),
    "he_uniform": _uniform(_he),
    "glorot_normal": _normal(_glorot),
    "glorot_uniform": _uniform(_glorot),
    "lecun_normal": _normal(_lecun),
    "lecun_uniform": _uniform(_lecun),
    "pytorch_uniform": _uniform(_pytorch),
    "orthogonal": orthogonal,
    "course_0.01": course_small,
    "course_1/sqrt_n": _normal(_lecun),
}


def get_initializer(name: str, *, rectifier: bool) -> Callable[[np.random.Generator, int, int], np.ndarray]:
    """The initializer of that name; ``"auto"`` is He before a ``rectifier`` (``Activation.rectifier``), else Glorot.

    Raises
    ------
    ConfigError
        For an unknown name.
    """
    if name == "auto":
        name = "he_normal" if rectifier else "glorot_uniform"
    if not isinstance(name, str) or name not in INITIALIZERS:
        hint = did_you_mean(str(name), INITIALIZERS)
        raise ConfigError(f"unknown initializer {name!r}{hint}; known: auto, {', '.join(INITIALIZERS)}")
    return INITIALIZERS[name]
