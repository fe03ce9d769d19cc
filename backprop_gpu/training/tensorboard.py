"""TensorBoard's event files, written without TensorBoard.

A file is a sequence of records (TFRecord): the length of the data (uint64), its checksum, the data, their checksum, all
little-endian. The checksum is CRC-32C (Castagnoli), rotated and shifted by a constant ("masked"). The data are an
``Event`` message in the encoding of protocol buffers: field 1 wall time (double), 2 step (varint), 3 the file's version
(string), 5 a summary, whose field 1 holds a value with a tag (1) and a number (2, float).
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .callbacks import Callback, Epoch
from .growing_file import GrowingFile

PREFIX = "events.out.tfevents."
_VERSION = b"brain.Event:2"


class TensorBoard(Callback):
    """Writes the numbers of each epoch for TensorBoard, at the epoch's number of steps.

    Tags are ``cost`` (J), ``learning_rate``, ``validation/cost``, ``training/cost``, ``layers/gradient 1``, ... A fit
    that is resumed goes on in its event file, without the epochs that were lost.

    Parameters
    ----------
    folder : path
        Made if it is not there; ``tensorboard --logdir`` takes it or a folder above it.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._file: GrowingFile | None = None

    def on_start(self, epochs: int) -> None:
        """Open a new event file, or the newest one of a fit that is resumed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        there = sorted(self.folder.glob(f"{PREFIX}*")) if self.resumed else []
        name = f"{PREFIX}{int(time.time()):010d}.{socket.gethostname() or 'host'}.{os.getpid()}"
        self._file = GrowingFile(there[-1] if there else self.folder / name, anew=not there)
        if not there:
            self._file.write(_begin())

    def on_resume(self, epochs: Sequence[Epoch]) -> None:
        """Keep the records of these epochs; write them again where some are missing."""
        assert self._file is not None, "on_start opens the file"
        size, steps, content = 0, list[int](), self._file.content()
        for end, step in _records(content):
            if step > epochs[-1].step:
                break
            size = end
            steps += [step] if step else []  # the file's version has none
        if steps == [epoch.step for epoch in epochs]:
            self._file.keep(size)
            return
        self._file.keep(0)
        began = time.time() - epochs[-1].seconds
        self._file.write(_begin() + b"".join(_event(e, began + e.seconds) for e in epochs))

    def on_epoch(self, epoch: Epoch) -> None:
        """Append a record."""
        assert self._file is not None, "on_start opens the file"
        self._file.write(_event(epoch, time.time()))

    def on_end(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def scalars(epoch: Epoch) -> dict[str, float]:
    """The numbers of an epoch by the names that trackers show."""
    found = {"cost": epoch.cost, "learning_rate": epoch.learning_rate}
    for kind in ("training", "validation", "layers"):
        found |= {f"{kind}/{key}": value for key, value in getattr(epoch, kind).items()}
    return found


# -- records -----------------------------------------------------------------------------------------------------------


def _table() -> list[int]:
    found = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)  # the polynomial 0x1EDC6F41, bits reversed
        found.append(byte)
    return found


_CRC = _table()


def masked_crc32c(data: bytes) -> int:
    """The checksum of a record: CRC-32C (RFC 3720, appendix B.4), masked as TFRecord does."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _CRC[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 0x7F:
        out.append(0x80 | (n & 0x7F))
        n >>= 7
    return bytes([*out, n])


def _bytes(field: int, data: bytes) -> bytes:
    return bytes([field << 3 | 2]) + _varint(len(data)) + data


def _begin() -> bytes:
    return _record(b"\x09" + struct.pack("<d", time.time()) + _bytes(3, _VERSION))


def _event(epoch: Epoch, now: float) -> bytes:
    return _record(
        b"\x09" + struct.pack("<d", now) + b"\x10" + _varint(epoch.step) + _bytes(5, _summary(scalars(epoch)))
    )


def _summary(values: Mapping[str, float]) -> bytes:
    return b"".join(
        _bytes(1, _bytes(1, tag.encode()) + b"\x15" + struct.pack("<f", _float32(x))) for tag, x in values.items()
    )


def _float32(x: float) -> float:
    """What a float32 holds: infinity where it is larger."""
    try:
        struct.pack("<f", x)
    except OverflowError:
        return float("inf") if x > 0 else float("-inf")
    return x


def _records(content: bytes) -> Iterator[tuple[int, int]]:
    """Where each record of ours ends, and its step (0: none); up to the first that is cut off or damaged."""
    at = 0
    while at + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        end = at + 12 + length + 4
        data = content[at + 12 : end - 4]
        if end > len(content) or struct.unpack_from("<I", content, end - 4)[0] != masked_crc32c(data):
            return
        yield end, _step(data)
        at = end


def _step(data: bytes) -> int:
    if len(data) < 10 or data[9] != 0x10:
        return 0
    step = 0
    for k, byte in enumerate(data[10:20]):
        step |= (byte & 0x7F) << 7 * k
        if byte < 0x80:
            break
    return step
