"""The one grammar for naming a device: ``auto | cpu | cuda[:i] | NAMESPACE[:DEVICE]``.

``cpu`` is short for ``numpy`` and ``cuda:i`` for ``cupy:i``. The same words work in a configuration, on the command
line, in Python and in the environment variable ``BACKPROP_GPU_DEVICE``. Reading a name imports nothing.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

from .errors import DeviceError, did_you_mean

ENVIRONMENT_VARIABLE = "BACKPROP_GPU_DEVICE"

KERNEL_SETS = ("reference", "native", "cuda", "cuda-tf32", "cuda-bf16")
"""The names of kernel sets; each device has some of them (``Backend.kernels``), and ``auto`` is one of those."""

RENAMED_KERNEL_SETS = {
    "host": "native",
    "compiled": "native",
    "fused": "cuda",
    "fused-tf32": "cuda-tf32",
    "fused-bf16": "cuda-bf16",
}
"""Kernel sets that another has taken the place of: files and configurations that name them mean the new one."""

FORMS = "auto, cpu, cuda[:i], numpy, cupy[:i], torch[:cpu | :cuda:i], array_api_strict[:device1]"
"""Every form of a device name, for messages and help texts."""

# What may stand before the colon -> (namespace, the device meant when none is written, pattern of what may be written,
# an example for the error message).
_HEADS: dict[str, tuple[str, str | None, str, str]] = {
    "auto": ("auto", None, "", "auto"),
    "cpu": ("numpy", None, "", "cpu"),
    "numpy": ("numpy", None, "", "numpy"),
    "cuda": ("cupy", "0", "[0-9]{1,4}", "cuda:0"),
    "cupy": ("cupy", "0", "[0-9]{1,4}", "cupy:0"),
    "torch": ("torch", "cpu", "[a-z]+(:[0-9]{1,4})?", "torch:cpu or torch:cuda:0"),
    "array_api_strict": ("array_api_strict", "CPU_DEVICE", "[A-Za-z_][A-Za-z_0-9]*", "array_api_strict:device1"),
}


@dataclass(frozen=True)
class DeviceSpec:
    """A device name that was read. ``str()`` gives its canonical form: ``"numpy"``, ``"cupy:0"``, ``"torch:cpu"``.

    Attributes
    ----------
    namespace : str
        ``"auto"``, ``"numpy"``, ``"cupy"``, ``"torch"`` or ``"array_api_strict"``.
    device : str or None
        The device in the namespace's own words; None where there is nothing to choose.
    """

    namespace: str
    device: str | None = None

    def __str__(self) -> str:
        return self.namespace if self.device is None else f"{self.namespace}:{self.device}"


def parse(text: Any) -> DeviceSpec:
    """Read a device name (a str). Two names of the same device give equal results.

    Raises
    ------
    DeviceError
        For anything that is not in the grammar; the message says what to write.
    """
    if not isinstance(text, str):
        raise DeviceError(
            f"a device is named by a text such as 'auto' or 'cuda:0', not by {text!r}; use one of {FORMS}"
        )
    name = text.strip()
    head, colon, device = name.partition(":")
    if head.lower() == "gpu":
        raise DeviceError(f"there is no device {name!r}: write 'cuda{colon}{device}'")
    if head not in _HEADS:
        raise DeviceError(f"there is no device {name!r}{did_you_mean(head.lower(), _HEADS)}; use one of {FORMS}")
    namespace, default, pattern, example = _HEADS[head]
    if not colon:
        return DeviceSpec(namespace, default)
    if not device or not re.fullmatch(pattern, device):
        raise DeviceError(f"the device {name!r} is not understood: {head} has no device {device!r}; write {example}")
    if namespace == "cupy":
        device = str(int(device))
    return DeviceSpec(namespace, "cuda:0" if device == "cuda" else device)


def requested(explicit: str | DeviceSpec | None = None) -> DeviceSpec:
    """The device the user asked for: ``explicit``, if that is a device and not None or ``"auto"``; else
    ``BACKPROP_GPU_DEVICE``, if it is set and not empty; else ``auto``.

    Raises
    ------
    DeviceError
        When that name is not in the grammar; names the variable if it came from there.
    """
    spec = explicit if isinstance(explicit, DeviceSpec) or explicit is None else parse(explicit)
    if spec is not None and spec.namespace != "auto":
        return spec
    try:
        return parse(os.environ.get(ENVIRONMENT_VARIABLE, "").strip() or "auto")
    except DeviceError as error:
        raise DeviceError(f"environment variable {ENVIRONMENT_VARIABLE}: {error}") from None


def one_line(error: BaseException, limit: int = 160) -> str:
    """The telling line of an exception, with its type: foreign packages' messages often run over many lines."""
    # CuPy wraps the cause of a failed import in a banner; the cause stands under "Original error:".
    text = str(error).rpartition("Original error:")[2]
    line = next((part.strip() for part in text.splitlines() if re.search(r"\w", part)), "")
    kind = type(error).__name__
    if not line:
        return kind
    line = line if len(line) <= limit else line[: limit - 3] + "..."
    return line if re.match(r"\w*(Error|Exception): ", line) else f"{kind}: {line}"
