"""Losses from logits, one number per example, and the derivative of exactly that number.

Z (n_L, m) are the logits (the last layer's pre-activations), Y has Z's shape (class labels as one-hot columns, see
:func:`one_hot`). ``value`` returns L (1, m); ``delta`` returns dL/dZ (n_L, m), directly under it. ``link`` is the
activation that turns logits into predictions AL, and ``literal_dAL`` is dL/dAL as it is written on paper.

The cost is J = (1/D) sum_i w_i L_i: example weights and 1/D are applied by the caller (``ledger``), never here.
Outputs are *summed* in the two cross-entropies (a joint log-likelihood) and *averaged* in the regression losses.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from .._typing import Array, Namespace
from ..errors import ConfigError
from .activations import ACTIVATIONS, Activation, sigmoid, softmax, softmax_vjp
from .registry import create, is_number


def one_hot(xp: Namespace, labels: Array, classes: Array, dtype: Any) -> Array:
    """Columns of 0 and 1 from integer labels (1, m); ``classes`` is (n_L, 1), holding 0 .. n_L - 1."""
    return xp.asarray(xp.equal(classes, labels), dtype=dtype)


def _away_from_zero(xp: Namespace, A: Array) -> Array:
    """max(A, smallest normal number of A's dtype): the guard of the literal divisions."""
    return xp.maximum(A, float(xp.finfo(A.dtype).smallest_normal))


@dataclass(frozen=True)
class Loss:
    """A loss with its link. Subclasses define ``value``, ``delta`` and, where it has one, ``literal_dAL``.

    One of your own is a frozen dataclass with a ``name``, a ``link_name`` of ``ACTIVATIONS`` and its ``labels``; it is
    given as an object, and again to what reads its network from a file (``load(..., custom=[...])``).
    """

    name: ClassVar[str]
    link_name: ClassVar[str]
    labels: ClassVar[str]  # "binary" (0/1 per output), "classes" (one of n_L), "groups" (one of each) or "values"

    @property
    def link(self) -> Activation:
        """The activation that maps logits to predictions AL."""
        return ACTIVATIONS[self.link_name]

    @property
    def per_target(self) -> int:
        """Outputs for each target column; those of one column stand together."""
        return 1

    def point(self, AL: Any) -> Any:
        """One prediction per target column, for metrics: (m, n_L) host rows -> (m, n_L / per_target)."""
        return AL

    def value(self, xp: Namespace, Z: Array, Y: Array) -> Array:
        """L, (1, m)."""
        raise NotImplementedError

    def delta(self, xp: Namespace, Z: Array, Y: Array) -> Array:
        """dL/dZ, (n_L, m): the derivative of ``value``."""
        raise NotImplementedError

    def literal_dAL(self, xp: Namespace, AL: Array, Y: Array) -> Array:
        """dL/dAL, (n_L, m), from predictions, finite wherever AL is in its range."""
        raise NotImplementedError

    def spec(self) -> str | dict[str, Any]:
        """What :func:`get_loss` takes back."""
        parameters = dict(vars(self))
        return {"name": self.name, **parameters} if parameters else self.name


@dataclass(frozen=True)
class _CrossEntropy(Loss):
    """A loss over classes whose targets may be smoothed: T = (1 - s) Y + s/K, K classes (Szegedy et al. 2016, 7)."""

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not (is_number(self.label_smoothing) and 0.0 <= self.label_smoothing < 1.0):
            raise ConfigError(f"label_smoothing must be at least 0 and below 1, got {self.label_smoothing}")

    def _smoothed(self, Y: Array, classes: int) -> Array:
        if not self.label_smoothing:
            return Y
        return (1.0 - self.label_smoothing) * Y + self.label_smoothing / classes


@dataclass(frozen=True)
class BinaryCrossEntropy(_CrossEntropy):
    """L = -sum_k [T log AL + (1 - T) log(1 - AL)], AL = sigmoid(Z); several outputs are independent labels.

    T = (1 - s) Y + s/2 with label smoothing s: each label is one of two classes. Source: course week 4,
    ``compute_cost``. Y may lie anywhere in [0, 1].
    """

    name = "binary_cross_entropy"
    link_name = "sigmoid"
    labels = "binary"

    def value(self, xp: Namespace, Z: Array, Y: Array) -> Array:
        """L = sum_k [max(Z, 0) - Z T + log1p(e^-|Z|)]: the same number, without log of a rounded AL."""
        # Z T is taken from the maximum first: for a large logit on the right side they cancel and leave log1p alone.
        tail = xp.log1p(xp.exp(xp.minimum(Z, -Z)))
        return xp.sum((xp.maximum(Z, 0.0) - Z * self._smoothed(Y, 2)) + tail, axis=0, keepdims=True)

    def delta(self, xp: Namespace, Z: Array, Y: Array) -> Array:
        """dL/dZ = AL - T."""
        return sigmoid(xp, Z) - self._smoothed(Y, 2)

    def literal_dAL(self, xp: Namespace, AL: Array, Y: Array) -> Array:
        """dAL = -(T/AL - (1 - T)/(1 - AL)) (course week 4, ``L_model_backward``).

        At AL exactly 0 or 1 on the wrong side the true derivative is infinite; the guard returns a large finite number,
        which g' = AL (1 - AL) = 0 then turns into dZ = 0: finite, but not the derivative. ``delta`` is.
        """
        T = self._smoothed(Y, 2)
        return -(T / _away_from_zero(xp, AL) - (1.0 - T) / _away_from_zero(xp, 1.0 - AL))


@dataclass(frozen=True)
class CategoricalCrossEntropy(_CrossEntropy):
    """L = -sum_k T log AL, AL = softmax(Z), T = (1 - s) Y + s/n_L with label smoothing s.

    Source: course 2, week 3.
    """

    name = "categorical_cross_entropy"
    link_name = "softmax"
    labels = "classes"

    def value(self, xp: Namespace, Z: Array, Y: Array) -> Array:
        """L = -sum_k T (S - log sum_j e^S), S = Z - max Z: the same number, from shifted logits."""
        S = Z - xp.max(Z, axis=0, keepdims=True)
        log_sum = xp.log(xp.sum(xp.exp(S), axis=0, keepdims=True))
        return xp.sum(self._smoothed(Y, Y.shape[0]) * (log_sum - S), axis=0, keepdims=True)

    def delta(self, xp: Namespace, Z: Array, Y: Array) -> Array:
        """dL/dZ = AL sum_k T - T  (= AL - T where the targets sum to 1)."""
        T = self._smoothed(Y, Y.shape[0])
        return softmax(xp, Z) * xp.sum(T, axis=0, keepdims=True) - T

    def literal_dAL(self, xp: Namespace, AL: Array, Y: Array) -> Array:
        """dL/dAL = -T / AL."""
        return -(self._smoothed(Y, Y.shape[0]) / _away_from_zero(xp, AL))


def grouped_softmax(xp: Namespace, Z: Array, *, groups: Sequence[int]) -> Array:
    """:func:`~backprop_gpu.maths.activations.softmax` within each group of rows; ``groups`` are their sizes."""
    return xp.concat([softmax(xp, Z[rows, :]) for rows in _spans(groups)], axis=0)


def grouped_softmax_vjp(xp: Namespace, dA: Array, Z: Array, A: Array, *, groups: Sequence[int]) -> Array:
    """dZ = A * (dA - sum over the group of dA A)."""
    return xp.concat([softmax_vjp(xp, dA[r, :], Z[r, :], A[r, :]) for r in _spans(groups)], axis=0)


def _spans(groups: Sequence[int]) -> list[slice]:
    ends = list(itertools.accumulate(groups))
    return [slice(end - size, end) for end, size in zip(ends, groups, strict=True)]


@dataclass(frozen=True)
class GroupedCrossEntropy(Loss):
    """Several class labels for each example: L = sum over groups of -sum_k Y log AL, AL = softmax within the group.

    A joint log-likelihood of labels that are independent given the last hidden layer. ``groups``: the number of classes
    of each; Y holds their one-hot columns, one under the other.
    """

    name = "grouped_cross_entropy"
    link_name = "softmax"
    labels = "groups"
    groups: Sequence[int]
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        given = self.groups
        whole = isinstance(given, list | tuple) and all(
            is_number(n) and 1 <= n < math.inf and n == int(n) for n in given
        )
        if not whole or not given:
            raise ConfigError(f"grouped_cross_entropy: groups must be a list of numbers of classes, got {given!r}")
        object.__setattr__(self, "groups", tuple(int(n) for n in given))
        CategoricalCrossEntropy(self.label_smoothing)  # says what is wrong with it

    @property
    def link(self) -> Activation:
        """The softmax within each group."""
        forward, vjp = (partial(f, groups=self.groups) for f in (grouped_softmax, grouped_softmax_vjp))
        return Activation("grouped_softmax", forward, vjp, output_only=True)

    def value(self, xp: Namespace, Z: Array, Y: Array) -> Array:
        """L = the sum of the groups' cross-entropies."""
        one = CategoricalCrossEntropy(self.label_smoothing)
        return sum(one.value(xp, Z[rows, :], Y[rows, :]) for rows in _spans(self.groups))

    def delta(self, xp: Namespace, Z: Array, Y: Array) -> Array:
        """dL/dZ, group under group: AL sum_k Y - Y."""
        one = CategoricalCrossEntropy(self.label_smoothing)
        return xp.concat([one.delta(xp, Z[rows, :], Y[rows, :]) for rows in _spans(self.groups)], axis=0)

    def literal_dAL(self, xp: Namespace, AL: Array, Y: Array) -> Array:
        """dL/dAL, group under group."""
        one = CategoricalCrossEntropy(self.label_smoothing)
        return xp.concat([one.literal_dAL(xp, AL[rows, :], Y[rows, :]) for rows in _spans(self.groups)], axis=0)

    def spec(self) -> dict[str, Any]:
        """What :func:`get_loss` takes back."""
        return {"name": self.name, "groups": list(self.groups), "label_smoothing": self.label_smoothing}


@dataclass(frozen=True)
class _Regression(Loss):
    """A loss averaged over outputs: L = (1/n_L) sum_k l(Z[k], Y[k])."""

    link_name = "identity"
    labels = "values"

    def literal_dAL(self, xp: Namespace, AL: Array, Y: Array) -> Array:
        """dL/dAL; AL = Z, so it is ``delta`` itself."""
        return self.delta(xp, AL, Y)


@dataclass(frozen=True)
class SquaredError(_Regression):
    """L = 1/(2 n_L) sum_k (Z - Y)^2: the half makes the derivative (Z - Y)/n_L, and outputs are averaged."""

    name = "squared_error"

    def value(self, xp: Namespace, Z: Array, Y: Array) -> Array:
        """L = 1/(2 n_L) sum_k (Z - Y)^2."""
        d = Z - Y
        return xp.sum(d * d, axis=0, keepdims=True) * (0.5 / Z.shape[0])

    def delta(self, xp: Namespace, Z: Array, Y: Array) -> Array:
        """dL/dZ = (Z - Y) / n_L."""
        return (Z - Y) * (1.0 / Z.shape[0])


@dataclass(frozen=True)
class AbsoluteError(_Regression):
    """L = 1/n_L sum_k |Z - Y|."""

    name = "absolute_error"

    def value(self, xp: Namespace, Z: Array, Y: Array) -> Array:
        """L = 1/n_L sum_k |Z - Y|."""
        return xp.sum(xp.abs(Z - Y), axis=0, keepdims=True) * (1.0 / Z.shape[0])

    def delta(self, xp: Namespace, Z: Array, Y: Array) -> Array:
        """dL/dZ = sign(Z - Y) / n_L, 0 where they are equal."""
        return xp.sign(Z - Y) * (1.0 / Z.shape[0])


@dataclass(frozen=True)
class Huber(_Regression):
    """L = 1/n_L sum_k h(Z - Y), h(d) = d^2/2 where |d| <= delta, else delta (|d| - delta/2) (Huber 1964)."""

    name = "huber"
    threshold: float = field(default=1.0)

    def __post_init__(self) -> None:
        if not (is_number(self.threshold) and 0.0 < self.threshold < math.inf):
            raise ConfigError(f"huber: threshold must be positive and finite, got {self.threshold}")

    def value(self, xp: Namespace, Z: Array, Y: Array) -> Array:
        """With c = min(|d|, delta): h = c (|d| - c/2)."""
        magnitude = xp.abs(Z - Y)
        c = xp.minimum(magnitude, self.threshold)
        return xp.sum(c * (magnitude - 0.5 * c), axis=0, keepdims=True) * (1.0 / Z.shape[0])

    def delta(self, xp: Namespace, Z: Array, Y: Array) -> Array:
        """dL/dZ = clip(d, -delta, delta) / n_L."""
        d = xp.minimum(xp.maximum(Z - Y, -self.threshold), self.threshold)
        return d * (1.0 / Z.shape[0])


@dataclass(frozen=True)
class Poisson(_Regression):
    """Half the Poisson deviance: L = 1/n_L sum_k [e^Z - Y Z + Y log Y - Y], 0 where e^Z = Y; AL = e^Z.

    Source: McCullagh & Nelder 1989, chapter 6; Y counts or rates, at least 0.
    """

    name = "poisson"
    link_name = "exponential"

    def value(self, xp: Namespace, Z: Array, Y: Array) -> Array:
        """L = 1/n_L sum_k [e^Z - Y Z + (Y log Y - Y)], with 0 log 0 = 0."""
        entropy = Y * xp.log(_away_from_zero(xp, Y)) - Y
        return xp.sum(xp.exp(Z) - Y * Z + entropy, axis=0, keepdims=True) * (1.0 / Z.shape[0])

    def delta(self, xp: Namespace, Z: Array, Y: Array) -> Array:
        """dL/dZ = (e^Z - Y) / n_L."""
        return (xp.exp(Z) - Y) * (1.0 / Z.shape[0])

    def literal_dAL(self, xp: Namespace, AL: Array, Y: Array) -> Array:
        """dL/dAL = (1 - Y/AL) / n_L."""
        # The guard grows with Y, so that the quotient is finite for any count.
        guard = xp.maximum(Y, 1.0) * (4.0 * float(xp.finfo(AL.dtype).smallest_normal))
        return (1.0 - Y / xp.maximum(AL, guard)) * (1.0 / AL.shape[0])


@dataclass(frozen=True)
class Quantile(_Regression):
    """The pinball loss: L = 1/n_L sum_k w |Z - Y|, w = 1 - q where Z > Y, else q; the minimizer is Y's q-quantile.

    ``quantiles``: increasing, within (0, 1). With K of them each target column has K outputs, which stand together:
    output j K + i is quantile i of column j, and Y holds each column K times. Nothing keeps the outputs of a column
    from crossing. Source: Koenker & Bassett 1978; twice the loss of q = 1/2 is the absolute error.
    """

    name = "quantile"
    quantiles: Sequence[float] = (0.5,)

    def __post_init__(self) -> None:
        given = self.quantiles
        listed = isinstance(given, list | tuple) and len(given) > 0 and all(is_number(q) for q in given)
        if not listed or not all(p < q for p, q in itertools.pairwise((0.0, *given, 1.0))):
            raise ConfigError(f"quantile: quantiles must be an increasing list of numbers between 0 and 1, got {given}")
        object.__setattr__(self, "quantiles", tuple(float(q) for q in given))

    @property
    def per_target(self) -> int:
        """The number of quantiles."""
        return len(self.quantiles)

    def point(self, AL: Any) -> Any:
        """The quantile nearest to the median."""
        middle = min(range(self.per_target), key=lambda i: abs(self.quantiles[i] - 0.5))
        return AL[:, middle :: self.per_target]

    def _tilted(self, xp: Namespace, d: Array, of: Callable[[Namespace, Array], Array]) -> Array:
        """w of(d), row by row of its own quantile."""
        rows = []
        for i, q in enumerate(self.quantiles):
            part = d[i :: self.per_target, :]
            rows.append(xp.where(xp.greater(part, 0.0), (1.0 - q) * of(xp, part), q * of(xp, part)))
        return xp.reshape(xp.stack(rows, axis=1), d.shape)

    def value(self, xp: Namespace, Z: Array, Y: Array) -> Array:
        """L = 1/n_L sum_k w |Z - Y|."""
        each = self._tilted(xp, Z - Y, lambda xp, d: xp.abs(d))
        return xp.sum(each, axis=0, keepdims=True) * (1.0 / Z.shape[0])

    def delta(self, xp: Namespace, Z: Array, Y: Array) -> Array:
        """dL/dZ = w sign(Z - Y) / n_L, 0 where they are equal."""
        return self._tilted(xp, Z - Y, lambda xp, d: xp.sign(d)) * (1.0 / Z.shape[0])

    def spec(self) -> dict[str, Any]:
        """What :func:`get_loss` takes back."""
        return {"name": self.name, "quantiles": list(self.quantiles)}


LOSSES: dict[str, type[Loss]] = {
    c.name: c
    for c in (BinaryCrossEntropy, CategoricalCrossEntropy, SquaredError, AbsoluteError, Huber, Poisson, Quantile)
}


_NEEDS = ("name", "link_name", "labels", "value", "delta")
_LABELS = ("binary", "classes", "groups", "values")


def get_loss(spec: str | dict[str, Any] | Loss) -> Loss:
    """Look a loss up: ``"squared_error"``, ``{"name": "huber", "threshold": 0.5}`` or a Loss, someone's own too.

    Raises
    ------
    ConfigError
        For an unknown name or parameter, or an unfinished subclass.
    """
    named = spec.get("name") if isinstance(spec, dict) else None
    if isinstance(spec, GroupedCrossEntropy) or named == GroupedCrossEntropy.name:
        # Not in LOSSES, whose losses are all there by name alone: the number of classes has no default.
        return create("loss", Loss, _NEEDS, {GroupedCrossEntropy.name: GroupedCrossEntropy}, spec)
    loss = create("loss", Loss, _NEEDS, LOSSES, spec)
    if loss.labels not in _LABELS or loss.link_name not in ACTIVATIONS:
        raise ConfigError(
            f"loss {loss.name!r}: labels must be one of {', '.join(_LABELS)} and link_name one of "
            f"{', '.join(ACTIVATIONS)}; got {loss.labels!r} and {loss.link_name!r}"
        )
    return loss
