"""The laws of ``backends.base.Kernels`` for the last layer: cost and delta of every loss, fused and literal.

``Bench.run`` checks at every call that inputs stay, outputs share no memory with them, and bits repeat.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.backends import Case, cases
from support.bench import Bench, same_bits
from support.judging import ratio, summed

from backprop_gpu.maths.losses import LOSSES, GroupedCrossEntropy, Loss, get_loss
from backprop_gpu.parity.oracle import losses

ALL: list[Loss] = [
    *(get_loss(name) for name in LOSSES),
    get_loss({"name": "categorical_cross_entropy", "label_smoothing": 0.1}),
    get_loss({"name": "binary_cross_entropy", "label_smoothing": 0.1}),
    get_loss({"name": "quantile", "quantiles": [0.02, 0.5, 0.99]}),
    get_loss({"name": "huber", "threshold": 0.3}),
    get_loss({"name": "grouped_cross_entropy", "groups": [2, 1]}),
    get_loss({"name": "grouped_cross_entropy", "groups": [2, 1], "label_smoothing": 0.1}),
]
GROUPS = {1: (1,), 2: (2,), 3: (2, 1), 5: (4, 1), 6: (1, 3, 2)}
FORMS = ("fused", "literal")
SHAPES = [(1, 1), (1, 7), (3, 1), (5, 13), (2, 64), (6, 9)]  # (n_L, m)


def name_of(loss: Loss) -> str:
    return "-".join(str(x) for x in (loss.name, *vars(loss).values()))


def of_width(loss: Loss, n: int) -> Loss:
    """A loss of several labels for n outputs; any other as it is."""
    return replace(loss, groups=GROUPS[n]) if isinstance(loss, GroupedCrossEntropy) else loss


@pytest.fixture(params=["float32", "float64"])
def bench(request: pytest.FixtureRequest, case: Case) -> Bench:
    return Bench(case, request.param)


def data(bench: Bench, loss: Loss, n: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Z, Y and weights, of which some are 0. |Z| < 5: the literal form is exact away from saturation."""
    rng = np.random.default_rng([n, m])
    Z = np.clip(bench.normal(rng, n, m, scale=1.5), -5.0, 5.0)
    w = bench.normal(rng, 1, m) ** 2
    w[:, 1::3] = 0.0
    if loss.labels == "classes":
        Y = losses.one_hot(rng.integers(0, n, (1, m)), n)
    elif isinstance(loss, GroupedCrossEntropy):
        Y = np.vstack([losses.one_hot(rng.integers(0, k, (1, m)), k) for k in loss.groups])
    elif loss.labels == "binary":
        Y = rng.integers(0, 2, (n, m)).astype(float)
        Y[:, ::4] = rng.random((n, len(range(0, m, 4))))
    elif loss.name == "poisson":
        Y = rng.poisson(1.5, (n, m)).astype(float)
    else:
        Y = Z + bench.normal(rng, n, m)
        Y[:, ::5] = Z[:, ::5]
    return Z, Y.astype(bench.dtype), w


def judged(
    bench: Bench, loss: Loss, form: str, Z: Any, Y: Any, w: Any, *, early: bool, old: dict[str, np.ndarray] | None
) -> dict[str, Any]:
    """The outputs, after they were found within their bounds."""
    B, name, parameters = bench.B, loss.name, vars(loss)
    inverse = np.array([1.0 / 7.0], bench.dtype)
    out = bench.output_delta(loss, form, Z, Y, w, inverse=1.0 / 7.0, early=early, old=old)
    z, y, s = B.given(Z), B.given(Y), B.given(inverse)
    dZ = losses.output_delta(B, name, parameters, form, z, y, w, s if early else None)
    assert ratio(out["dZ"], dZ) <= 1.0
    db = summed(B, out["dZ"], None if early else inverse, None if old is None else old["db"])
    assert ratio(out["db"], db) <= 1.0
    start = B.given(np.zeros(1) if old is None else old["value"])
    assert ratio(out["value"], losses.cost(losses.weighted_loss(B, name, parameters, z, y, w), s, start)) <= 1.0
    return out


@pytest.mark.parametrize("early", [True, False], ids=["early", "late"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("loss", ALL, ids=name_of)
@pytest.mark.parametrize("case", cases())
def test_output_delta(bench: Bench, loss: Loss, form: str, early: bool) -> None:
    for n, m in SHAPES:
        if (loss.labels == "classes" and n == 1) or n % loss.per_target:
            continue
        loss = of_width(loss, n)
        Z, Y, w = data(bench, loss, n, m)
        rng = np.random.default_rng(8)
        old = {"db": bench.normal(rng, n, 1), "value": bench.normal(rng, 1)}
        plain = judged(bench, loss, form, Z, Y, None, early=early, old=None)
        judged(bench, loss, form, Z, Y, w, early=early, old=None)
        judged(bench, loss, form, Z, Y, w, early=early, old=old)
        ones = judged(bench, loss, form, Z, Y, np.ones_like(w), early=early, old=None)
        for key in plain:
            same_bits(ones[key], plain[key])


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan], ids=str)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("loss", ALL, ids=name_of)
@pytest.mark.parametrize("case", cases())
def test_an_example_of_weight_zero_contributes_nothing(bench: Bench, loss: Loss, form: str, bad: float) -> None:
    """Whatever its logits: the outputs have the bits that they have with harmless logits in their place."""
    Z, Y, w = data(bench, loss, 3, 9)
    spoiled, spared = Z.copy(), Z.copy()
    spoiled[:, w[0] == 0.0], spared[:, w[0] == 0.0] = bad, 0.25
    with np.errstate(all="ignore"):
        outs = [bench.output_delta(loss, form, logits, Y, w, inverse=0.125, early=True) for logits in (spoiled, spared)]
    for key in outs[0]:
        same_bits(outs[0][key], outs[1][key])
    same_bits(outs[0]["dZ"][:, w[0] == 0.0], np.zeros((3, 3), bench.dtype))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("case", cases())
def test_labels_are_one_hot_columns_bit_for_bit(bench: Bench, smoothing: float, form: str) -> None:
    loss = get_loss({"name": "categorical_cross_entropy", "label_smoothing": smoothing})
    for n, m in ((2, 1), (5, 13), (17, 6)):
        rng = np.random.default_rng([n, m])
        Z, labels = bench.normal(rng, n, m), rng.integers(0, n, (1, m))
        one, other = (
            bench.output_delta(loss, form, Z, Y, None, inverse=1.0 / m, early=True)
            for Y in (labels, losses.one_hot(labels, n).astype(bench.dtype))
        )
        for key in one:
            same_bits(one[key], other[key])


@pytest.mark.parametrize("loss", ALL, ids=name_of)
@pytest.mark.parametrize("case", cases())
def test_logits_far_out(bench: Bench, loss: Loss) -> None:
    """The fused form is the derivative wherever e^|Z| overflows; the literal one stays finite at AL = 0 and 1."""
    loss = of_width(loss, 2)
    size = np.array([0.0, 1e-6, 20.0, 90.0, 720.0, 1e4], bench.dtype)
    if loss.per_target > 2:
        loss = get_loss({"name": "quantile", "quantiles": [0.02, 0.99]})
    Z = np.stack([np.concatenate([size, -size]), np.zeros(12, bench.dtype)])
    for flip in (0.0, 1.0):
        Y = np.stack([np.full(12, flip), np.full(12, 1.0 - flip)]).astype(bench.dtype)
        B, s = bench.B, bench.B.given([0.25])
        z, y = B.given(Z), B.given(Y)
        with np.errstate(over="ignore", invalid="ignore"):  # e^Z itself overflows for the poisson loss
            out = bench.output_delta(loss, "fused", Z, Y, None, inverse=0.25, early=True)
            wanted = losses.output_delta(B, loss.name, vars(loss), "fused", z, y, None, s)
            cost = losses.cost(losses.weighted_loss(B, loss.name, vars(loss), z, y, None), s, B.given([0.0]))
        assert ratio(out["dZ"], wanted) <= 1.0
        assert ratio(out["value"], cost) <= 1.0
        if loss.name != "poisson":
            literal = bench.output_delta(loss, "literal", Z, Y, None, inverse=0.25, early=True)
            assert np.isfinite(literal["dZ"]).all()
