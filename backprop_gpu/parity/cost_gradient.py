"""Is a gradient the derivative of the cost that is reported, and if not, by what factor?

A gradient is compared along two directions per tensor of parameters with the derivative of the cost itself. Where both
give the same ratio, the gradient is a multiple of the derivative, and the ratio names the fault: a mean over one axis
too many gives n_outputs, a forgotten mean n_samples, a square without its half 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..errors import ConfigError
from ..gradcheck.derivative import Slope, slope
from .cost_models import Part, number, parts_of
from .findings import Finding

THRESHOLD = 1e-6  # relative to sum |g d|; what the differences themselves may be off comes on top
NOTHING = 1e-9  # relative to the cost and to the whole gradient: a smaller derivative is 0
SHARP = 1e-2  # a derivative that is not known to this part of itself decides nothing
ESTABLISHED = 10.0  # times what may be unexplained: a factor that is told from 1 by less is no factor
DIRECTIONS = 8  # tried for some along which the derivative is known
MOST_SWEPT = 256  # entries up to which a wrong tensor is swept for the one that is furthest off
Status = Literal["equal", "proportional", "different", "unclear"]


@dataclass(frozen=True)
class TensorRatio:
    """One tensor of parameters: the gradient over the derivative.

    Attributes
    ----------
    part : str
        ``"cost"``; of an estimator ``"loss"`` or ``"penalty"``.
    ratio : float or None
        None where the gradient is no multiple of the derivative, where both are 0, and where it could not be told.
    got, want : float
        Gradient and derivative along the first direction.
    error : float
        What ``want`` may be off by, and the threshold.
    cause : str
        Of a tensor that is "different": what was seen, where one thing tells.
    """

    part: str
    name: str
    shape: tuple[int, ...]
    status: Status
    ratio: float | None
    got: float
    want: float
    error: float
    cause: str = ""

    @property
    def verdict(self) -> Status:
        """``status``, by its earlier name."""
        return self.status


@dataclass(frozen=True)
class CostGradientReport:
    """The outcome of :func:`check_cost_gradient_pair`; ``str()`` is its sentence.

    Attributes
    ----------
    status : {"equal", "proportional", "different", "unclear"}
    ratio : float or None
        Gradient over derivative, where it is one number for every tensor of a part that is not right.
    sentence : str
    tensors : tuple of TensorRatio
    """

    status: Status
    ratio: float | None
    sentence: str
    tensors: tuple[TensorRatio, ...]

    @property
    def verdict(self) -> Status:
        """``status``, by its earlier name."""
        return self.status

    @property
    def ok(self) -> bool:
        """Whether the gradient is the derivative."""
        return self.status == "equal"

    @property
    def findings(self) -> list[Finding]:
        """A finding per tensor; its ratio is the difference over what it may be."""
        statuses: dict[Status, Any] = {"equal": "ok", "unclear": "warning"}
        found = []
        for t in self.tensors:
            off = abs(t.got - t.want) / t.error if t.error > 0.0 else 0.0
            cause = "" if t.status == "equal" else self.sentence
            head = (f"gradient of the {t.part}", t.name, t.shape, math.prod(t.shape), off)
            found.append(Finding(*head, got=t.got, want=t.want, status=statuses.get(t.status, "wrong"), cause=cause))
        return found

    def summary(self) -> str:
        """The sentence, under the name that other reports give it."""
        return self.sentence

    def __str__(self) -> str:
        return self.sentence

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.sentence}>"


def check_cost_gradient_pair(
    target: Any,
    X: Any = None,
    y: Any = None,
    *,
    theta: Any = None,
    known: Mapping[str, float] | None = None,
    threshold: float = THRESHOLD,
    seed: int = 0,
    **settings: Any,
) -> CostGradientReport:
    """Compare a gradient with the derivative of the cost that is reported beside it.

    Parameters
    ----------
    target : (cost, gradient), estimator or DenseNet
        Two callables, cost(theta) -> float and gradient(theta) -> like theta; or a fitted or unfitted estimator with
        scikit-learn's ``coefs_``, ``intercepts_`` and ``_backprop``, whose loss and penalty are checked apart; or a
        network. None is changed.
    X, y : (n_samples, n_features), (n_samples,) or (n_samples, n_outputs)
        The examples of an estimator or a network; for callables they only name factors.
    theta : array or dict of arrays
        For callables: where to look. With a dict every entry is checked apart.
    known : mapping, optional
        Numbers by which the gradient may be off, by name: ``{"n_outputs": 3}``.
    threshold : float, default 1e-6
        Largest accepted difference relative to ``sum |g d|`` along a direction d.
    seed : int, default 0
        Of the directions.
    **settings
        For a network: of :class:`~backprop_gpu.network.step.TrainingStep`, as in ``gradcheck``.

    Returns
    -------
    CostGradientReport

    Raises
    ------
    ConfigError
        If the target is none of these, or something that it needs is missing: theta, a gradient for each part of it, a
        cost that is one finite number at theta.
    """
    parts, sizes = parts_of(target, X, y, theta, settings)
    rng = np.random.default_rng(seed)
    tensors = tuple(t for part in parts for t in _checked(part, threshold, rng))
    return _report(tensors, {**sizes, **(known or {})})


# -- tensors ----------------------------------------------------------------------------------------------------------


def _checked(part: Part, threshold: float, rng: np.random.Generator) -> Iterator[TensorRatio]:
    """Along the gradient's own signs, where nothing cancels, and along a random direction."""
    gradient = part.gradient({name: value.copy() for name, value in part.theta.items()})
    named = {name: _gradient_of(gradient, name, value) for name, value in part.theta.items()}
    finite = [g[np.isfinite(g)] for g in named.values()]
    nothing = NOTHING * max(part.size, sum(float(np.sum(np.abs(g))) for g in finite))
    for name, g in named.items():
        broken = int(np.count_nonzero(~np.isfinite(g)))
        if broken:
            cause = f"{broken} of {g.size} entries of the gradient are NaN or infinite"
            yield TensorRatio(part.name, name, g.shape, "different", None, math.nan, math.nan, math.inf, cause)
            continue
        pairs = _pairs(part, name, g, threshold, rng)
        status, ratio = _compare(pairs, nothing)
        cause = _worst_entry(part, name, g, pairs) if status == "different" and 1 < g.size <= MOST_SWEPT else ""
        (got, want), *_ = pairs
        yield TensorRatio(part.name, name, g.shape, status, ratio, got, want.value, want.error, cause)


def _gradient_of(gradient: Any, name: str, value: np.ndarray) -> np.ndarray:
    """One tensor of a gradient, in the shape of its parameters."""
    if not isinstance(gradient, Mapping):
        raise ConfigError(
            f"the gradient is a {type(gradient).__name__}; return a dict, an array for each of theta's keys"
        )
    if name not in gradient:
        known = ", ".join(map(str, gradient)) or "nothing"
        raise ConfigError(f"the gradient holds {known} but no {name!r}; return an array for each of theta's keys")
    try:
        g = np.asarray(gradient[name], np.float64)
    except (TypeError, ValueError):
        raise ConfigError(f"the gradient of {name} is no array of numbers; return one like {name}") from None
    if g.shape != value.shape:
        raise ConfigError(f"the gradient of {name} is {g.shape}, but {name} is {value.shape}; return one like it")
    return g


def _pairs(
    part: Part, name: str, g: np.ndarray, threshold: float, rng: np.random.Generator
) -> list[tuple[float, Slope]]:
    """g . d and the derivative along d, for two or more directions; others are drawn for those that tell nothing."""
    signs = np.where(g == 0.0, 1.0, np.sign(g))
    found: list[tuple[float, Slope]] = []
    unknown: list[tuple[float, Slope]] = []
    for _ in range(DIRECTIONS):
        d = rng.uniform(-1.0, 1.0, g.shape) if found else signs * rng.uniform(0.5, 1.0, g.shape)
        want = _slope(part, name, d)
        size = float(np.sum(np.abs(g * d)))
        error = 4.0 * want.error + threshold * max(size, abs(want.value))
        decided = error <= SHARP * max(size, abs(want.value)) or error <= NOTHING * part.size
        (found if decided else unknown).append((float(np.sum(g * d)), Slope(want.value, error)))
        agree = all(abs(got - w.value) <= w.error for got, w in found)
        if len(found) == (2 if agree else 5):  # more of them establish a factor
            break
    return found if len(found) > 1 else (found + unknown)[:2]


def _slope(part: Part, name: str, d: np.ndarray) -> Slope:
    theta = part.theta[name]
    scale = 1e-2 * max(1.0, float(np.max(np.abs(theta), initial=0.0)))
    return slope(lambda t: number(part.cost({**part.theta, name: theta + t * d})), scale, part.size)


def _worst_entry(part: Part, name: str, g: np.ndarray, pairs: Sequence[tuple[float, Slope]]) -> str:
    """The entry that is furthest off, and how many are."""
    found = []
    for entry in np.ndindex(g.shape):
        unit = np.zeros_like(g)
        unit[entry] = 1.0
        want = _slope(part, name, unit)
        off = abs(float(g[entry]) - want.value)
        if off > 4.0 * want.error + THRESHOLD * (abs(float(g[entry])) + abs(want.value)):
            found.append((off, entry, float(g[entry]), want.value))
    if not found:
        return ""
    _, entry, got, want_value = max(found)
    at = f"entry {[int(i) for i in entry]}: {got:.6g} for {want_value:.6g}"
    return f"{at}, it alone is wrong" if len(found) == 1 else f"{at}, {len(found)} of {g.size} are wrong"


def _compare(pairs: Sequence[tuple[float, Slope]], nothing: float) -> tuple[Status, float | None]:
    """The status of one tensor, and the ratio where there is one; sums below ``nothing`` are 0."""
    got, want = pairs[0]
    largest = max(abs(got), abs(want.value))
    if largest == 0.0 or (largest <= nothing and want.error <= nothing):
        return "equal", None
    if not want.error <= SHARP * largest:
        return "unclear", None
    known = [(g, w) for g, w in pairs if math.isfinite(w.error)]
    if all(abs(g - w.value) <= w.error for g, w in known):
        return ("equal", 1.0) if len(known) == len(pairs) else ("unclear", None)
    if abs(want.value) <= want.error or abs(got) <= want.error:
        return "different", None
    ratio = got / want.value
    unexplained = (1.0 + abs(ratio)) * max(w.error for _, w in known)
    if all(abs(g - ratio * w.value) <= (1.0 + abs(ratio)) * w.error for g, w in known):
        # A few wrong entries among many are no factor of all.
        gap = max(abs(g - w.value) for g, w in known[1:]) if len(known) > 1 else abs(got - want.value)
        if (len(known) > 1 and gap > unexplained * ESTABLISHED) or len(pairs) == 1:
            return "proportional", ratio
    return "different", None


# -- words ------------------------------------------------------------------------------------------------------------


def _report(tensors: tuple[TensorRatio, ...], known: Mapping[str, float]) -> CostGradientReport:
    """The status of the whole: that of the first part that is not right, the others named beside it."""
    parts = list(dict.fromkeys(t.part for t in tensors))
    checked = {part: _of_part([t for t in tensors if t.part == part], known) for part in parts}
    wrong = [part for part in parts if checked[part][0] != "equal"]
    if not wrong:
        both = " and ".join(parts)
        return CostGradientReport("equal", 1.0, f"the gradient is the derivative of the reported {both}", tensors)
    status, ratio, _ = checked[wrong[0]]
    words = [checked[part][2] for part in wrong] + [f"the {part} is right" for part in parts if part not in wrong]
    return CostGradientReport(status, ratio, "; ".join(words), tensors)


def _of_part(tensors: Sequence[TensorRatio], known: Mapping[str, float]) -> tuple[Status, float | None, str]:
    part = tensors[0].part
    right = [t for t in tensors if t.status == "equal"]
    wrong = [t for t in tensors if t.status in ("proportional", "different")]
    unclear = [t.name for t in tensors if t.status == "unclear"]
    subject = "the gradient" if part == "cost" else f"the gradient of the {part}"
    if not wrong:
        if not unclear:
            return "equal", 1.0, ""
        where = f"{', '.join(unclear)}: the {part} has a kink there or is too noisy"
        return "unclear", None, f"{subject} cannot be compared in {where}; move theta, or compute in float64"
    ratio = min(wrong, key=_blur).ratio
    if all(_is_about(t, ratio) for t in wrong) and all(t.ratio is None for t in right):
        assert ratio is not None
        words = f"{subject} is {_number(ratio)} times the derivative of the reported {part}"
        return "proportional", ratio, words + _named(ratio, known)
    each = ", ".join(f"{t.name} ({_of_tensor(t, known)})" for t in wrong)
    rest = f"; {', '.join(t.name for t in right)} {'is' if len(right) == 1 else 'are'} right" if right else ""
    return "different", None, f"{subject} is not the derivative of the reported {part} in {each}{rest}"


def _blur(t: TensorRatio) -> float:
    """The part of itself by which a ratio may be off."""
    return math.inf if t.ratio is None else t.error / abs(t.want)


def _is_about(t: TensorRatio, ratio: float | None) -> bool:
    """Whether a tensor's ratio is this one, as well as it is known."""
    return t.ratio is not None and ratio is not None and abs(t.ratio - ratio) <= (1e-4 + _blur(t)) * abs(ratio)


def _of_tensor(t: TensorRatio, known: Mapping[str, float]) -> str:
    if t.ratio is not None:
        return f"{_number(t.ratio)} times{_named(t.ratio, known)}"
    if t.cause:
        return t.cause
    return f"no multiple: along one direction {t.got:.6g} for {t.want:.6g}"


def _number(ratio: float) -> str:
    if abs(abs(ratio) - 1.0) < 5e-3:
        return f"{ratio:.9g}"  # that it is not 1 has to be seen
    return f"{ratio:.3f}" if 0.1 <= abs(ratio) < 1000.0 else f"{ratio:.4g}"


def _named(ratio: float, known: Mapping[str, float]) -> str:
    """What the factor is, at most two guesses: ``": n_outputs"``."""
    sign, size = ("minus ", -ratio) if ratio < 0.0 else ("", ratio)
    guesses = dict(known)
    if "n_samples" in known:
        n = known["n_samples"]
        guesses |= {"n_samples - 1": n - 1.0, "n_samples/(n_samples - 1)": n / (n - 1.0) if n > 1 else 1.0}
        others = {name: v for name, v in known.items() if name != "n_samples" and v not in (0.0, 1.0)}
        guesses |= {f"n_samples x {name}": n * v for name, v in others.items()}
        guesses |= {f"n_samples/{name}": n / v for name, v in others.items()}
    guesses["the 1/2 of a square"] = 2.0
    found = []
    for name, value in guesses.items():
        if value in (0.0, 1.0):
            continue
        for text, factor in ((name, value), (f"1/({name})" if set(name) & set(" /") else f"1/{name}", 1.0 / value)):
            if abs(size - factor) <= 1e-4 * factor:
                found.append(text)
    if sign and abs(size - 1.0) <= 1e-4:
        return ": the sign"
    return f": {sign}{' or '.join(found[:2])}" if found else ""
