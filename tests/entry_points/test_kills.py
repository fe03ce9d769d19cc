"""Runs that are killed, at a system call or at any time, go on to the same end: a sample of ``scripts/kill_test``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.io_faults import faults
from support.kills import CASES, Kills, Server

from backprop_gpu.maths.optimizers import OPTIMIZERS

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="faults of system calls need Linux")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(faults()) as started:
        yield started


@pytest.mark.parametrize("case", ["adamw", "amsgrad"])
def test_a_killed_run_goes_on_to_the_same_end(case: str, server: Server, tmp_path: Path) -> None:
    kills = Kills(server, tmp_path)
    kills.every_call(case, every=40)
    at_calls = kills.killed
    kills.at_random(case, 1, seed=0)
    assert not kills.wrong
    assert at_calls >= 2
    assert kills.resumed >= at_calls


def test_the_cases_have_every_optimizer() -> None:
    assert set(CASES) == set(OPTIMIZERS)
