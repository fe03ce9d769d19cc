"""What ``backprop_gpu.explain`` returns: a network, a batch, and every number of the chain at any place of the 1/m."""

from __future__ import annotations

import functools
import html
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..atomic_file import write_file
from ..errors import ConfigError
from ..maths.ledger import Denominator
from .chain import Network, Tensors, backward, complex_step, forward, furthest, gradient, places, sizes_of_terms
from .page import page
from .steps import Step, steps_of

ROUNDING = 1e-12  # of the terms of a sum


@dataclass(frozen=True)
class Joined:
    """One way to put a batch's gradient together from its parts.

    Attributes
    ----------
    name, divides, joins : str
        Of the way; by what each part divides its sum; how the parts are put together.
    weights : tuple of float
        How much each example counts; 1/m each is right.
    gradient : dict
        ``dW1, db1, ...``.
    right : bool
        Whether it is the gradient of J, whatever the parts' sizes.
    error : float
        The largest difference from the gradient of J, relative to the largest entry of its tensor; below 1e-12 it is a
        rounding, relative to the terms. A tensor of zeros is not looked at.
    """

    name: str
    divides: str
    joins: str
    weights: tuple[float, ...]
    gradient: Tensors
    right: bool
    error: float


@dataclass(frozen=True)
class Batch:
    """The first m examples, forward and backward.

    Attributes
    ----------
    net : Network
    X, Y : ndarray
        (n_0, m), (n_L, m).
    """

    net: Network
    X: np.ndarray
    Y: np.ndarray

    @property
    def m(self) -> int:
        """The number of examples."""
        return self.X.shape[1]

    @functools.cached_property
    def forward(self) -> Tensors:
        """``A0, Z1, A1, ..., AL, L``, and ``J`` (1, 1)."""
        found = forward(self.net, self.X, self.Y)
        return found | {"J": np.sum(found["L"], keepdims=True) * Denominator.of("mean", self.m).inverse}

    def backward(self, place: str) -> Tensors:
        """Every dA, dZ, dW and db with the 1/m multiplied in at ``place``.

        ``"early"``, ``"late"``, or a tensor such as ``"dZ1"``, one of :func:`~.chain.places`.
        """
        known = places(self.net.L)
        at = {"early": 0, "late": len(known) - 1}.get(place, known.index(place) if place in known else -1)
        if at < 0:
            raise ConfigError(f"the 1/m can enter early, late or at one of {', '.join(known)}; got {place!r}")
        if at not in self._backward:
            self._backward[at] = backward(self.net, self.forward, self.Y, Denominator.of("mean", self.m), at)
        return self._backward[at]

    @functools.cached_property
    def _backward(self) -> dict[int, Tensors]:
        return {}

    @functools.cached_property
    def of_examples(self) -> list[Tensors]:
        """``dW1, db1, ...`` of each example's own loss, each by a pass of its own."""
        return [gradient(self.net, self.X[:, i : i + 1], self.Y[:, i : i + 1], 1.0) for i in range(self.m)]

    def mean_of_examples(self) -> Tensors:
        """The mean of the examples' own gradients."""
        return {name: np.mean([g[name] for g in self.of_examples], axis=0) for name in self.of_examples[0]}

    def split(self, parts: Sequence[int]) -> tuple[Joined, ...]:
        """The gradient from parts of these sizes (micro-batches, or ranks), put together rightly and wrongly.

        Raises
        ------
        ConfigError
            If the sizes do not add up to m.
        """
        sizes = list(parts)
        whole = all(isinstance(n, int | np.integer) and not isinstance(n, bool) and n > 0 for n in sizes)
        if not whole or sum(sizes) != self.m:
            example = [self.m - 1, 1] if self.m > 1 else [1]
            raise ConfigError(
                f"split must be whole numbers that add up to m = {self.m}, such as {example}; got {sizes}"
            )
        ends, K, m = list(itertools.accumulate(sizes)), len(sizes), self.m
        spans = [slice(end - n, end) for end, n in zip(ends, sizes, strict=True)]
        sums = [gradient(self.net, self.X[:, span], self.Y[:, span], 1.0) for span in spans]
        want, terms = gradient(self.net, self.X, self.Y, float(m)), sizes_of_terms(self.net, self.forward, self.Y)
        ways = (  # the divisor of a part of n examples, and the factor of what is added up
            ("sums over m, added", "m", "added", lambda n: float(m), 1.0, True),
            ("K times the sums over m, averaged", "m/K", "averaged", lambda n: m / K, 1.0 / K, True),
            ("means, averaged", "its own size", "averaged", float, 1.0 / K, False),
            ("means, added", "its own size", "added", float, 1.0, False),
        )
        found = []
        for name, divides, joins, divisor, factor, right in ways:
            each = [factor * Denominator(divisor(n)).inverse for n in sizes]
            got = {key: np.sum([c * g[key] for c, g in zip(each, sums, strict=True)], axis=0) for key in want}
            weights = tuple(c for c, n in zip(each, sizes, strict=True) for _ in range(n))
            error = rounding if (rounding := furthest(got, want, terms)) < ROUNDING else furthest(got, want)
            found.append(Joined(name, divides, joins, weights, got, right, error))
        return tuple(found)


@dataclass(frozen=True)
class Explanation:
    """A network and a batch, explained: print it, take its numbers, or write it as a page.

    Attributes
    ----------
    net : Network
        Its formulas and parameters, in float64.
    X, Y : ndarray
        (n_0, M), (n_L, M): all examples that the page can show.
    m : int
        How many of them are the batch at first.
    split : tuple of int
        Sizes of the parts that the batch is cut into at first.
    title : str
        What the numbers are of.
    notes : tuple of str
        What was left out of the reader's own model, one sentence each.
    feature_names : tuple of str
        Of the rows of X; empty: they have numbers.
    """

    net: Network
    X: np.ndarray
    Y: np.ndarray
    m: int
    split: tuple[int, ...]
    title: str
    notes: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()

    @functools.cached_property
    def steps(self) -> tuple[Step, ...]:
        """Every step of the chain with its formula and its line of source."""
        return steps_of(self.net)

    def batch(self, m: int | None = None) -> Batch:
        """The first ``m`` examples (default: ``self.m``)."""
        m = self.m if m is None else m
        if not 1 <= m <= self.X.shape[1]:
            raise ConfigError(f"m must be from 1 to the {self.X.shape[1]} examples that were given, got {m}")
        if m not in self._batches:
            self._batches[m] = Batch(self.net, self.X[:, :m], self.Y[:, :m])
        return self._batches[m]

    @functools.cached_property
    def _batches(self) -> dict[int, Batch]:
        return {}

    @functools.cached_property
    def complex_step(self) -> Tensors:
        """Each example's dL/dW and dL/db by the complex step, (n_l, n_{l-1}, M): a witness without a backward pass."""
        return complex_step(self.net, self.X, self.Y)

    def check(self, m: int | None = None) -> float:
        """The largest difference of dW and db, at every place of the 1/m, from the complex step of J.

        Relative to the size of the terms that each of them is a sum of; AL - Y has the terms AL and Y.
        """
        batch = self.batch(m)
        want = {f"d{name}": np.mean(g[:, :, : batch.m], axis=2) for name, g in self.complex_step.items()}
        terms = sizes_of_terms(self.net, batch.forward, batch.Y)
        return max(furthest(batch.backward(place), want, terms) for place in places(self.net.L))

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """The page, one self-contained file; written to ``path`` if that is given."""
        text = page(self)
        if path is not None:
            write_file(path, text)
        return text

    def __repr__(self) -> str:
        sizes = ", ".join(map(str, self.net.sizes))
        return f"<Explanation: [{sizes}], m = {self.m}, J = {self.batch().forward['J'][0, 0]:.6g}>"

    def _repr_html_(self) -> str:
        text, title = html.escape(self.to_html()), html.escape(self.title)
        return f'<iframe srcdoc="{text}" width="100%" height="900" title="{title}"></iframe>'
