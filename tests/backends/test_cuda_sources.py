"""The CUDA kernels compile for the cards that count, with NVRTC or nvcc; neither needs a card."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

import pytest
from support import nvrtc

from backprop_gpu.backends import formula_ids
from backprop_gpu.backends.cuda import compile
from backprop_gpu.backends.cuda.plan import CUDA
from backprop_gpu.errors import DeviceError
from backprop_gpu.maths.activations import ACTIVATIONS, get_activation
from backprop_gpu.maths.losses import LOSSES, get_loss
from backprop_gpu.maths.optimizers import OPTIMIZERS, get_optimizer

OBSTACLE, NO_NVRTC = nvrtc.obstacle(), nvrtc.obstacle(nvcc=False)
needs_compiler = pytest.mark.skipif(OBSTACLE is not None, reason=str(OBSTACLE))
needs_nvrtc = pytest.mark.skipif(NO_NVRTC is not None, reason=str(NO_NVRTC))


def machine_code(text: str, architecture: int, folder: Path) -> bytes:
    """By NVRTC as the package calls it, else by nvcc."""
    if nvrtc.nvrtc() is None:
        return nvrtc.by_nvcc(text, architecture, folder)
    if architecture not in nvrtc.nvrtc().getSupportedArchs():  # type: ignore[union-attr]
        pytest.skip(f"this NVRTC does not know sm_{architecture}")
    assert nvrtc.warnings(text, architecture, compile.OPTIONS) == ""
    return compile.machine_code(nvrtc.nvrtc(), text, architecture)


ARCHITECTURES = (80, 90, 100)
COMPILED = list(itertools.product(compile.modules(), compile.REALS, ARCHITECTURES))
if not os.environ.get(
    "BACKPROP_GPU_LONG_TESTS"
):  # each module in each type, and on each architecture half of the modules
    COMPILED = [
        (module, dtype, ARCHITECTURES[(place + shift) % 3])
        for place, module in enumerate(compile.modules())
        for shift, dtype in enumerate(compile.REALS)
    ]


@needs_compiler
@pytest.mark.parametrize(("module", "dtype", "architecture"), COMPILED)
def test_compiles_without_a_warning(module: str, dtype: str, architecture: int, tmp_path: Path) -> None:
    code = machine_code(compile.source(module, dtype), architecture, tmp_path)
    assert code.startswith(b"\x7fELF")
    for kernel in compile.parameters(module):
        assert f".text.{kernel}".encode() in code, f"{kernel} is not in the machine code"


@needs_nvrtc
def test_a_card_that_nvrtc_does_not_know_gets_ptx() -> None:
    """Which the driver translates; subnormal numbers are kept, and products are rounded before they are added to."""
    code = compile.machine_code(nvrtc.nvrtc(), compile.source("layers", "float32"), 999)
    assert b".entry activation_vjp" in code
    assert b"mul.rn.f32" in code
    assert b"mul.f32" not in code  # which the driver might contract
    assert b"ftz" not in code


@needs_nvrtc
def test_a_complaint_of_the_compiler_is_one_line() -> None:
    with pytest.raises(DeviceError, match=r"NVRTC cannot compile the CUDA kernels for sm_90: .*nowhere") as caught:
        compile.machine_code(nvrtc.nvrtc(), 'extern "C" __global__ void k(float* x) { *x = nowhere; }', 90)
    assert "\n" not in str(caught.value)


@needs_nvrtc
def test_a_warning_is_seen() -> None:
    text = 'extern "C" __global__ void k(float* x) { int unused; }'
    assert "never referenced" in nvrtc.warnings(text, 90, compile.OPTIONS)


def test_cupys_own_nvrtc_compiles_the_same(tmp_path: Path) -> None:
    """The functions that the package calls are CuPy's; this needs CuPy with NVRTC, but no card."""
    cupy_nvrtc = pytest.importorskip("cupy", reason="CuPy is not installed").cuda.nvrtc
    try:
        cupy_nvrtc.getVersion()
    except Exception as error:
        pytest.skip(f"CuPy finds no NVRTC: {type(error).__name__}")
    code = compile.machine_code(cupy_nvrtc, compile.source("flat", "float32"), 90)
    assert code.startswith(b"\x7fELF")
    with pytest.raises(DeviceError, match="NVRTC cannot compile"):
        compile.machine_code(cupy_nvrtc, "nonsense", 90)


@pytest.mark.parametrize("dtype", compile.REALS)
@pytest.mark.parametrize("module", compile.modules())
def test_a_source_is_whole(module: str, dtype: str) -> None:
    """Nothing is left to include: NVRTC is given no folders."""
    text = compile.source(module, dtype)
    assert not re.search(r"^\s*#\s*include", text, re.MULTILINE)
    assert f"#define REAL {compile.REALS[dtype]}\n" in text


def test_every_argument_of_a_kernel_is_eight_bytes() -> None:
    kinds = {kind for module in compile.modules() for kernel in compile.parameters(module).values() for kind in kernel}
    assert kinds == {"pointer", "integer", "double"}


def test_no_float_is_added_atomically() -> None:
    """Its order, and so the last bits of a sum, would change from run to run."""
    for file in (*compile.SOURCES.iterdir(), *(formula_ids.NATIVE_SOURCES / "formulas").iterdir()):
        found = re.findall(r"atomic\w+\([^;]*;", file.read_text(encoding="utf-8"))
        assert all(call == "atomicAdd(counter, 1u);" for call in found), f"{file.name}: {found}"


def test_a_formula_is_said_once() -> None:
    """CUDA's sources include the CPU's formulas, and no compiler contracts a product and a sum by itself."""
    for module in compile.modules():
        assert '"../formulas/' in (compile.SOURCES / f"{module}.cu").read_text(encoding="utf-8") or module == "data"
    assert "--fmad=false" in compile.OPTIONS


def test_every_id_is_one_of_its_kind_alone() -> None:
    for table in (formula_ids.ACTIVATION_IDS, formula_ids.OPTIMIZER_IDS):
        assert sorted(table.values()) == list(range(len(table)))
    assert set(formula_ids.LOSS_IDS.values()) == set(range(len(formula_ids.SEPARATE_LOSSES) + 1))


def test_maths_and_the_kernels_know_the_same() -> None:
    """Softmax has no kernel of its own, since it comes with its loss."""
    assert set(ACTIVATIONS) - set(formula_ids.ACTIVATION_IDS) == {"softmax"}
    assert set(LOSSES) - set(formula_ids.LOSS_IDS) == set()
    rules = {formula_ids.rule_of(get_optimizer(name), decay)[0] for name in OPTIMIZERS for decay in (False, True)}
    rules.add(formula_ids.rule_of(get_optimizer({"name": "momentum", "variant": "average"}), False)[0])
    assert rules == set(formula_ids.OPTIMIZERS)


def test_what_is_left_to_cupy_is_said_with_its_reason() -> None:
    relu, softmax = ACTIVATIONS["relu"], ACTIVATIONS["softmax"]
    loss, adam = get_loss("squared_error"), get_optimizer("adam")
    assert CUDA.layer_reason("float32", relu) == CUDA.update_reason("float64", adam) == ""
    assert CUDA.loss_reason("float32", loss, "fused") == ""
    assert CUDA.layer_reason("float32", softmax) == "activation softmax has no CUDA kernel"
    assert CUDA.loss_reason("float32", loss, "literal") == "delta: literal has no CUDA kernel, fused has"
    assert CUDA.dtype_reason("float16") == "float16 has no CUDA kernels, float32 and float64 have"
    bent = get_activation({"name": "leaky_relu", "slope": -0.3})
    assert CUDA.layer_reason("float32", bent) == "activation leaky_relu with a negative parameter has no CUDA kernel"
