#!/usr/bin/env python3
"""Seed one fault at a time into a copy of the formulas and see whether the tests notice.

    python scripts/mutate.py maths|oracle|native [--jobs 2] [--only WORD] [--sample N] [--list]

maths: backprop_gpu/maths, judged by tests/maths. oracle: the float64 oracle of parity, judged by closed forms and by
the laws on NumPy. native: the C++ formulas, compiled for one dtype with the CUDA kernels on the host (a second or two),
judged number by number, against 40 digits and by the laws.

Each fault is a substitution in one function, from a table in scripts/mutations. The copy holds the package, the tests
and their settings, and comes first on the path: the checkout is never touched. Exits with 1 if any fault survives or
cannot be judged. The first column is the fault's number in the list that the parity checks are held to.
"""

from __future__ import annotations

import argparse
import ast
import os
import platform
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
COPIED = ("backprop_gpu", "tests/support", "tests/conftest.py", "pyproject.toml")
PYTEST = ("-m", "pytest", "-x", "-q", "-n0", "-p", "no:cacheprovider")
TABLES = Path(__file__).with_name("mutations")
LIMIT_S = 300.0
LAWS = tuple(f"tests/laws/test_{name}_kernels.py" for name in ("update", "norm", "output"))


class Target(NamedTuple):
    """Where faults go, and the runs of pytest that look for them, one after the other until one fails."""

    folder: str
    suffix: str
    runs: tuple[tuple[str, ...], ...]


ON_NUMPY = (*LAWS, "tests/laws/test_kernels.py", "-k", "numpy-reference and float64")
TARGETS = {
    "maths": Target("backprop_gpu/maths", ".py", (("tests/maths",),)),
    "oracle": Target(
        "backprop_gpu/parity/oracle",
        ".py",
        (("tests/parity/test_oracle.py", "tests/parity/test_bounds.py"), ON_NUMPY),
    ),
    "native": Target(
        "backprop_gpu/native/formulas",
        ".h",
        (
            ("tests/backends/test_cuda_headers.py", "-k", "not float64"),
            ("tests/native/test_elementary.py", "-k", "float32 and not every_instruction_set"),
            (*LAWS, "tests/laws/test_kernels.py", "-k", "emulated-cuda and (float32 or cannot_hold)"),
        ),
    ),
}


class Fault(NamedTuple):
    """``old`` stands exactly once in the code of ``where`` (a function, Class.method, or - for the whole file)."""

    what: str
    file: str
    where: str
    old: str
    new: str
    number: int | None = None


def read_table(name: str) -> list[Fault]:
    """The rows of a target's table."""
    faults: list[Fault] = []
    file = ""
    for line in (TABLES / f"{name}.txt").read_text("utf-8").splitlines():
        if line.startswith("["):
            file = line.strip("[]")
        elif line and not line.startswith("#"):
            where, change, what, *number = (part.strip() for part in line.split(" | "))
            old, new = (part.strip(" ").replace("\\n", "\n") for part in f"{change} ".split(" => "))
            faults.append(Fault(what, file, where, old, new, int(number[0]) if number else None))
    return faults


def span(source: str, where: str, suffix: str) -> tuple[int, int]:
    """Character positions of the code of ``where`` without its docstring; the whole file for -."""
    if where == "-":
        return 0, len(source)
    if suffix == ".h":
        return span_of_braces(source, where)
    body: list[ast.stmt] = ast.parse(source).body
    for name in where.split("."):
        body = next(n.body for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name == name)
    if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        body = body[1:]
    lines = source.splitlines(keepends=True)
    return sum(map(len, lines[: body[0].lineno - 1])), sum(map(len, lines[: body[-1].end_lineno]))


def span_of_braces(source: str, where: str) -> tuple[int, int]:
    """The same of C++: from the braces of a struct to those of a function in it."""
    start, stop = 0, len(source)
    for name in where.split("."):
        head = re.compile(rf"(struct {name}|FORMULA [\w<>]+ {name}\([^{{}};]*\)) ").search(source, start, stop)
        if head is None:
            raise SystemExit(f"error: there is no {where} in the header; mend the table")
        start = source.index("{", head.end() - 1)
        depth = 0
        for i in range(start, len(source)):
            depth += {"{": 1, "}": -1}.get(source[i], 0)
            if depth == 0:
                stop = i
                break
    return start, stop


def seeded(source: str, fault: Fault, suffix: str) -> str:
    """The file with the fault in it."""
    start, stop = span(source, fault.where, suffix)
    code = source[start:stop]
    if code.count(fault.old) != 1:
        raise SystemExit(
            f"error: {fault.file}.{fault.where} holds {fault.old!r} {code.count(fault.old)} times, not once; "
            f"mend the table's entry {fault.what!r}"
        )
    return source[:start] + code.replace(fault.old, fault.new) + source[stop:]


def copy_to(folder: Path, target: Target) -> None:
    """What the tests of a target need, and nothing else."""
    tests = {argument for run in target.runs for argument in run if argument.startswith("tests/")}
    for name in (*COPIED, *sorted(tests)):
        source, copy = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, copy)


def python(folder: Path, *arguments: str, limit: float = LIMIT_S) -> subprocess.CompletedProcess[str]:
    """Run Python in the folder, with the folder first on its path, and what it compiles kept there."""
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    environment["TMPDIR"] = str(scratch)
    # The copy has no kernel library to say which instruction set test programs are compiled for.
    environment["BACKPROP_GPU_INSTRUCTION_SET"] = "avx2" if platform.machine() == "x86_64" else "neon"
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=limit
    )


def judge(target: Target, fault: Fault | None, limit: float) -> tuple[str, str]:
    """``caught``, ``SURVIVED`` or ``BROKEN``, and the test that failed (or the end of the output)."""
    with tempfile.TemporaryDirectory(prefix="mutate-") as name:
        folder = Path(name).resolve()
        copy_to(folder, target)
        if fault is not None:
            path = folder / target.folder / f"{fault.file}{target.suffix}"
            path.write_text(seeded(path.read_text("utf-8"), fault, target.suffix), "utf-8")
        found = python(folder, "-c", "import backprop_gpu.maths as m; print(m.__file__)").stdout.strip()
        if not found.startswith(str(folder)):
            return "BROKEN", f"the tests would import {found or 'nothing'}"
        for run in target.runs:
            try:
                done = python(folder, *PYTEST, *run, limit=limit)
            except subprocess.TimeoutExpired:
                return "caught", f"(more than {limit:.0f} s)"
            if done.returncode == 0:
                continue
            failed = re.search(r"^(?:FAILED|ERROR) tests/(\S+)", done.stdout, re.MULTILINE)
            if done.returncode == 1 and failed:
                return "caught", failed.group(1)
            return "BROKEN", (done.stdout + done.stderr).strip()[-300:]
    return "SURVIVED", ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--jobs", type=int, default=2, help="test processes at a time (default 2)")
    parser.add_argument("--only", default="", metavar="WORD", help="only faults whose line holds WORD")
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="N of them, evenly over the table")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds for a fault's tests (default 300)")
    parser.add_argument("--list", action="store_true", help="print the table and stop")
    given = parser.parse_args()
    target = TARGETS[given.target]
    chosen = [f for f in read_table(given.target) if given.only in f"{f.number or ''} {f.file}.{f.where} {f.what}"]
    for fault in chosen:  # every entry must still fit before anything runs
        seeded((ROOT / target.folder / f"{fault.file}{target.suffix}").read_text("utf-8"), fault, target.suffix)
    if given.sample:
        chosen = chosen[:: max(1, len(chosen) // given.sample)][: given.sample]
    if given.list:
        print("\n".join(f"{f.number or '':>3}  {f.file + '.' + f.where:42} {f.what}" for f in chosen))
        return 0
    started = time.monotonic()
    verdict, why = judge(target, None, given.limit)
    if verdict != "SURVIVED":
        print(f"error: the tests fail without any fault: {why}", file=sys.stderr)
        return 1
    counts = {"caught": 0, "SURVIVED": 0, "BROKEN": 0}
    with ThreadPoolExecutor(given.jobs) as pool:
        judged = pool.map(lambda fault: judge(target, fault, given.limit), chosen)
        for fault, (verdict, why) in zip(chosen, judged, strict=True):
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
