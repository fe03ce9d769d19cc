"""Reading a large CSV: seconds from its path to a table of numbers and texts, and the memory that it takes.

The file has 30 columns: 24 of decimal numbers, 4 of whole ones, one of town names and a target. ``ours`` parses with
pyarrow where it is installed, ``ours, own reader`` does not; both also find out how each column is to be read. Each
repeat is a process of its own: its seconds are those of the call, once everything is imported.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backprop_gpu.errors import DeviceError

from .interleaved import interleave, summary
from .peers import check_names

WORKLOADS = {"50k": 50_000, "200k": 200_000, "1M": 1_000_000}
_OURS = "from backprop_gpu.data import read_table\nread = lambda path: read_table(path, target='y').stored.shape[0]"
PEERS = {
    "ours": f"import pyarrow.csv\n{_OURS}",
    "ours, own reader": f"from backprop_gpu.data import plain_csv\nplain_csv.FROM_BYTES = 1 << 60\n{_OURS}",
    "polars": "import polars\nread = lambda path: polars.read_csv(path).height",
    "pyarrow": "import pyarrow.csv\nread = lambda path: pyarrow.csv.read_csv(path).num_rows",
    "pandas": "import pandas\nread = lambda path: len(pandas.read_csv(path))",
}
_NEEDS = {"ours": "pyarrow", "polars": "polars", "pyarrow": "pyarrow", "pandas": "pandas"}
_WORKER = """
import json, pathlib, re, sys, time
{peer}
kept = lambda what: int(re.search(what + r":\\s+([0-9]+)", pathlib.Path("/proc/self/status").read_text())[1])
before, start = kept("VmRSS"), time.perf_counter()
rows = read(sys.argv[1])
print(json.dumps([time.perf_counter() - start, rows, (kept("VmHWM") - before) * 1024]))
"""
_STEP = 50_000


def generate(path: Path, n: int) -> None:
    """Write the CSV."""
    rng = np.random.default_rng(0)
    names = [*(f"x{j}" for j in range(24)), *(f"k{j}" for j in range(4)), "town", "y"]
    towns = np.array(["Berlin", "Hamburg", "Ulm", "Bonn"])
    with path.open("w", encoding="utf-8") as file:
        file.write(",".join(names) + "\n")
        for start in range(0, n, _STEP):
            m = min(_STEP, n - start)
            values = [np.char.mod(f"%.{4 + j % 3}f", rng.normal(size=m)) for j in range(24)]
            values += [rng.integers(0, 1000, m).astype(str) for _ in range(4)]
            values += [rng.choice(towns, m), np.char.mod("%.3f", rng.normal(size=m))]
            file.writelines(",".join(cells) + "\n" for cells in zip(*values, strict=True))


def rows_of(
    workloads: Sequence[str], peers: Sequence[str], repeats: int, variables: Mapping[str, str | None]
) -> Iterator[dict[str, Any]]:
    """A row for each peer and file, repeats interleaved.

    Raises
    ------
    ConfigError
        For an unknown name.
    DeviceError
        If a peer fails, or reads another number of rows.
    """
    check_names(workloads, WORKLOADS, "workload of reading")
    check_names(peers, PEERS, "peer of reading")
    environment = {name: value for name, value in (os.environ | variables).items() if value is not None}
    chosen = list(peers or PEERS)
    there = [name for name in chosen if importlib.util.find_spec(_NEEDS.get(name, "numpy"))]
    for workload in workloads or WORKLOADS:
        with tempfile.TemporaryDirectory() as folder:
            path, peaks = Path(folder, "table.csv"), dict[str, list[float]]()
            generate(path, WORKLOADS[workload])
            size = path.stat().st_size

            def measured(name: str, path: Path = path, n: int = WORKLOADS[workload], peaks: Any = peaks) -> float:
                seconds, rows, peak = _once(name, path, environment)
                if rows != n:
                    raise DeviceError(f"{name} reads {rows} rows of {n}")
                peaks.setdefault(name, []).append(peak)
                return seconds

            seconds = interleave(there, repeats, measured)
        for name in chosen:
            row: dict[str, Any] = {"workload": f"{workload}, {size / 1e6:.0f} MB", "peer": name}
            if name not in seconds:
                yield row | {"note": f"not installed: pip install {_NEEDS[name]}"}
                continue
            peak = float(np.median(peaks[name]))
            told = {
                "MB/s": f"{size / 1e6 / float(np.median(seconds[name])):.0f}",
                "resident": f"{peak / 2**20:.0f} MiB",
            }
            yield row | summary(seconds[name], seconds[there[0]]) | told | {"of the file": f"{peak / size:.2f}"}


def _once(peer: str, path: Path, environment: Mapping[str, str]) -> tuple[float, int, float]:
    """Seconds, rows, and the bytes by which the process grew."""
    command = [sys.executable, "-c", _WORKER.format(peer=PEERS[peer]), str(path)]
    done = subprocess.run(command, env={**environment}, capture_output=True, text=True)
    if done.returncode:
        raise DeviceError(f"{peer} failed: {' '.join(done.stderr.split())[-500:]}")
    seconds, rows, grown = json.loads(done.stdout)
    return seconds, rows, grown
