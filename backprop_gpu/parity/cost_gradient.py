"""Is a gradient the derivative of the cost that is reported, and if not, by what factor?

A gradient is compared along two directions per tensor of parameters with the derivative of the cost itself. Where both
give the same ratio, the gradient is a multiple of the derivative, and the ratio names the fault: a mean over one axis
too many gives n_outputs, a forgotten mean n_samples, a square without its half 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..errors import ConfigError
from ..gradcheck.derivative import Slope, slope
from .cost_models import Part, parts_of
from .findings import Finding

THRESHOLD = 1e-6  # relative to sum |g d|; what the differences themselves may be off comes on top
NOTHING = 1e-9  # relative to the cost and to the whole gradient: a smaller derivative is 0
SHARP = 1e-2  # a derivative that is not known to this part of itself decides nothing
Judgement = Literal["equal", "proportional", "different", "unclear"]


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
    """

    part: str
    name: str
    shape: tuple[int, ...]
    verdict: Judgement
    ratio: float | None
    got: float
    want: float
    error: float


@dataclass(frozen=True)
class CostGradientReport:
    """The outcome of :func:`check_cost_gradient_pair`; ``str()`` is its sentence.

    Attributes
    ----------
    verdict : {"equal", "proportional", "different", "unclear"}
    ratio : float or None
        Gradient over derivative, where it is one number for every tensor of a part that is not right.
    sentence : str
    tensors : tuple of TensorRatio
    """

    verdict: Judgement
    ratio: float | None
    sentence: str
    tensors: tuple[TensorRatio, ...]

    @property
    def ok(self) -> bool:
        """Whether the gradient is the derivative."""
        return self.verdict == "equal"

    @property
    def findings(self) -> list[Finding]:
        """A finding per tensor; its ratio is the difference over what it may be."""
        verdicts: dict[Judgement, Any] = {"equal": "ok", "unclear": "warning"}
        found = []
        for t in self.tensors:
            off = abs(t.got - t.want) / t.error if t.error > 0.0 else 0.0
            cause = "" if t.verdict == "equal" else self.sentence
            head = (f"gradient of the {t.part}", t.name, t.shape, math.prod(t.shape), off)
            found.append(Finding(*head, got=t.got, want=t.want, verdict=verdicts.get(t.verdict, "wrong"), cause=cause))
        return found

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
        scikit-learn's ``coefs_``, ``intercepts_`` and ``_backprop``, whose loss and penalty are judged apart; or a
        network. None is changed.
    X, y : (n_samples, n_features), (n_samples,) or (n_samples, n_outputs)
        The examples of an estimator or a network; for callables they only name factors.
    theta : array or dict of arrays
        For callables: where to look. With a dict every entry is judged apart.
    known : mapping, optional
        Numbers by which the gradient may be off, by name: ``{"n_outputs": 3}``.
    threshold : float, default 1e-6
        Largest accepted difference relative to sum |g d| along a direction d.
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
        If the target is none of these, or something that it needs is missing.
    """
    parts, sizes = parts_of(target, X, y, theta, settings)
    rng = np.random.default_rng(seed)
    tensors = tuple(t for part in parts for t in _judge(part, threshold, rng))
    return _report(tensors, {**sizes, **(known or {})})


# -- tensors ----------------------------------------------------------------------------------------------------------


def _judge(part: Part, threshold: float, rng: np.random.Generator) -> Iterator[TensorRatio]:
    """Along the gradient's own signs, where nothing cancels, and along a random direction."""
    gradient = part.gradient({name: value.copy() for name, value in part.theta.items()})
    nothing = NOTHING * max(part.size, sum(float(np.sum(np.abs(g))) for g in gradient.values()))
    for name, value in part.theta.items():
        g = np.asarray(gradient[name], np.float64)
        if g.shape != value.shape:
            raise ConfigError(f"the gradient of {name} is {g.shape}, but {name} is {value.shape}; return one like it")
        scale = 1e-2 * max(1.0, float(np.max(np.abs(value), initial=0.0)))
        signs = np.where(g == 0.0, 1.0, np.sign(g))
        pairs = []
        for d in (signs * rng.uniform(0.5, 1.0, g.shape), rng.uniform(-1.0, 1.0, g.shape)):
            want = slope(_along(part, name, d), scale, part.size)
            error = 4.0 * want.error + threshold * max(float(np.sum(np.abs(g * d))), abs(want.value))
            pairs.append((float(np.sum(g * d)), Slope(want.value, error)))
        verdict, ratio = _compare(pairs, nothing)
        (got, want), *_ = pairs
        yield TensorRatio(part.name, name, g.shape, verdict, ratio, got, want.value, want.error)


def _along(part: Part, name: str, d: np.ndarray) -> Callable[[Any], Any]:
    return lambda t: part.cost({**part.theta, name: part.theta[name] + t * d})


def _compare(pairs: Sequence[tuple[float, Slope]], nothing: float) -> tuple[Judgement, float | None]:
    """The verdict on one tensor, and the ratio where there is one; sums below ``nothing`` are 0."""
    got, want = pairs[0]
    largest = max(abs(got), abs(want.value))
    if largest == 0.0 or (largest <= nothing and want.error <= nothing):
        return "equal", None
    if not want.error <= SHARP * largest:
        return "unclear", None
    if all(abs(g - w.value) <= w.error for g, w in pairs):
        return "equal", 1.0
    if abs(want.value) <= want.error or abs(got) <= want.error:
        return "different", None
    ratio = got / want.value
    if all(abs(g - ratio * w.value) <= (1.0 + abs(ratio)) * w.error for g, w in pairs):
        return "proportional", ratio
    return "different", None


# -- words ------------------------------------------------------------------------------------------------------------


def _report(tensors: tuple[TensorRatio, ...], known: Mapping[str, float]) -> CostGradientReport:
    """The verdict on the whole: that of the first part that is not right, the others named beside it."""
    parts = list(dict.fromkeys(t.part for t in tensors))
    judged = {part: _of_part([t for t in tensors if t.part == part], known) for part in parts}
    wrong = [part for part in parts if judged[part][0] != "equal"]
    if not wrong:
        both = " and ".join(parts)
        return CostGradientReport("equal", 1.0, f"the gradient is the derivative of the reported {both}", tensors)
    verdict, ratio, _ = judged[wrong[0]]
    words = [judged[part][2] for part in wrong] + [f"the {part} is right" for part in parts if part not in wrong]
    return CostGradientReport(verdict, ratio, "; ".join(words), tensors)


def _of_part(tensors: Sequence[TensorRatio], known: Mapping[str, float]) -> tuple[Judgement, float | None, str]:
    part = tensors[0].part
    right = [t for t in tensors if t.verdict == "equal"]
    wrong = [t for t in tensors if t.verdict in ("proportional", "different")]
    unclear = [t.name for t in tensors if t.verdict == "unclear"]
    subject = "the gradient" if part == "cost" else f"the gradient of the {part}"
    if not wrong:
        if not unclear:
            return "equal", 1.0, ""
        where = f"{', '.join(unclear)}: the {part} has a kink there or is too noisy"
        return "unclear", None, f"{subject} cannot be judged in {where}; move theta, or compute in float64"
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
    return f"no multiple: along one direction {t.got:.6g} for {t.want:.6g}"


def _number(ratio: float) -> str:
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
        for text, number in ((name, value), (f"1/({name})" if set(name) & set(" /") else f"1/{name}", 1.0 / value)):
            if abs(size - number) <= 1e-4 * number:
                found.append(text)
    if sign and abs(size - 1.0) <= 1e-4:
        return ": the sign"
    return f": {sign}{' or '.join(found[:2])}" if found else ""
