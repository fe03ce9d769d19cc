"""What is said of a fault: at least as many causes as were asked for tell its kind, and none contradicts itself."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import pytest
from parity.faults import FAULTS, Fault, Faulty, seeded
from parity.more_faults import DIAGNOSED
from parity.test_faults import CAUSES

from backprop_gpu.parity.checking import check
from backprop_gpu.parity.findings import Finding

MOST_UNNAMED = 16  # of all faults, as 60 of 76


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def first_of(name: str) -> Finding | None:
    """The first wrong tensor of a fault."""
    fault: Fault = DIAGNOSED[name].fault if name in DIAGNOSED else FAULTS[name]
    settings = dict(fault.plan.settings)
    X, y = fault.plan.rows()
    weights = np.linspace(0.5, 2.0, len(y)) if settings.pop("weights", False) else None
    with seeded(fault) as device:
        net, how = fault.plan.net(device), {"steps": 3, "micro_batch": fault.plan.micro_batch, **settings}
        return check(net, X, y, sample_weight=weights, **how).first


@pytest.mark.parametrize("name", DIAGNOSED)
def test_the_kind_of_fault_is_told(name: str) -> None:
    first = first_of(name)
    assert first is not None
    assert first.tensor == DIAGNOSED[name].fault.at
    assert DIAGNOSED[name].said in first.cause


@pytest.mark.parametrize("reveals", [True, False], ids=["Z kept", "Z not kept"])
def test_most_causes_tell_the_kind(reveals: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The count, over both lists; also of a kernel set that keeps nothing of a layer but A."""
    if not reveals:
        monkeypatch.setattr(Faulty, "debug_tensors", lambda self, saved: {})
    said = CAUSES | {name: told.said for name, told in DIAGNOSED.items()}
    found = {name: first_of(name) for name in said}
    assert None not in found.values(), "every fault is caught"
    untold = [name for name, first in found.items() if first is None or said[name] not in first.cause]
    print(f"{len(said) - len(untold)} of {len(said)} causes tell the kind of fault; not those of {', '.join(untold)}")
    assert len(said) >= 76
    assert len(untold) <= MOST_UNNAMED * len(said) // 76


def test_no_cause_contradicts_its_number() -> None:
    """No nothing by which something is off, no kink where there is none, no precision without a rounding."""
    for name in [*CAUSES, *DIAGNOSED]:
        first = first_of(name)
        assert first is not None
        cause = first.cause
        assert "off by up to 0 " not in cause, name
        assert "kink" not in cause or first.tensor.rstrip("0123456789") in ("A", "G", "dZ", "dU"), name
        if "precision" in cause or "bits" in cause:
            assert name.endswith(("_tf32", "_bf16", "_fp16")), name
