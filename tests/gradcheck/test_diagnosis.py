"""The likely cause of a wrong gradient, and the layer, tensor and entry that the summary names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backprop_gpu.gradcheck.checking import GradientReport, TensorCheck
from backprop_gpu.gradcheck.diagnosis import Batch, diagnose

RNG = np.random.default_rng(5)
TERMS = [RNG.standard_normal((4, 4)) / 6 for _ in range(6)]
THETA = RNG.standard_normal((4, 4))
WANT = np.sum(TERMS, axis=0)
BATCH = Batch(m=6, n_out=3, mean=True)


def spoiled(at: Any, by: float = 0.5) -> np.ndarray:
    got = WANT.copy()
    got[at] += by
    return got


CASES: dict[str, tuple[np.ndarray, str]] = {
    "sign": (-WANT, "the sign is turned"),
    "missing": (6.0 * WANT, "the 1/m is missing (got/want 6)"),
    "twice": (WANT / 6.0, "the 1/m is applied twice"),
    "minus one": (WANT * 6 / 5, "divided by m - 1"),
    "lost count": (WANT * 5 / 6, "one example of m is lost"),
    "outputs": (3.0 * WANT, "summed over the 3 outputs"),
    "ranks": (2.0 * WANT, "doubled"),
    "both": (-6.0 * WANT, "the 1/m is missing, and the sign is turned"),
    "constant": (1.37 * WANT, "a constant factor (got/want 1.37)"),
    "zero": (0.0 * WANT, "all 0"),
    "transposed": (WANT.T.copy(), "equal to the transpose"),
    "rolled": (np.roll(WANT, 1, axis=0), "rows are rolled by 1"),
    "example": (WANT - TERMS[2], "example 2 is missing"),
    "example twice": (WANT + TERMS[5], "example 5 is counted twice"),
    "half": (np.sum(TERMS[:3], axis=0), "the sum is over the first half alone"),
    "every second": (np.sum(TERMS[::2], axis=0), "the sum is over every second example alone"),
    "no L2": (WANT - 0.3 * THETA, "the L2 penalty is missing"),
    "no L1": (WANT - 0.2 * np.sign(THETA), "the L1 penalty is missing"),
    "twice L2": (WANT + 0.3 * THETA, "the L2 penalty is added once too often"),
    "entry": (spoiled((1, 2)), "this entry alone is wrong"),
    "row": (spoiled(3), "row 3 (the last) of 4 alone is wrong"),
    "column": (spoiled((slice(None), 1)), "column 1 of 4 alone is wrong"),
    "float32": (WANT.astype(np.float32).astype(np.float64), "of float32"),
    "bf16": (WANT * (1.0 + 2.0**-9 * RNG.standard_normal(WANT.shape)), "of bfloat16"),
    "NaN": (spoiled((0, 0), np.nan), "1 entries are NaN"),
}


@pytest.mark.parametrize("case", CASES)
def test_cause(case: str) -> None:
    got, text = CASES[case]
    assert text in diagnose(got, WANT, BATCH, THETA, TERMS, penalized=True)


def test_a_penalty_on_biases_and_the_weights_denominator() -> None:
    assert "put on biases too" in diagnose(WANT + 0.3 * THETA, WANT, BATCH, THETA, TERMS, penalized=False)
    weighted = Batch(m=6, n_out=1, mean=True, weights_sum=7.5)
    text = diagnose(WANT * 7.5 / 6, WANT, weighted, THETA, TERMS, penalized=False)
    assert "divided by the number of examples, not by the sum of their weights" in text


def test_noise_has_no_cause() -> None:
    got = WANT + 0.3 * RNG.standard_normal(WANT.shape)
    assert diagnose(got, WANT, BATCH, THETA, TERMS, penalized=True) == ""


def test_the_summary_names_layer_tensor_entry_and_cause_of_the_first_fault_of_the_backward_pass() -> None:
    wrong = {"error": 1.0, "ok": False}
    report = GradientReport(
        (
            TensorCheck("W1", **wrong),
            TensorCheck("b1", 0.0, True),
            TensorCheck("W2", **wrong, worst=(1, 0), got=-2.0, want=2.0, cause="the sign is turned"),
            TensorCheck("b2", **wrong),
            TensorCheck("W3", 0.0, True),
        )
    )
    assert report.first is report.tensors[2]
    assert report.summary() == "gradient wrong in layer 2, dW2, entry [1, 0]: -2 for 2; the sign is turned"
    right = GradientReport((TensorCheck("W1", 3e-16, True),))
    assert right.first is None
    assert right.summary() == "gradient ok, worst relative error 3.0e-16"


def test_errors_larger_than_any_rounding_are_not_called_a_precision() -> None:
    got = WANT * (1.0 + 2.0**-7 * np.sign(RNG.standard_normal(WANT.shape)))
    assert "precision" not in diagnose(got, WANT, BATCH, THETA, TERMS, penalized=True)
