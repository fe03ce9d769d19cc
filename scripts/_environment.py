"""What scripts/train and scripts/test share: find a Python, keep .venv up to date, run a module in it.

The standard library alone, in syntax that Python 3.8 reads, so that an old Python reaches the line that says what is
missing. By hand, ``python3 scripts/_environment.py dev`` puts the developers' tools into .venv and prints its Python,
and ``--locked dev`` prints what that installs, with hashes.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OLDEST, NEWEST = (3, 11), (3, 14)  # NEWEST is the last one that every package in constraints.txt has a wheel for
CUDA = {"cuda12x", "cuda13x"}
LOCK = "requirements.lock"  # made by scripts/lock: every file that may be installed, by its SHA-256

_PROBE = """
import json, sys
try:
    import ensurepip, venv
    complete = True
except ImportError:
    complete = False
print(json.dumps([sys.version_info[:3], getattr(sys, "_base_executable", sys.executable), complete]))
"""


class Problem(Exception):
    """Something the user has to mend; the text says what and how."""


def say(text: str) -> None:
    """Print a line of progress, apart from what the job itself writes to standard output."""
    print(text, file=sys.stderr, flush=True)


# --- the Python that makes .venv ---------------------------------------------------------------------------------


class Python(NamedTuple):
    """A Python as it described itself: version, path, and whether it can make environments with pip in them."""

    version: tuple[int, int, int]
    executable: str
    complete: bool

    def __str__(self) -> str:
        return "Python {}.{}.{} ({})".format(*self.version, self.executable)


def inspect_python(command: list[str]) -> Python | None:
    """Ask the Python that ``command`` starts about itself; None if it does not start (a shim, a stub, a dead link)."""
    try:
        answer = subprocess.run([*command, "-c", _PROBE], capture_output=True, timeout=60, check=True)
        version, executable, complete = json.loads(answer.stdout.decode().splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
    return Python(tuple(version), executable, complete)


def python_commands() -> Iterator[list[str]]:
    """This interpreter, then the supported ones by name, newest first."""
    yield [sys.executable]
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        if os.name == "nt":
            yield ["py", f"-3.{minor}"]
        yield [f"python3.{minor}"]


def find_python(commands: Iterable[list[str]]) -> Python:
    """Return the first supported Python that can make environments, else one newer than supported.

    Raises
    ------
    Problem
        There is none; the text says what was found and what to install.
    """
    found = []
    for python in filter(None, map(inspect_python, commands)):
        if python.complete and OLDEST <= python.version[:2] <= NEWEST:
            return python
        found.append(python)
    recent = [python for python in found if python.version[:2] >= OLDEST]
    for python in recent:
        if python.complete:
            say(f"note: {python} is newer than the pinned packages; if they do not install, use 3.{NEWEST[1]}")
            return python
    if recent:
        package = "python{}.{}-venv".format(*recent[0].version)
        raise Problem(
            f"{recent[0]} cannot make environments, its ensurepip module is missing: "
            f"install it (Debian, Ubuntu: apt install {package}) and run this again"
        )
    raise Problem(
        f"Python 3.{OLDEST[1]} or newer is needed and only {', '.join(map(str, found)) or 'none'} was found: "
        "install it (Debian, Ubuntu: apt install python3.11-venv; macOS: brew install python; "
        f"Windows: winget install Python.Python.3.{NEWEST[1]}) and run this again"
    )


# --- the CUDA release that the driver supports ---------------------------------------------------------------------


def driver_cuda_version(load: Callable[[str], Any] = ctypes.CDLL) -> int | None:
    """CUDA version of the NVIDIA driver as the driver counts it (13020 is 13.2), or None where there is no driver."""
    for name in ["nvcuda.dll"] if os.name == "nt" else ["libcuda.so.1", "libcuda.so"]:
        version = ctypes.c_int()
        try:
            failed = load(name).cuDriverGetVersion(ctypes.byref(version))
        except (OSError, AttributeError):
            continue
        if not failed and version.value > 0:
            return version.value
    return None


def cuda_extra(version: int | None) -> str | None:
    """Name the extra that holds CuPy for this driver; None without one, with a note where the driver is too old."""
    if version is None:
        return None
    if version < 12000:
        release = f"{version // 1000}.{version % 1000 // 10}"
        say(f"note: the NVIDIA driver supports CUDA {release} and CuPy needs 12.0 or newer: the CPU is used; update it")
        return None
    return "cuda13x" if version >= 13000 else "cuda12x"


# --- the C++ compiler that makes the kernels -----------------------------------------------------------------------


def compiler_identity() -> str:
    """The C++ compiler as it names itself, ``"none"`` where there is none: one that is installed later rebuilds."""
    named = os.environ.get("CXX", "").split()
    for command in [named] if named else [["c++"], ["g++"], ["clang++"]]:
        if shutil.which(command[0]):
            shown = subprocess.run([*command, "--version"], capture_output=True, check=False, stdin=subprocess.DEVNULL)
            return " ".join(command) + ": " + shown.stdout.decode(errors="replace").split("\n")[0]
    return "none"


# --- what may be installed -------------------------------------------------------------------------------------------


def locked_requirements(text: str, extras: Iterable[str]) -> str:
    """The part of requirements.lock that these extras need, and what is always needed: to build and to run.

    Raises
    ------
    Problem
        For an extra that is not in the file.
    """
    header, *blocks = text.split("\n\n")
    known = header.rpartition("# Extras: ")[2].strip().split(", ")
    wanted = {"build", "run", *extras}
    missing = sorted(wanted - set(known))
    if missing:
        raise Problem(f"{LOCK} has no {', '.join(missing)}; it has {', '.join(known)}: see scripts/lock")
    chosen = []
    for block in blocks:
        first, _, requirement = block.strip().partition("\n")
        if wanted & set(first.replace("# for ", "", 1).split(", ")):
            chosen.append(requirement + "\n")
    return "".join(chosen)


# --- one run at a time ----------------------------------------------------------------------------------------------


def _try_lock(file: Any) -> bool:
    if sys.platform == "win32":
        import msvcrt

        file.seek(1 << 20)  # past the text, which others may read while the byte is locked
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system without locks (some cluster homes): go on as if alone
    return True


@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
    """Hold the lock file ``path`` (it names the holder's process), waiting while another process holds it.

    The system's own lock, not the file's existence, is what counts: it goes when its holder dies, however it dies.
    """
    with open(path, "a+") as file:
        if not _try_lock(file):
            file.seek(0)
            say(f"another run (process {file.read().strip() or 'unknown'}) is preparing .venv: waiting for it")
            while not _try_lock(file):
                time.sleep(0.1)
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield


# --- .venv ----------------------------------------------------------------------------------------------------------


class Environment:
    """The virtual environment ``.venv`` of the checkout at ``root``.

    Four files in it are ours: the stamp (what was installed, from which pins), the lock, the requirements with their
    hashes, and a mark that stands while packages are being installed.
    A mark that outlived its process means a half-made environment: remade.
    """

    def __init__(self, root: str = ROOT) -> None:
        self.root = root
        self.folder = os.path.join(root, ".venv")
        self.python = os.path.join(self.folder, *(["Scripts", "python.exe"] if os.name == "nt" else ["bin", "python"]))
        self.stamp = os.path.join(self.folder, "backprop_gpu-installed.json")
        self.mark = os.path.join(self.folder, "backprop_gpu-installing")
        self.lock = os.path.join(self.folder, "backprop_gpu-lock")
        self.requirements = os.path.join(self.folder, "backprop_gpu-requirements.txt")

    def key(self, version: tuple[int, ...]) -> str:
        """Hash of what is installed: what asks for it, the kernels' sources, the compiler, the Python, the place."""
        digest = hashlib.sha256(repr((version[:2], self.root, compiler_identity())).encode())
        for name in ["pyproject.toml", LOCK, *self.native_sources()]:
            with open(os.path.join(self.root, name), "rb") as file:
                digest.update(hashlib.sha256(file.read()).digest())
        return digest.hexdigest()

    def native_sources(self) -> list[str]:
        """What the kernel library is built from: an edited header is compiled before the next command runs."""
        found = ["hatch_build.py"] if os.path.exists(os.path.join(self.root, "hatch_build.py")) else []
        native = os.path.join(self.root, "backprop_gpu", "native")
        for folder, _, names in sorted(os.walk(native)):
            named = (name for name in sorted(names) if name.endswith((".h", ".cpp", "build.py")))
            found += [os.path.relpath(os.path.join(folder, name), self.root) for name in named]
        return found

    def read_stamp(self) -> dict[str, Any]:
        """What the last complete install wrote; empty if there was none."""
        try:
            with open(self.stamp, encoding="utf-8") as file:
                return dict(json.load(file))
        except (OSError, ValueError, TypeError):
            return {}

    def write_stamp(self, extras: set[str], version: tuple[int, ...]) -> None:
        """Record a complete install, at once or not at all."""
        with open(self.stamp + ".new", "w", encoding="utf-8") as file:
            json.dump({"key": self.key(version), "root": self.root, "extras": sorted(extras)}, file)
        os.replace(self.stamp + ".new", self.stamp)

    def ready(self, extras: set[str]) -> bool:
        """Whether ``extras`` are installed, from the files as they are now."""
        stamp = self.read_stamp()
        if os.path.exists(self.mark) or not extras <= set(stamp.get("extras", [])):
            return False
        python = inspect_python([self.python])
        return python is not None and stamp.get("key") == self.key(python.version)

    def usable(self) -> bool:
        """Whether packages can be installed into .venv as it stands; if not, it has to be remade."""
        python = inspect_python([self.python])
        if python is None or python.version[:2] < OLDEST or os.path.exists(self.mark):
            return False
        if self.read_stamp().get("root", self.root) != self.root:  # moved or copied: its scripts name the old place
            return False
        return subprocess.run([self.python, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0

    def clear(self) -> None:
        """Empty .venv but for the lock, which is held."""
        for entry in list(os.scandir(self.folder)):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            elif entry.path != self.lock:
                os.remove(entry.path)

    def make(self) -> None:
        """Make .venv anew, with pip in it."""
        python = find_python(python_commands())
        say(f"making {self.folder} with {python}")
        self.clear()
        self.begin()
        made = subprocess.run([python.executable, "-m", "venv", self.folder], capture_output=True, check=False)
        if made.returncode:
            say((made.stdout + made.stderr).decode(errors="replace").strip())
            raise Problem(f"{python} could not make {self.folder} (its words are above): mend that and run this again")

    def begin(self) -> None:
        """From here until the install ends by itself, .venv counts as half made."""
        with open(self.mark, "w", encoding="utf-8"):
            pass

    def pip_install(self, *arguments: str) -> None:
        """Run ``pip install --no-deps``, showing the downloads; raise Problem with its last lines if it fails."""
        command = [self.python, "-m", "pip", "install", "--disable-pip-version-check", "--no-deps"]
        last: collections.deque[str] = collections.deque(maxlen=8)
        with subprocess.Popen(
            [*command, *arguments],
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as pip:
            for line in pip.stdout or ():
                last.append(line.rstrip())
                if line.lstrip().startswith("Downloading ") and ".metadata" not in line:
                    say("  " + line.split()[1].rsplit("/")[-1] + " " + " ".join(line.split()[2:]))
        if pip.returncode:
            say("\n".join(last))
            raise Problem(
                "pip could not install the pinned packages (its last lines are above): "
                "check the network, the proxy, the index (its files must be those of " + LOCK + ") and the free space, "
                "then run this again"
            )

    def ensure(self, extras: Iterable[str]) -> str:
        """Bring .venv up to date with at least ``extras`` in it and return the path of its Python."""
        wanted = set(extras)
        if self.ready(wanted):
            return self.python
        os.makedirs(self.folder, exist_ok=True)
        with locked(self.lock):
            if not self.ready(wanted):
                self.update(wanted)
        return self.python

    def update(self, wanted: set[str]) -> None:
        """Install ``wanted`` beside what was there before; called with the lock held."""
        before = set(self.read_stamp().get("extras", []))
        other_cuda = before & CUDA - wanted if wanted & CUDA else set()
        if other_cuda or not self.usable():  # two CuPy wheels in one environment break each other
            self.make()
        extras = wanted | before - other_cuda
        self.begin()
        say(f"installing the pinned packages ({', '.join(sorted(extras))}); the first time takes a minute or more")
        try:
            with open(os.path.join(self.root, LOCK), encoding="utf-8") as file:
                requirements = locked_requirements(file.read(), extras)
            with open(self.requirements, "w", encoding="utf-8") as file:
                file.write(requirements)
            if requirements:
                self.pip_install("--require-hashes", "-r", self.requirements)
            self.pip_install("--no-build-isolation", "-e", ".")
        except Problem:  # pip ended by itself: what was there is whole, and an older stamp still true
            os.remove(self.mark)
            raise
        if self.native_sources() and compiler_identity() == "none":
            say(
                "note: no C++ compiler, so training takes the reference kernels, several times slower; "
                "install one (Debian, Ubuntu: apt install g++; macOS: xcode-select --install) and run this again"
            )
        python = inspect_python([self.python])
        if python is None:
            raise Problem(f"{self.python} does not start: remove {self.folder} and run this again")
        self.write_stamp(extras, python.version)
        os.remove(self.mark)


def show_locked(extras: Iterable[str]) -> int:
    """Print the requirements of these extras, with their hashes, for ``pip install --require-hashes --no-deps -r``."""
    try:
        with open(os.path.join(ROOT, LOCK), encoding="utf-8") as file:
            print(locked_requirements(file.read(), extras), end="")
    except (Problem, OSError) as problem:
        say(f"error: {problem}")
        return 1
    return 0


def run(extras: Iterable[str], module: str | None = None, arguments: Iterable[str] = ()) -> int:
    """Prepare .venv with ``extras`` (and CuPy where there is a driver), then become ``python -m module arguments``.

    Without a module, print the path of .venv's Python. Returns the exit code: 1 if .venv could not be prepared.
    """
    try:
        cuda = cuda_extra(driver_cuda_version())
        python = Environment().ensure([*extras, *([cuda] if cuda else [])])
    except (Problem, OSError) as problem:
        say(f"error: {problem}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; run this again to finish .venv")
        return 130
    if module is None:
        print(python)
        return 0
    command = [python, "-m", module, *arguments]
    if os.name != "nt":
        os.execv(python, command)
    return subprocess.call(command)  # on Windows exec would give the shell its prompt back while the job runs


if __name__ == "__main__":
    sys.exit(show_locked(sys.argv[2:]) if sys.argv[1:2] == ["--locked"] else run(sys.argv[1:]))
