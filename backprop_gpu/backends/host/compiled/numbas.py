"""From a Python function to object code by numba: for what ``translator`` does not know.

numba compiles the function to LLVM's language as ``int f(void **result, void **exception, int64, ...)``. What is called
is a C function around it, ``void symbol(int64, ...)``; everything else is made internal to the object.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from llvmlite import binding as llvm
from numba import types

from .parts import Part, inline

_ENTRY = """
declare i32 @"{native}"({parameters})
define void @"{symbol}"({arguments}) {{
    %result = alloca ptr
    %exception = alloca ptr
    %status = call i32 @"{native}"(ptr %result, ptr %exception{given})
    ret void
}}
"""
_NUMBAS = ("numba", ".numba", "NRT_", "Py", "_Py", "__svml")  # symbols that are there when numba is


def object_code(symbol: str, argument_count: int, function: Callable[..., Any] | Part) -> tuple[bytes, bool]:
    """Compile ``function`` of that many int64 for this machine; ``symbol`` is what can be called.

    Returns
    -------
    code : bytes
    alone : bool
        Whether it can be loaded into a process that has not imported numba.
    """
    _announce()
    made = (function if isinstance(function, Part) else inline(function)).dispatcher
    signature = (types.int64,) * argument_count
    made.compile(signature)
    compiled = made.overloads[signature]
    module = llvm.parse_assembly(made.inspect_llvm(signature))
    module.link_in(llvm.parse_assembly(_entry(symbol, compiled.fndesc.llvm_func_name, argument_count)))
    machine = compiled.library.codegen._tm
    _keep_one(module, symbol, machine)
    declared = [each.name for each in (*module.functions, *module.global_variables) if each.is_declaration]
    return machine.emit_object(module), not any(name.startswith(_NUMBAS) for name in declared)


def _entry(symbol: str, native: str, n: int) -> str:
    numbers = [f"i64 %a{i}" for i in range(n)]
    return _ENTRY.format(
        symbol=symbol,
        native=native,
        parameters=", ".join(["ptr", "ptr", *["i64"] * n]),
        arguments=", ".join(numbers),
        given="".join(f", {number}" for number in numbers),
    )


def _keep_one(module: Any, symbol: str, machine: Any) -> None:
    """Make all but ``symbol`` internal, since numba's names repeat from process to process, and drop what is unused."""
    for defined in (*module.functions, *module.global_variables):
        if not defined.is_declaration and defined.name != symbol:
            defined.linkage = "internal"
    passes = llvm.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))


@functools.cache
def _announce() -> None:
    """Say once that numba is at work, which takes seconds."""
    if sys.stderr:
        sys.stderr.write("backprop_gpu: compiling kernels for this machine, once: a few seconds\n")
