"""Every fault of the list is found, by the replay at the tensor where it enters, and which other tools see it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from parity.faults import DROPOUT, EARLY, FAULTS, LATE, MICRO, NAN, Fault, Faulty, FaultyBackend, Plan, seeded
from parity.metamorphic import broken

from backprop_gpu.backends import Backend, get_backend
from backprop_gpu.gradcheck import gradcheck
from backprop_gpu.parity.checking import check
from backprop_gpu.parity.probes import probe, shapes_of
from backprop_gpu.parity.report import Report

NUMBERS = range(1, 46)
PLANS = {"early": EARLY, "late": LATE, "micro": MICRO, "dropout": DROPOUT, "nan": NAN}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Faults divide by zero and overflow; that is theirs."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


@dataclass(frozen=True)
class Caught:
    """What each tool said of one fault; ``located``: whether the replay's first tensor is where the fault entered."""

    replay: str
    located: bool
    probes: bool
    gradcheck: bool
    metamorphic: tuple[str, ...]

    @property
    def tools(self) -> list[str]:
        seen = {"replay": self.replay, "probes": self.probes, "gradcheck": self.gradcheck}
        return [*(name for name, found in seen.items() if found), *(["metamorphic"] if self.metamorphic else [])]


def replayed(plan: Plan, device: Backend | str) -> Report:
    X, y = plan.rows()
    return check(plan.net(device), X, y, steps=3, micro_batch=plan.micro_batch, **plan.settings)


def probes_fail(plan: Plan, device: Backend | str) -> bool:
    net = plan.net(device)
    found = probe(get_backend(device), net.kernels, shapes_of(net, plan.m))
    return any(f.status == "wrong" for f in found)


def gradcheck_fails(plan: Plan, device: Backend | str) -> bool:
    X, y = plan.rows()
    settings = {k: v for k, v in plan.settings.items() if k != "clip_norm"}
    return not gradcheck(plan.net(device, "float64"), X, y, **settings).ok


@cache
def caught(name: str) -> Caught:
    """All four tools on one fault."""
    fault = FAULTS[name]
    with seeded(fault) as device:
        first = replayed(fault.plan, device).first
        where = "" if first is None else first.tensor
        if fault.plan.nan:  # the complex step and the relations have no meaning where the weights have none
            return Caught(where, where == fault.at, probes_fail(EARLY, device), False, ())
        seen = probes_fail(fault.plan, device), gradcheck_fails(fault.plan, device)
        return Caught(where, where == fault.at, *seen, tuple(broken(fault.plan, device)))


@pytest.mark.parametrize("name", PLANS)
def test_without_a_fault_nothing_is_found(name: str) -> None:
    plan = PLANS[name]
    report = replayed(plan, "numpy")
    assert report.ok, report.summary()
    if not plan.nan:
        assert not any(f.status == "warning" for f in report.findings)
        assert not gradcheck_fails(plan, "numpy")
        assert broken(plan, "numpy") == []
    assert not probes_fail(EARLY, "numpy")


def test_the_list_is_complete() -> None:
    assert sorted(f.number for f in FAULTS.values()) == list(NUMBERS)


@pytest.mark.parametrize("fault", sorted(FAULTS.values(), key=lambda f: f.number), ids=lambda f: f"{f.number}-{f.name}")
def test_every_fault_is_caught(fault: Fault) -> None:
    assert caught(fault.name).tools, f"nothing sees {fault.name}"


def test_the_replay_finds_where_each_fault_enters() -> None:
    found = {name: caught(name) for name in FAULTS}
    seen = [name for name, c in found.items() if c.replay]
    elsewhere = {name: found[name].replay for name in seen if not found[name].located}
    assert len(elsewhere) <= 0.05 * len(seen), elsewhere
    assert len(seen) == len(FAULTS)


def test_which_tool_catches_which_fault() -> None:
    """The table, with what is known of each tool's reach: no tool but the replay sees everything."""
    lines = [f"{'fault':44} {'replay at':14} {'probes':7} {'gradcheck':10} metamorphic"]
    for fault in sorted(FAULTS.values(), key=lambda f: f.number):
        c = caught(fault.name)
        marks = f"{'yes' if c.probes else '-':7} {'yes' if c.gradcheck else '-':10}"
        lines.append(f"{fault.number:2} {fault.name:41} {c.replay:14} {marks} {', '.join(c.metamorphic) or '-'}")
    print("\n".join(lines))
    tools = {name: caught(name).tools for name in FAULTS}
    for name in ("labels_rolled", "two_rows_swapped", "sign_of_the_update", "learning_rate_in_fp16"):
        assert "gradcheck" not in tools[name], "the gradient of the wrong data is right"
    for name in ("product_in_tf32", "last_term_of_the_product_dropped", "edge_of_the_tile_left_out"):
        assert "probes" in tools[name]
    for name in ("g_prime_missing", "one_over_m_twice", "db_over_half_the_batch", "W_not_transposed_in_backward"):
        assert "gradcheck" in tools[name]
    for name in ("one_over_m_minus_1", "last_example_dropped", "sign_of_dZ"):
        assert "metamorphic" in tools[name]


# What the classifier must say of them, as far as a fault gives itself away by a number.
CAUSES = {
    "one_over_m_missing_in_dW": "the 1/m is missing (got/want 20)",
    "one_over_m_missing_in_db": "the 1/m is missing (got/want 20)",
    "one_over_m_twice": "the 1/m is applied twice (got/want 0.05)",
    "one_over_m_minus_1": "divided by m - 1 (got/want 1.05263)",
    "sign_of_dZ": "the sign is turned (got/want -1)",
    "sign_of_the_update": "of the step that was taken, the sign is turned (got/want -1)",
    "W_not_transposed_in_backward": "the matrix is transposed in the product",
    "transposed_W_in_forward": "the matrix is transposed in the product",
    "dW_transposed": "equal to the transpose",
    "last_example_dropped": "example 19 of 20 (the last) is missing in every sum",
    "last_term_of_the_product_dropped": "term 5 of 6 (the last) is missing in every sum",
    "edge_of_the_tile_left_out": "the last row of 6 alone: not computed, as at the edge of a tile",
    "db_over_half_the_batch": "the sum is over every second example alone",
    "stale_A_in_dW": "the right operand is that of the step before: stale",
    "wrong_cached_Z": "another mask: ",
    "g_prime_missing": "g' is missing: dZ is dA",
    "relu_mask_from_dA": "the mask is that of dA > 0",
    "tanh_prime_from_Z": "g' is taken as 1 - z^2",
    "sigmoid_prime_is_A": "g' is taken as a",
    "bias_missing": "the bias is missing",
    "bias_twice": "the bias is added twice",
    "W_updated_before_dA": "the left operand is another than was recorded",
    "addition_lost_in_a_race": "entry [0, 3] alone lacks example ",
    "stale_row": "wrong in row 1 of 4 alone: stale, or not written",
    "sum_of_losses_for_their_mean": "the 1/m is missing (got/want 20)",
    "labels_rolled": "rows are rolled by 1",
    "two_rows_swapped": "rows 0 and 1 are swapped",
    "learning_rate_in_fp16": "of the step that was taken, a constant relative error of ",
    "bit_of_a_weight_flipped": "entry [3, 5] of the left operand is off by ",
    "product_in_tf32": "operands rounded to 11 bits, as by tf32 or fp16",
    "product_in_bf16": "operands rounded to 8 bits, as by bf16",
    "sum_in_fp16": "a sum of lower precision",
    "fast_exp": "an approximation: off by up to 1.",
    "approximate_tanh": "an approximation: off by up to 0.000",
    "tanh_off_by_ten_ulp": "an approximation: off by up to 1.2e-06 (10",
    "leaky_in_forward_only": "another mask: ",
    "scaled_by_64_ulp": "a constant relative error of 7.6",
    "relu_prime_is_1_at_0": "on the other side of a kink, all where Z is exactly 0; all others are right",
    "adams_bias_correction_off_by_one": "the bias correction of step 2, not of step 1",
    "l2_on_biases": "the L2 penalty is put on biases too (0.015 times b)",
    "read_before_it_is_written": "wrong in the last row of 4 alone: stale",
    "generator_not_restored": "another mask: ",
    "ragged_micro_batch_weighted_equally": "micro-batches of different sizes are weighted equally (got/want 1.11111)",
    "nan_hidden_by_maximum": "20 entries are finite where their inputs give NaN or infinity",
    "memory_order_misread": "the right operand is read in the other memory order",
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_cause_is_named(name: str) -> None:
    with seeded(FAULTS[name]) as device:
        first = replayed(FAULTS[name].plan, device).first
    assert first is not None
    assert CAUSES[name] in first.cause


def test_two_faults_in_one_step_are_told_apart() -> None:
    both = FAULTS["bias_missing"], FAULTS["db_over_half_the_batch"]

    class Two(FaultyBackend):
        def kernels(self, kind: str = "auto") -> Faulty:
            kernels = Faulty(self, both[0])
            honest = kernels.dense_vjp_input
            other = Faulty(self, both[1])
            kernels.dense_vjp_input = other.dense_vjp_input  # type: ignore[method-assign]
            assert honest.__func__ is other.dense_vjp_input.__func__
            return kernels

    report = replayed(EARLY, Two(both[0]))
    assert [f.tensor for f in report.apart] == ["Z3", "db2"]
    assert report.first is not None
    assert report.first.tensor == "Z3"
