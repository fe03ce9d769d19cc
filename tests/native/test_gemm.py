"""Matrix products have the bits of scalar chains: a sample of those of ``native/tests/gemm_test.cpp``."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support.native import compiled

from backprop_gpu.backends.cpu.library import native_library, unavailable_reason
from backprop_gpu.native import build


@pytest.mark.parametrize("instruction_set", build.INSTRUCTION_SETS.get(build.machine(), {}))
def test_products_are_scalar_chains(instruction_set: str, tmp_path: Path) -> None:
    if unavailable_reason():
        pytest.skip(unavailable_reason())
    if not native_library().supports(instruction_set):
        pytest.skip(f"this processor has no {instruction_set}")
    program = compiled("gemm_test.cpp", tmp_path / "gemm_test", instruction_set=instruction_set)
    done = subprocess.run([str(program), "15"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("the bits of the scalar chain\n")
