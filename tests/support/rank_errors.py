"""Fits on the ranks that started this, one of which gets an error: ``rank_errors.py WHAT RANK``."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from support.rank_fits import At, fit

from backprop_gpu.backends.collective import launched


def fail() -> None:
    """An error that nobody expects."""
    raise ValueError("unexpected")


def interrupt() -> None:
    """Ctrl-C, to one process."""
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)


def full_disk() -> None:
    """What a callback that writes meets."""
    with open("/dev/full", "w", encoding="utf-8") as file:
        file.write("history")


def caught() -> None:
    """An error that the script goes on after."""
    try:
        fit(epochs=5, callbacks=[At(3, fail)])
    except ValueError:
        fit()


WHAT: dict[str, Callable[[], Any]] = {
    "callback": lambda: fit(epochs=5, callbacks=[At(3, fail)]),
    "interrupt": lambda: fit(epochs=5, callbacks=[At(3, interrupt)]),
    "exit": lambda: fit(epochs=5, callbacks=[At(3, lambda: sys.exit(3))]),
    "disk": lambda: fit(epochs=5, callbacks=[At(3, full_disk)]),
    "between": fail,
    "early": lambda: sys.exit(0),
    "caught": caught,
    "data": lambda: fit(rows=-1),
}
SAID = {
    "callback": r"ValueError: unexpected\nrank {0} of 2 ended all ranks by this error",
    "interrupt": r"KeyboardInterrupt\nrank {0} of 2 ended all ranks by this error",
    "exit": r"DeviceError: rank {0} of 2 has left by SystemExit: 3, while rank {1} waits for the sum of the gradients",
    "disk": r"OSError: \[Errno 28\] No space left on device\nrank {0} of 2 ended all ranks by this error",
    "between": r"ValueError: unexpected\nrank {0} of 2 ended all ranks by this error",
    "early": r"DeviceError: rank {0} of 2 has ended, while rank {1} waits for a comparison",
    "caught": r"DeviceError: rank {0} of 2 has left by ValueError: unexpected, while rank {1} waits for the sum",
    "data": r"ValueError: negative dimensions are not allowed\nrank {0} of 2 ended all ranks by this error",
}

if __name__ == "__main__":
    what, rank = sys.argv[1:]
    fit()
    if launched().rank == int(rank):
        WHAT[what]()
    fit(epochs=5)
