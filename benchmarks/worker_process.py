"""A process for each peer, which calls methods of one object there when asked over a pipe.

Two thread pools in one process, or two libraries that each believe to own the cores, would disturb each other. In a
process of its own a peer's pool sleeps while the others are measured, and repeats can still alternate between peers.

This file imports nothing of backprop_gpu at its top: a worker may take the package from another folder.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any


class WorkerProcess:
    """Makes ``home`` (``module:class``, in this folder) in a process of its own, and calls its methods.

    ``variables`` are set there, or with None removed, before anything else is imported. ``path``, if not empty, is the
    folder that the process imports ``backprop_gpu`` from.

    Raises
    ------
    MissingDependencyError, DeviceError
        If the object cannot be made, or a method fails there; the message is the process's own, in one line.
    """

    def __init__(self, home: str, *arguments: Any, variables: Mapping[str, str | None], path: str = "") -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, dict(variables), path))
        self._process.start()
        there.close()
        try:
            self.call(home, *arguments)
        except BaseException:
            self.close()
            raise

    def call(self, method: str, *arguments: Any) -> Any:
        """What the method returns there."""
        from backprop_gpu.errors import DeviceError

        try:
            self._pipe.send((method, arguments))
            error, value = self._pipe.recv()
        except (EOFError, OSError):
            raise DeviceError("its process died") from None
        if error is not None:
            raise error(value)
        return value

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(1.0)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()


def _serve(pipe: Connection, variables: dict[str, str | None], path: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C, and ends this process
    for name, value in variables.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    sys.path[:0] = [path] if path else []
    from backprop_gpu.errors import BackpropError, DeviceError, MissingDependencyError

    here: Any = None
    with contextlib.suppress(EOFError, OSError):
        while True:
            method, arguments = pipe.recv()
            try:
                if here is None:
                    module, _, name = method.partition(":")
                    here, answer = getattr(importlib.import_module(module, __package__), name)(*arguments), None
                else:
                    answer = getattr(here, method)(*arguments)
                pipe.send((None, answer))
            except Exception as error:
                kind = MissingDependencyError if isinstance(error, MissingDependencyError) else DeviceError
                text = str(error) if isinstance(error, BackpropError) else f"{type(error).__name__}: {error}"
                pipe.send((kind, " ".join(text.split())))
