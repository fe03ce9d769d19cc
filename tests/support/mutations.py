"""Files like valid ones, and not: bytes flipped, cut, repeated and spliced, or parts of their structure replaced.

Structural mutants keep what a reader checks first (a digest, a checksum, lengths), so that they reach what it checks
last. Everything follows from the generator that is passed in.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import random
import struct
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

MAGIC = [
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\0" * 8,
    b"\xff" * 8,
    b"\x93NUMPY",
    b"PK\3\4",
    b"\n",
    b'"',
    b"{",
    b"[",
    b",",
]
NUMBERS = [0, 1, -1, 2**7, 2**15, 2**16, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 10**6]
ODD_TEXTS = [
    "",
    "\0",
    "\n",
    "é",
    "\U0001f600",
    "x" * 5000,
    "nan",
    "inf",
    "-1",
    "1e400",
    "None",
    "../../etc/passwd",
    "%s",
]
ODD_TEXTS += ["__class__", "os.system", "relu", "W1", "a,b", '"', "'", "true", "{}", "9" * 5000, "\u202e", " "]


def odd_value(rng: random.Random) -> Any:
    """A value of JSON that is seldom expected."""
    return rng.choice(
        [
            None,
            True,
            False,
            rng.choice(NUMBERS),
            -rng.choice(NUMBERS),
            10 ** rng.randrange(400),
            rng.choice([0.0, -0.0, 1e308, -1e308, 5e-324, float("nan"), float("inf"), rng.gauss(0, 1)]),
            rng.choice(ODD_TEXTS),
            [],
            {},
            [None],
            [rng.choice(NUMBERS)] * rng.randrange(5),
            {rng.choice(ODD_TEXTS): rng.choice(NUMBERS)},
            [[[[[]]]]],
        ]
    )


def mutate_bytes(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """One to four changes of a file's bytes, whatever they mean."""
    found = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        at, end = sorted((rng.randrange(len(found) + 1), rng.randrange(len(found) + 1)))
        kind = rng.randrange(9)
        if kind <= 1 and found:  # the most likely damage of all
            found[at % len(found)] ^= 1 << rng.randrange(8)
        elif kind == 2 and found:
            found[at % len(found)] = rng.randrange(256)
        elif kind == 3:
            del found[at:]
        elif kind == 4:
            del found[at : min(end, at + rng.randrange(1, 65))]
        elif kind == 5:
            found[at:at] = found[at : min(end, at + 256)] * rng.randrange(1, 4)
        elif kind == 6:
            found[at:at] = rng.choice(MAGIC)
        elif kind == 7:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            found[at:end] = other[start : start + rng.randrange(1, 513)]
        else:
            number = struct.pack(rng.choice("<>") + "Q", rng.choice(NUMBERS) % 2**64)[-rng.choice([1, 2, 4, 8]) :]
            found[at : at + len(number)] = number
    return bytes(found)


def mutate_json(rng: random.Random, value: Any) -> Any:
    """A value of JSON with one to three of its parts replaced, left out, doubled, or renamed."""
    root = [copy.deepcopy(value)]
    for _ in range(rng.choice([1, 1, 2, 3])):
        parent: Any = root
        while True:  # walk down to a random part
            keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
            if not keys:
                break
            key = rng.choice(keys)
            below = parent[key]
            if isinstance(below, dict | list) and below and rng.random() < 0.8:
                parent = below
                continue
            _change(rng, parent, key)
            break
    return root[0] if root else None


def _change(rng: random.Random, parent: Any, key: Any) -> None:
    kind = rng.randrange(5)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        parent[rng.choice([*ODD_TEXTS, *parent])] = parent.pop(key)
    elif kind == 1:
        parent.insert(key, parent[key])
    elif kind == 2 and isinstance(parent, dict):
        parent[rng.choice(ODD_TEXTS)] = odd_value(rng)
    elif kind == 3 and isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
        parent[key] = rng.choice([parent[key] - 1, parent[key] + 1, 2 * parent[key], -parent[key]])
    elif kind == 3 and rng.random() < 0.2:  # deep
        for _ in range(rng.choice([30, 3000])):
            parent[key] = [parent[key]]
    else:
        parent[key] = odd_value(rng)


def dumps(value: Any) -> str:
    """JSON, also of what is nested too deeply for the encoder."""
    try:
        return json.dumps(value)
    except (RecursionError, ValueError):
        return "[" * 100_000


def mutate_tensors(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """A safetensors file with a right digest whose description, or one of whose tensors, is another."""
    import numpy as np
    from safetensors.numpy import load

    n = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + n])["__metadata__"]
    tensors = {name: x.copy() for name, x in load(content).items()}
    kind = rng.randrange(4)
    if kind == 0 or not tensors:
        name = rng.choice(list(tensors) or ["W1"])
        x = tensors.pop(name, np.zeros(1, np.float32))
        changes: list[Callable[[], Any]] = [
            lambda: x.reshape(-1),
            lambda: x[:0],
            lambda: x.astype(rng.choice(["float64", "float32", "int64", "uint8", "bool", "float16"])),
            lambda: x * np.array(rng.choice([0, -1, np.nan, np.inf]), x.dtype) if x.dtype.kind == "f" else x,
            lambda: np.array(7.0),
            lambda: np.concatenate([x, x]) if x.ndim else x,
            lambda: x.T.copy(),
        ]
        with np.errstate(all="ignore"):
            changed = rng.choice(changes)()
        if rng.random() < 0.7:
            tensors[rng.choice([name, name, name, name + "0", f"member/{name}", "optimizer/x"])] = changed
    else:
        try:
            description = json.loads(metadata["description"])
        except ValueError:
            description = {}
        metadata["description"] = dumps(mutate_json(rng, description))
    return _packed(tensors, metadata["description"], metadata)


def with_digest(content: bytes, description: str) -> bytes:
    """A file of tensors with another description, and the digest that goes with it."""
    from safetensors.numpy import load

    n = int.from_bytes(content[:8], "little")
    return _packed(load(content), description, json.loads(content[8 : 8 + n])["__metadata__"])


def _packed(tensors: dict[str, Any], description: str, metadata: dict[str, str]) -> bytes:
    import numpy as np
    from safetensors.numpy import save

    text = description.encode(errors="replace")
    sha = hashlib.sha256(text)
    for name in sorted(tensors):
        sha.update(f"{name} {tensors[name].dtype.str} {tensors[name].shape}".encode())
        sha.update(tensors[name].tobytes())
    metadata = metadata | {"sha256": sha.hexdigest(), "description": text.decode()}
    return save({name: np.ascontiguousarray(x) for name, x in tensors.items()}, metadata)


def mutate_header(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """A .npy file whose header says something else, of the right length."""
    n = int.from_bytes(content[8:10], "little")
    header = content[10 : 10 + n].decode("latin-1").rstrip()
    shape = rng.choice(["()", "(0,)", "(-1,)", "(1, 99999999999)", "(2,) * 9", "(1e3,)", "(True, 2)", "(3, 2)", "None"])
    descr = rng.choice(
        ["'|O'", "'<f2'", "'<U999999999'", "'<M8[s]'", "[('a', '<f8')]", "'|V8'", "'<c16'", "'f8,f8'", "1"]
    )
    kind = rng.randrange(4)
    start, end = header.index("'shape': ") + 9, header.rindex(")") + 1
    if kind == 0:
        header = header[:start] + shape + header[end:]
    elif kind == 1:
        start = header.index("'descr': ") + 9
        header = header[:start] + descr + header[header.index(", 'fortran") :]
    elif kind == 2:
        header = header.replace("False", rng.choice(["True", "0", "None", "'False'"]))
    else:
        at = rng.randrange(len(header) + 1)
        header = (
            header[:at] + rng.choice([*ODD_TEXTS[:8], "(", "\\", "'", "lambda: 0", "f''", "0x", "1_"]) + header[at:]
        )
    text = header.encode("utf-8", errors="replace")
    text = text.ljust(-(-(len(text) + 11) // 64) * 64 - 11) + b"\n"
    return (
        content[:6]
        + rng.choice([b"\1\0", b"\1\0", b"\2\0", b"\3\0", b"\7\0"])
        + _length(text)
        + text
        + content[10 + n :]
    )


def _length(text: bytes) -> bytes:
    return (len(text) % 2**16).to_bytes(2, "little")


def mutate_archive(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """A .npz file with right checksums of which one array is a mutant, or lacks, or stands there twice."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(list(members))
    kind = rng.randrange(6)
    if kind == 0:
        del members[name]
    elif kind == 1:
        members[rng.choice(["X.npy", "y.npy", "classes.npy", "feature_names.npy", "X", "../X.npy", "\0.npy"])] = (
            members[name]
        )
    elif kind <= 3:
        members[name] = mutate_header(rng, members[name], others)
    else:
        members[name] = mutate_bytes(rng, members[name], others)
    output = io.BytesIO()
    ways = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA]
    with zipfile.ZipFile(output, "w", rng.choice(ways)) as archive:
        for each, data in members.items():
            archive.writestr(zipfile.ZipInfo(each.replace("\0", "n") or "n"), data, compress_type=archive.compression)
        if rng.random() < 0.05:
            archive.writestr("bomb.npy", b"\0" * (1 << 20))
    return output.getvalue()


def mutate_text(pieces: Sequence[str], separators: str) -> Callable[[random.Random, bytes, Sequence[bytes]], bytes]:
    """A mutator of text whose words, as cut by ``separators``, are replaced by others or by odd ``pieces``."""

    def mutate(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
        text = content.decode("utf-8", errors="replace")
        for _ in range(rng.choice([1, 1, 2, 4])):
            cuts = [0, *(i + 1 for i, letter in enumerate(text) if letter in separators), len(text)]
            k = rng.randrange(len(cuts) - 1) if len(cuts) > 1 else 0
            start, end = cuts[k], cuts[min(k + 1, len(cuts) - 1)]
            j = rng.randrange(len(cuts) - 1) if len(cuts) > 1 else 0
            other = text[cuts[j] : cuts[min(j + rng.choice([1, 1, 3]), len(cuts) - 1)]]
            new = rng.choice([rng.choice(pieces), other, other * rng.randrange(9), ""])
            text = text[:start] + new + text[rng.choice([start, end, max(start, end - 1)]) :]
        return text.encode("utf-8", errors="surrogatepass")

    return mutate


def mutate_lines(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """A file of JSON lines of which one is another value, or stands elsewhere."""
    lines = content.split(b"\n")
    k = rng.randrange(len(lines))
    try:
        value = json.loads(lines[k])
    except ValueError:
        value = {}
    lines[k] = dumps(mutate_json(rng, value)).encode()
    if rng.random() < 0.2:
        rng.shuffle(lines)
    return b"\n".join(lines)
