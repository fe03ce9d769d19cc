"""``pytest -p plugin``: CuPy and the package compile their kernels with g++, for the emulated card.

``EMULATED_FTZ=1`` runs CuPy's own kernels with subnormal numbers flushed to zero, as its ``-ftz=true`` does;
``EMULATED_FMA=1`` lets their compiler contract a product and a sum, as NVRTC may.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import subprocess
import warnings
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BUILT = Path(os.environ["EMULATED_CARD"]) / "kernels"
KERNEL = re.compile(r'extern "C"\s*__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(')
FLAGS = ("-std=c++17", "-O1", "-fPIC", "-shared", "-w", "-fno-strict-aliasing", "-Wl,-Bsymbolic")


def built(text: str, kernels: list[str], *flags: str) -> bytes:
    """The "machine code" of a source: the path of its library."""
    as_fibers = str(bool(re.search(r"__syncthreads|__shfl|atomic", text))).lower()
    binds = "\n".join(f"BIND({name}, {as_fibers})" for name in kernels)
    source = f'#include "device.h"\n{text}\n{binds}\n'
    headers = (HERE / "device.h").read_text(encoding="utf-8")
    library = BUILT / (hashlib.sha256((headers + source + str(flags)).encode()).hexdigest()[:24] + ".so")
    if not library.is_file():
        BUILT.mkdir(parents=True, exist_ok=True)
        part = library.with_suffix(f".{os.getpid()}")
        command = ["g++", *FLAGS, *flags, f"-I{HERE}", "-x", "c++", "-", "-o", str(part)]
        done = subprocess.run(command, input=source, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"g++ cannot compile {kernels}: {done.stderr[:3000]}")
        part.replace(library)
    return b"EMULATED:" + os.fsencode(library) + b"\0"


def of_cupy(source: str, *_: Any, **__: Any) -> tuple[bytes, None]:
    """In the place of CuPy's call of NVRTC."""
    text = re.sub(r"#include <cupy/(complex|atomics|math_constants|hip)[^>]*>", "", source)
    shared = r"__shared__\s+([\w:<> ]+?)\s+(\w+)\s*\[(.*?)\];"
    text = re.sub(shared, r"SHARED(\1, \2, \3);", text)
    spec = importlib.util.find_spec("cupy")
    assert spec is not None
    assert spec.origin is not None
    flags = [f"-I{Path(spec.origin).parent / '_core' / 'include'}"]
    flags += ["-ffp-contract=fast", "-mfma", "-O2"] if os.environ.get("EMULATED_FMA") == "1" else ["-ffp-contract=off"]
    flags += ["-DEMULATED_FTZ"] if os.environ.get("EMULATED_FTZ") == "1" else []
    return built(text, KERNEL.findall(source), *flags), None


def of_package(nvrtc: Any, text: str, architecture: int) -> bytes:
    """In the place of ``backends.cuda.compile.machine_code``, whose kernels have their own ``fma`` and no ``-ftz``."""
    body = text.replace("__shared__ type name[count]", "")
    body = re.sub(r"#define SHARED\(.*\n", "", body)
    return built(
        f"namespace package {{\n{body}\n}}\nusing namespace package;\n", KERNEL.findall(text), "-ffp-contract=off"
    )


def pytest_configure() -> None:
    """Before anything is imported that launches a kernel."""
    warnings.filterwarnings("ignore", message=".*CuPy failed.*")
    from cupy.cuda import compiler

    from backprop_gpu.backends.cuda import compile

    compiler._compile_using_nvrtc_no_warning = of_cupy
    compiler._preprocess = lambda *_: "emulated"
    compile.machine_code = of_package
