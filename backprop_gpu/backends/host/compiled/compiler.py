"""From a function to object code for this machine, through LLVM.

``translator`` writes most kernels in LLVM's language by itself; what it does not know, and whatever an environment with
settings of numba's asks for, numba does (``numbas``), for which it takes a second or so to be imported and to compile.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

from llvmlite import binding as llvm

from .edition import SETTINGS, as_imported
from .image import SUPPORTED
from .parts import Part
from .translator import translate
from .values import UntranslatableError


def object_code(symbol: str, argument_count: int, made: Callable[..., Any] | Part | str) -> tuple[bytes, bool]:
    """Compile a function of that many int64, or a text in LLVM's language, for this machine.

    Parameters
    ----------
    symbol : str
        What can be called.
    argument_count : int
    made : callable or str
        A text defines ``@kernel``, and writes its loops out itself where that is of use.

    Returns
    -------
    code : bytes
    alone : bool
        Whether it can be loaded into a process that has not imported numba.
    """
    if isinstance(made, str):
        return _machine_code(parsed(made), symbol, unroll=False), True
    module = _translated(argument_count, made)
    if module is not None:
        return _machine_code(module, symbol), True
    from .numbas import object_code as by_numba

    return by_numba(symbol, argument_count, made)


def _translated(argument_count: int, function: Any) -> Any:
    """A module of LLVM's; None where the translator does not know a word, or the source is not what is in memory."""
    if any(f"NUMBA_{name}" in os.environ for name in SETTINGS):
        return None
    try:
        module = parsed(translate(argument_count, function))
    except (UntranslatableError, RuntimeError):  # RuntimeError: a name that is not assigned on every way to its use
        return None
    return module if as_imported() else None


def parsed(text: str) -> Any:
    """A module of LLVM's from its text.

    Raises
    ------
    RuntimeError
        If it is not in order.
    """
    module = llvm.parse_assembly(text)
    module.verify()
    return module


def _machine_code(module: Any, symbol: str, unroll: bool = True) -> bytes:
    """Optimize a module and compile it; its ``@kernel`` becomes ``symbol``."""
    machine = target_machine()
    module.get_function("kernel").name = symbol
    module.triple, module.data_layout = llvm.get_process_triple(), str(machine.target_data)
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    tuning.loop_unrolling, tuning.loop_vectorization, tuning.slp_vectorization = unroll, True, False
    builder = llvm.create_pass_builder(machine, tuning)
    builder.getModulePassManager().run(module, builder)
    # What vector code stored it need not load again: only now is it known that the arrays lie apart.
    passes = llvm.create_new_module_pass_manager()
    passes.add_new_gvn_pass()
    passes.run(module, builder)
    return bytes(machine.emit_object(module))


@functools.cache
def target_machine() -> Any:
    """This processor with all its features."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    try:
        features = llvm.get_host_cpu_features().flatten()
    except RuntimeError:  # LLVM does not know for this processor
        features = ""
    options: dict[str, Any] = {"reloc": "pic", "codemodel": "small"} if SUPPORTED else {"jit": True}
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features, opt=3, **options)
