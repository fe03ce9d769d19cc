"""Machine code that loads without a linker: an object file's sections laid out once, ready to be copied anywhere.

On Linux on x86-64, where code is written relative to itself. What it calls outside, such as ``memcpy``, goes through a
jump whose target is filled in when the code is loaded. Elsewhere object files are kept as they are.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import platform
import struct
import sys
from typing import Any

from ....errors import DeviceError

SUPPORTED = sys.platform == "linux" and platform.machine() == "x86_64" and sys.maxsize > 2**32
MAGIC = b"image "  # then where the function begins and NAME@OFFSET of what it calls, up to the end of the line

_JUMP = bytes.fromhex("ff2500000000")  # jmp *(%rip): to the address in the 8 bytes that follow
_ALLOCATED, _WRITTEN = 2, 1  # flags of a section
_CODE, _RELOCATIONS, _SYMBOLS = 1, 4, 2  # types of a section
_ALIGNED = 64  # bytes: images begin at a multiple, and their sections at no greater one
_RELATIVE = (2, 4)  # R_X86_64_PC32, R_X86_64_PLT32


def image(elf: bytes, symbol: str) -> bytes | None:
    """The object file as an image whose one function is ``symbol``; None if it holds what an image cannot."""
    sections = _sections(elf)
    code, begins = bytearray(), dict[int, int]()
    for i, (name, kind, flags, at, size, _, _, align) in enumerate(sections):
        if not flags & _ALLOCATED or size == 0 or name.startswith(".eh_frame"):
            continue
        if kind != _CODE or flags & _WRITTEN or align > _ALIGNED:
            return None
        code += bytes(-len(code) % max(align, 1))
        begins[i] = len(code)
        code += elf[at : at + size]
    names = _symbols(elf, sections)
    jumps: dict[str, int] = {}
    for _, kind, _, at, size, _, target, _ in sections:
        if kind != _RELOCATIONS or target not in begins:
            continue
        for offset, info, addend in struct.iter_unpack("<QQq", elf[at : at + size]):
            name, section, value = names[info >> 32]
            if info & 0xFFFFFFFF not in _RELATIVE:
                return None
            if section in begins:
                goal = begins[section] + value
            elif section == 0 and name and hasattr(_system(), name):
                goal = jumps.setdefault(name, len(code) + -len(code) % 16)
                if goal >= len(code):
                    code += bytes(goal - len(code)) + _JUMP + bytes(8)
            else:
                return None
            place = begins[target] + offset
            struct.pack_into("<i", code, place, goal + addend - place)
    starts = [begins[section] + value for name, section, value in names if name == symbol and section in begins]
    if len(starts) != 1:
        return None
    calls = [f"{name}@{at + len(_JUMP)}" for name, at in jumps.items()]
    return MAGIC + " ".join([str(starts[0]), *calls]).encode() + b"\n" + bytes(code)


def _sections(elf: bytes) -> list[tuple[str, int, int, int, int, int, int, int]]:
    """Name, type, flags, offset, size, link, info and alignment of each."""
    table, size, count, names = (
        *struct.unpack_from("<Q", elf, 0x28),
        *struct.unpack_from("<HHH", elf, 0x3A),
    )
    raw = [struct.unpack_from("<IIQQQQIIQQ", elf, table + size * i) for i in range(count)]
    return [(_text(elf, raw[names][4] + s[0]), s[1], s[2], s[4], s[5], s[6], s[7], s[8]) for s in raw]


def _symbols(elf: bytes, sections: list[Any]) -> list[tuple[str, int, int]]:
    """Name, section and value of each."""
    _, _, _, at, size, link, _, _ = next(s for s in sections if s[1] == _SYMBOLS)
    found = struct.iter_unpack("<IBBHQQ", elf[at : at + size])
    return [(_text(elf, sections[link][3] + s[0]), s[3], s[4]) for s in found]


def _text(elf: bytes, at: int) -> str:
    return elf[at : elf.index(b"\0", at)].decode()


@functools.cache
def _system() -> ctypes.CDLL:
    """The C library, through what the process has loaded."""
    system = ctypes.CDLL(None, use_errno=True)
    system.mmap.restype = ctypes.c_void_p
    system.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    system.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return system


_ended = [0]


def load(made: bytes) -> int:
    """Put an image into memory, for as long as the process lives; returns the function's address.

    Raises
    ------
    DeviceError
        If the system does not allow code to be made at run time.
    """
    head, _, code = made.partition(b"\n")
    start, *calls = head[len(MAGIC) :].decode().split()
    whole = bytearray(code)
    for name, _, at in (each.partition("@") for each in calls):
        struct.pack_into("<Q", whole, int(at), ctypes.cast(_system()[name], ctypes.c_void_p).value or 0)
    # Where the one before ended within a page: beginnings that all lay alike would share few lines of the cache.
    shift = _ended[0] % mmap.PAGESIZE
    system, size = _system(), shift + len(whole)
    # Never both written and run. Not Python's mmap: threads may run the code while the interpreter takes it down.
    place = system.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    if place in (None, ctypes.c_void_p(-1).value):
        raise MemoryError
    ctypes.memmove(place + shift, bytes(whole), len(whole))
    if system.mprotect(place, size, mmap.PROT_READ | mmap.PROT_EXEC):
        raise DeviceError("this system does not let a process run code that it has compiled; use kernels: host")
    _ended[0] = shift + -(-len(whole) // _ALIGNED) * _ALIGNED
    return int(place) + shift + int(start)
