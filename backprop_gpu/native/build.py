"""Build the kernel library with the system's C++ compiler: ``python -m backprop_gpu.native.build [output]``.

The build hook of the package (``hatch_build.py``), ``scripts/gpu_check`` and the tests use the functions here. Only
the standard library is imported, since the hook runs before the package is installed, and inside functions what only a
build needs, since every process that loads the library imports this file.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
FLAGS = (
    *("-std=c++17", "-O3", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
    *("-fvisibility=hidden", "-fno-exceptions", "-fno-rtti", "-pthread"),
)
LINK_FLAGS = ("-shared", "-static-libstdc++", "-static-libgcc", "-pthread")
# For each processor family, its instruction sets and what a compiler calls them; the fastest first.
INSTRUCTION_SETS = {
    "x86_64": {"avx512": "-march=x86-64-v4", "avx2": "-march=x86-64-v3"},
    "aarch64": {"neon": "-march=armv8-a"},
}
COMPILER_SECONDS = 300  # timeout


class BuildError(Exception):
    """Why there is no library, in one line, and what to do."""


def machine() -> str:
    """``"x86_64"``, ``"aarch64"``, or what the platform calls itself."""
    name = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)


def library_name() -> str:
    """The file's name on this platform."""
    return "libbackprop_native" + {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")


def compiler() -> list[str]:
    """The command of the C++ compiler: ``$CXX``, or the first of c++, g++, clang++.

    Raises
    ------
    BuildError
        There is none; names what to install.
    """
    import shlex
    import shutil

    named = shlex.split(os.environ.get("CXX", ""))
    found = named[:1] if named else ["c++", "g++", "clang++"]
    for name in found:
        if shutil.which(name):
            return named or [name]
    raise BuildError(
        f"no C++ compiler ({', '.join(found)}); install one (Debian, Ubuntu: apt install g++; "
        "Fedora: dnf install gcc-c++; macOS: xcode-select --install) and install backprop_gpu again"
    )


def sources() -> list[Path]:
    """Every file that the library is made of."""
    return sorted(path for part in ("formulas/*.h", "cpu/*.h", "cpu/*.cpp") for path in FOLDER.glob(part))


def sources_digest() -> str:
    """Changes with any source and with the flags: a library of other sources is not used."""
    import hashlib

    digest = hashlib.sha256(repr((FLAGS, INSTRUCTION_SETS)).encode())
    for path in sources():
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def build(
    output: Path,
    command: Sequence[str] | None = None,
    extra: Sequence[str] = (),
    family: str = "",
    marches: Mapping[str, str] | None = None,
) -> None:
    """Compile the library for this processor family into ``output``, one job per instruction set in parallel.

    Parameters
    ----------
    command : sequence of str, optional
        The compiler; default :func:`compiler`.
    extra : sequence of str
        Further flags, such as a sanitizer's.
    family : str
        A key of ``INSTRUCTION_SETS``, for a cross compiler; default this machine's.
    marches : mapping of str to str, optional
        What the compiler calls the family's instruction sets, if not what g++ and clang++ do.

    Raises
    ------
    BuildError
        If the family is unknown or the compiler fails; holds the end of what it printed.
    """
    import tempfile
    from concurrent.futures import ThreadPoolExecutor

    family = family or machine()
    if family not in INSTRUCTION_SETS:
        raise BuildError(f"there are no kernels for {family} yet; the reference kernels run on it")
    command = list(command or compiler())
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as scratch:
        jobs = {
            Path(scratch, f"{name}.o"): ["cpu/kernels.cpp", march, f"-DKERNELS=kernels_{name}"]
            for name, march in (marches or INSTRUCTION_SETS[family]).items()
        }
        jobs[Path(scratch, "c_api.o")] = ["cpu/c_api.cpp", f'-DSOURCES_DIGEST="{sources_digest()}"']

        def compile_one(job: tuple[Path, list[str]]) -> None:
            target, (source, *flags) = job
            run([*command, *FLAGS, *extra, *flags, "-c", str(FOLDER / source), "-o", str(target)])

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(compile_one, jobs.items()))
        linked = Path(scratch, output.name)
        run([*command, *FLAGS, *extra, *map(str, jobs), *LINK_FLAGS, "-o", str(linked)])
        os.replace(linked, output)


def run(command: Sequence[str]) -> None:
    """Run a compiler; its last lines are the error's.

    Raises
    ------
    BuildError
        If it fails, hangs or does not start.
    """
    import subprocess

    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMPILER_SECONDS, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{command[0]} could not be run: {error}") from None
    if done.returncode:
        last = done.stderr.strip().splitlines()[-12:]
        raise BuildError("\n".join([f"{command[0]} failed (exit {done.returncode}):", *last]))


if __name__ == "__main__":
    try:
        build(Path(sys.argv[1] if len(sys.argv) > 1 else library_name()))
    except BuildError as problem:
        sys.exit(f"error: {problem}")
