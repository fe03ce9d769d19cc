"""``python -m backprop_gpu.accel [options] script.py | -m module [arguments]``: as Python runs it, and accelerated."""

from __future__ import annotations

import argparse
import atexit
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType, TracebackType

from ..errors import BackpropError
from . import usage_report
from .installing import install

_TEXT = "Runs a scikit-learn script unchanged, with MLPClassifier and MLPRegressor computed by backprop_gpu."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; 0, or what it exits with. An error of the script is shown by Python, with the script's trace."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.module and not options.script:
        parser.error("a script or -m module is needed")
    try:
        install(device=options.device, dtype=options.dtype, verbose=options.verbose)
    except BackpropError as error:
        parser.error(str(error))
    if not options.quiet:
        owner = os.getpid()
        atexit.register(lambda: sys.stderr.write(usage_report.report() + "\n") if os.getpid() == owner else None)
    sys.excepthook = _without_our_frames
    try:
        _run_module(options.module) if options.module else _run_script(options.script)
    except KeyboardInterrupt:
        sys.excepthook(*sys.exc_info())
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m backprop_gpu.accel", description=_TEXT)
    add = parser.add_argument
    add("--device", default="auto", help="auto | cpu | cuda[:i] | NAMESPACE[:DEVICE] (default: auto)")
    add("--dtype", choices=("float32", "float64"), help="what is computed in (default: the input's)")
    volume = parser.add_mutually_exclusive_group()
    volume.add_argument("-q", "--quiet", action="store_true", help="no report at the end")
    volume.add_argument("-v", "--verbose", action="store_true", help="a line for each call, as it ends")
    add("-m", dest="module", nargs=argparse.REMAINDER, metavar="module", help="a module and its arguments")
    add("script", nargs=argparse.REMAINDER, help="a script and its arguments")
    return parser


def _run_script(words: list[str]) -> None:
    script = words[0]
    if not os.path.exists(script):
        sys.stderr.write(f"{usage_report.PREFIX}can't open file {script!r}: no such file\n")
        sys.exit(2)
    sys.argv[:] = words
    if not os.path.isfile(script) or script.endswith((".zip", ".pyz")):  # a folder or an archive with __main__.py
        _first_on_path(script)
        runpy.run_path(script, run_name="__main__")
        return
    _first_on_path(os.path.dirname(os.path.realpath(script)))
    module, file = ModuleType("__main__"), os.path.abspath(script)
    loader = _Script("__main__", file)
    vars(module).update(__file__=file, __cached__=None, __loader__=loader)
    sys.modules["__main__"] = module
    loader.exec_module(module)


class _Script(SourceFileLoader):
    """Runs a file as Python runs a script, which is not compiled into __pycache__."""

    def path_stats(self, path: str) -> Mapping[str, int]:
        """None."""
        raise OSError


def _run_module(words: list[str]) -> None:
    sys.argv[:] = words
    _first_on_path(os.getcwd())
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


def _first_on_path(folder: str) -> None:
    """The folder where Python has the script's; this package stays importable, for worker processes too."""
    if not sys.flags.safe_path:
        sys.path[0] = folder
    home = str(Path(__file__).resolve().parents[2])
    if home not in sys.path:
        sys.path.append(home)


def _without_our_frames(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Python's own way to show an error, from the script's first line on."""
    ours = (__file__, str(Path(__file__).with_name("__main__.py")), runpy.run_path.__code__.co_filename)
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith((*ours, "<frozen importlib.")):
        trace = trace.tb_next
    sys.__excepthook__(kind, error.with_traceback(trace), trace)
