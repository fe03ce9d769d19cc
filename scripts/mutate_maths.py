#!/usr/bin/env python3
"""Seed one fault at a time into a copy of backprop_gpu/maths and see whether tests/maths notices.

    python scripts/mutate_maths.py [--jobs 2] [--only WORD] [--list]

Each fault is a substitution in one function, from the table in mutate_maths.txt. The copy holds the package, the tests
and their settings, and comes first on the path: the checkout is never touched. Exits with 1 if any fault survives or
cannot be judged. The first column is the fault's number in the list that the parity checks are held to.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("backprop_gpu", "tests/maths", "tests/support", "tests/conftest.py", "pyproject.toml")
PYTEST = ("-m", "pytest", "tests/maths", "-x", "-q", "-n0", "-p", "no:cacheprovider")
TABLE = Path(__file__).with_suffix(".txt")
LIMIT_S = 300.0


class Fault(NamedTuple):
    """``old`` stands exactly once in the code of ``where`` (a function, Class.method, or - for the whole file)."""

    what: str
    file: str
    where: str
    old: str
    new: str
    number: int | None = None


def read_table() -> list[Fault]:
    """The rows of mutate_maths.txt."""
    faults: list[Fault] = []
    file = ""
    for line in TABLE.read_text("utf-8").splitlines():
        if line.startswith("["):
            file = line.strip("[]")
        elif line and not line.startswith("#"):
            where, change, what, *number = (part.strip() for part in line.split(" | "))
            old, new = (part.strip() for part in f"{change} ".split(" => "))
            faults.append(Fault(what, file, where, old, new, int(number[0]) if number else None))
    return faults


def span(source: str, where: str) -> tuple[int, int]:
    """Character positions of the code of ``where`` without its docstring; the whole file for -."""
    if where == "-":
        return 0, len(source)
    body: list[ast.stmt] = ast.parse(source).body
    for name in where.split("."):
        body = next(n.body for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name == name)
    if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        body = body[1:]
    lines = source.splitlines(keepends=True)
    return sum(map(len, lines[: body[0].lineno - 1])), sum(map(len, lines[: body[-1].end_lineno]))


def seeded(source: str, fault: Fault) -> str:
    """The file with the fault in it."""
    start, stop = span(source, fault.where)
    code = source[start:stop]
    if code.count(fault.old) != 1:
        raise SystemExit(
            f"error: {fault.file}.{fault.where} holds {fault.old!r} {code.count(fault.old)} times, not once; "
            f"mend the table's entry {fault.what!r}"
        )
    return source[:start] + code.replace(fault.old, fault.new) + source[stop:]


def copy_to(folder: Path) -> None:
    """What the tests of maths/ need, and nothing else."""
    for name in COPIED:
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, target)


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the folder, with the folder first on its path."""
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT_S
    )


def judge(fault: Fault | None) -> tuple[str, str]:
    """``caught``, ``SURVIVED`` or ``BROKEN``, and the test that failed (or the end of the output)."""
    with tempfile.TemporaryDirectory(prefix="mutate-") as name:
        folder = Path(name).resolve()
        copy_to(folder)
        if fault is not None:
            path = folder / "backprop_gpu" / "maths" / f"{fault.file}.py"
            path.write_text(seeded(path.read_text("utf-8"), fault), "utf-8")
        found = python(folder, "-c", "import backprop_gpu.maths as m; print(m.__file__)").stdout.strip()
        if not found.startswith(str(folder)):
            return "BROKEN", f"the tests would import {found or 'nothing'}"
        try:
            done = python(folder, *PYTEST)
        except subprocess.TimeoutExpired:
            return "caught", f"(more than {LIMIT_S:.0f} s)"
    if done.returncode == 0:
        return "SURVIVED", ""
    failed = re.search(r"^FAILED tests/maths/(\S+)", done.stdout, re.MULTILINE)
    if done.returncode == 1 and failed:
        return "caught", failed.group(1)
    return "BROKEN", (done.stdout + done.stderr).strip()[-300:]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="test processes at a time (default 2)")
    parser.add_argument("--only", default="", metavar="WORD", help="only faults whose line holds WORD")
    parser.add_argument("--list", action="store_true", help="print the table and stop")
    given = parser.parse_args()
    chosen = [f for f in read_table() if given.only in f"{f.number or ''} {f.file}.{f.where} {f.what}"]
    for fault in chosen:  # every entry must still fit before anything runs
        seeded((ROOT / "backprop_gpu" / "maths" / f"{fault.file}.py").read_text("utf-8"), fault)
    if given.list:
        print("\n".join(f"{f.number or '':>3}  {f.file + '.' + f.where:42} {f.what}" for f in chosen))
        return 0
    started = time.monotonic()
    verdict, why = judge(None)
    if verdict != "SURVIVED":
        print(f"error: the tests fail without any fault: {why}", file=sys.stderr)
        return 1
    counts = {"caught": 0, "SURVIVED": 0, "BROKEN": 0}
    with ThreadPoolExecutor(given.jobs) as pool:
        for fault, (verdict, why) in zip(chosen, pool.map(judge, chosen), strict=True):
            counts[verdict] += 1
            name = f"{fault.file}.{fault.where}"
            print(f"{fault.number or '':>3}  {name:38} {fault.what:44} {verdict:9} {why}", flush=True)
    print(
        f"{counts['caught']} of {len(chosen)} seeded faults caught, {counts['SURVIVED']} survived, "
        f"{counts['BROKEN']} could not be judged; {time.monotonic() - started:.0f} s"
    )
    return 0 if counts["caught"] == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
