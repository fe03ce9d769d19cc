"""``python -m backprop_gpu`` and ``backprop-gpu``: the command line, and what signals do outside of a fit."""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False  # as in __init__
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

_WORDS = {signal.SIGINT: b"backprop-gpu: interrupted\n", signal.SIGTERM: b"backprop-gpu: terminated\n"}


def entry() -> NoReturn:
    """Run the command that the process was started for.

    SIGINT and SIGTERM end it with 130 and 143, without a traceback: at once while modules are loaded and when all is
    done, else by an exception, so that half-written files are removed. ``train`` has signals of its own while it trains
    (``training.signals``).
    """
    _take_signals(_exit)
    _share_cores()
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # nothing to be written yet; by default it would end the process
    from .cli import main
    from .errors import Stopped

    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise Stopped(number)

    try:
        _take_signals(stop)
        code = main()
        _take_signals(_exit)
    except Stopped as stopped:  # while the command line's own answer to one was under way
        code = stopped.exit_code
        _take_signals(_exit)
    except Exception:  # which foreign code, such as pydantic's, has made of one
        if not received:
            raise
        _exit(received[0], None)
    if received and code != 0:
        code = 128 + received[0]
    sys.exit(code)


def _share_cores() -> None:
    """Ranks of an MPI job on one machine share its cores; NumPy and our kernels read the number as they are loaded."""
    here = int(os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") or os.environ.get("MPI_LOCALNRANKS") or 1)
    if here > 1:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        os.environ.setdefault("OPENBLAS_NUM_THREADS", str(max(1, cores // here)))


def _take_signals(handler: object) -> None:
    for number in _WORDS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as of a job in the background
            signal.signal(number, handler)  # type: ignore[arg-type]


def _exit(number: int, frame: FrameType | None) -> None:
    os.write(2, _WORDS[signal.Signals(number)])
    os._exit(128 + number)


if __name__ == "__main__":
    entry()
