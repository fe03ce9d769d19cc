"""One SHA-256 of a thousand steps for each dtype, whatever the instruction set and the number of threads.

The hashes are those of every machine: a host without AVX-512 still judges AVX2. ``scripts/native_checks`` asks the same
of a library that another compiler built, and of aarch64 by a program in C++ (``native/tests/law.cpp``).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import same_bits

from backprop_gpu.backends import formula_ids
from backprop_gpu.backends.cpu.library import native_library, unavailable_reason
from backprop_gpu.maths.optimizers import OPTIMIZERS
from backprop_gpu.native import build

if unavailable_reason():
    pytest.skip(unavailable_reason(), allow_module_level=True)

SETS = [name for name in build.INSTRUCTION_SETS[build.machine()] if native_library().supports(name)]
RUNS = [(name, threads) for name in SETS for threads in (1, 7)] + [(SETS[0], 2), (SETS[0], 3)]


@pytest.mark.parametrize(("instruction_set", "threads"), RUNS)
def test_a_thousand_steps_have_the_hash_that_they_have_everywhere(instruction_set: str, threads: int) -> None:
    code = f"from support.same_bits import main; main({threads})"
    environment = os.environ | {
        "BACKPROP_GPU_INSTRUCTION_SET": instruction_set,
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
    }
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [instruction_set, same_bits.FLOAT32, same_bits.FLOAT64]


def test_the_networks_use_every_loss_and_optimizer_and_the_activations() -> None:
    """An activation that is added needs no new hash: tests/backends/test_cuda_bits.py takes them from the registry."""
    cases = same_bits.CASES.values()
    nets = [same_bits.make(case, "float32").step for case in cases]
    activations = {g.name for step in nets for g in step.net.activations[1:-1]}
    simple = {"identity", "relu", "leaky_relu", "elu", "tanh", "sigmoid"}
    assert {*simple, "gelu", "gelu_tanh", "silu", "softplus"} <= activations
    assert {step.net.loss.name for step in nets} == {*formula_ids.SOFTMAX_LOSSES, *formula_ids.SEPARATE_LOSSES}
    rules = {formula_ids.rule_of(step.optimizer, decay)[0] for step in nets for decay in (False, step.optimizer.decays)}
    assert rules == {*OPTIMIZERS, "momentum_average", "lion_decaying"}


@pytest.mark.parametrize(("batch_size", "micro_batch"), [(512, 256), (768, 256), (1000, 512), (700, 512), (300, 256)])
def test_micro_batches_of_whole_blocks_change_no_bit_of_the_weights(batch_size: int, micro_batch: int) -> None:
    """Up to three, whose sums are in the tree's own order, with 1/D in dZ. More are added from left to right."""
    case: dict[str, Any] = same_bits.CASES["large: decaying lion, dropout, clipping, weights"] | {
        "batch_size": batch_size
    }
    for dtype in ("float32", "float64"):
        whole, parts = (same_bits.make(case, dtype, micro) for micro in (None, micro_batch))
        for made in (whole, parts):
            for epoch in range(10):
                made.run(epoch)
        for a, b in (
            (whole.step.net.params.theta, parts.step.net.params.theta),
            (whole.step.optimizer_state[0], parts.step.optimizer_state[0]),
        ):
            assert a.tobytes() == b.tobytes()
