"""Training on rows in files beside rows in memory: rows per second, and the memory that it takes.

``ours`` trains on an array in memory, ``ours-files`` on ``open_rows`` of the same rows; ``torch-loader`` is the
loop that PyTorch's documentation shows, ``torch`` and ``jax`` take batches by index. All: Adam, batches of 4,096, every
epoch in an order of its own. The floor is the least time that the products take at NumPy's GEMM rate.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backprop_gpu.errors import ConfigError, DeviceError, MissingDependencyError

from .interleaved import interleave, summary
from .worker_process import WorkerProcess


@dataclass(frozen=True)
class Rows:
    """A generated table of float32 and the network that is trained on it."""

    n: int
    columns: int = 28
    hidden: tuple[int, ...] = (300, 300, 300)
    batch: int = 4096


WORKLOADS = {
    "small": Rows(400_000),
    "11M": Rows(11_000_000),
    "2GB": Rows(18_000_000),
    "20GB": Rows(178_600_000),
    "20GB-wide": Rows(5_000_000, 1000),
}
PEERS = ("ours", "ours-files", "torch", "torch-loader", "jax", "floor")
IN_MEMORY = 2**30  # bytes of the rows that peers in memory take of a larger table


def generate(folder: Path, rows: Rows) -> None:
    """X.npy and y.npy, unless they are there already: normal numbers, and two classes that a plane divides."""
    if (folder / "y.npy").exists():
        return
    rng, step = np.random.Generator(np.random.SFC64(0)), max(1, 2**24 // rows.columns)
    plane = rng.standard_normal((rows.columns, 1), np.float32)
    y = np.empty((rows.n, 1), np.int8)
    with (folder / "X.npy").open("wb") as file:
        shape = {"descr": "<f4", "fortran_order": False, "shape": (rows.n, rows.columns)}
        np.lib.format.write_array_header_1_0(file, shape)
        for start in range(0, rows.n, step):
            part = rng.standard_normal((min(step, rows.n - start), rows.columns), np.float32)
            y[start : start + len(part)] = part @ plane > 0
            part.tofile(file)
    np.save(folder / "y.npy", y)


class _Enough(Exception):
    """The time is over."""


class StreamWorker:
    """One peer at work, in its own process."""

    def __init__(self, peer: str, folder: str, rows: Rows) -> None:
        self.peer, self.rows, self.sizes = peer, rows, (rows.columns, *rows.hidden, 1)
        self.peak = {"RssAnon": 0, "VmRSS": 0}
        self.X: Any
        self.y: Any
        files = Path(folder, "X.npy"), Path(folder, "y.npy")
        if peer == "floor":
            return
        if peer == "ours-files":
            from backprop_gpu import open_rows

            self.X, self.y = map(open_rows, files)
            return
        if peer.startswith("torch"):
            import torch

            torch.manual_seed(0)
        most = max(rows.batch, IN_MEMORY // (4 * rows.columns))
        self.X, self.y = (np.array(np.load(file, mmap_mode="r")[:most], np.float32) for file in files)

    def measure(self, seconds: float) -> float:
        """Seconds of a step, over so many seconds of steps."""
        done = threading.Event()
        watch = threading.Thread(target=self._watch, args=(done,))
        watch.start()
        try:
            ways = {"floor": self._floor, "torch": self._torch, "torch-loader": self._torch, "jax": self._jax}
            return ways.get(self.peer, self._ours)(seconds)
        finally:
            done.set()
            watch.join()

    def memory(self) -> dict[str, int]:
        """Bytes at the most while it was measured: what it has allocated, and with the pages of files that it maps."""
        return self.peak

    def _watch(self, done: threading.Event) -> None:
        while not done.wait(0.02):
            for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
                name, _, value = line.partition(":")
                if name in self.peak:
                    self.peak[name] = max(self.peak[name], 1024 * int(value.split()[0]))

    def _ours(self, seconds: float) -> float:
        from backprop_gpu import Callback, DenseNet, Trainer

        class Clock(Callback):
            steps, began, took = 0, 0.0, 0.0

            def on_steps(self, step: int) -> None:
                now = time.perf_counter()
                if not self.steps:
                    self.steps, self.began = step, now
                elif now - self.began >= seconds:
                    self.steps, self.took = step - self.steps, now - self.began
                    raise _Enough

        net, clock = DenseNet(self.sizes, loss="binary_cross_entropy", device="cpu"), Clock()
        trainer = Trainer(net, epochs=10**6, batch_size=self.rows.batch, progress=False, callbacks=[clock])
        with contextlib.suppress(_Enough):
            trainer.fit(self.X, self.y)
        return clock.took / clock.steps

    def _torch(self, seconds: float) -> float:
        import torch
        from torch.utils.data import DataLoader, TensorDataset

        layers: list[Any] = []
        for n, k in zip(self.sizes, self.sizes[1:], strict=False):
            layers += [torch.nn.Linear(n, k), torch.nn.ReLU()]
        net, loss = torch.nn.Sequential(*layers[:-1]), torch.nn.BCEWithLogitsLoss()
        adam = torch.optim.Adam(net.parameters(), fused=True)
        X, y = torch.from_numpy(self.X), torch.from_numpy(self.y)

        def batches() -> Iterator[Any]:
            if self.peer == "torch":
                for part in torch.randperm(len(X)).split(self.rows.batch):
                    yield X[part], y[part]
            else:
                yield from DataLoader(TensorDataset(X, y), self.rows.batch, shuffle=True)

        steps = -1
        began = time.perf_counter()
        while True:
            for of_X, of_y in batches():
                adam.zero_grad()
                loss(net(of_X), of_y).backward()
                adam.step()
                steps += 1
                if not steps:  # the first one has allocated all
                    began = time.perf_counter()
                elif time.perf_counter() - began >= seconds:
                    return (time.perf_counter() - began) / steps

    def _jax(self, seconds: float) -> float:
        """A compiled step with Adam written out; batches are taken by index with NumPy."""
        import jax
        import jax.numpy as jnp

        rng = np.random.default_rng(0)
        pairs = zip(self.sizes, self.sizes[1:], strict=False)
        net = [(jnp.asarray(rng.normal(size=(n, k)) / n**0.5, jnp.float32), jnp.zeros(k)) for n, k in pairs]

        def loss(net: Any, X: Any, y: Any) -> Any:
            for W, b in net[:-1]:
                X = jax.nn.relu(X @ W + b)
            z = X @ net[-1][0] + net[-1][1]
            return jnp.mean(jax.nn.softplus(z) - y * z)

        @jax.jit
        def step(net: Any, m: Any, v: Any, t: Any, X: Any, y: Any) -> Any:
            grad = jax.grad(loss)(net, X, y)
            m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, grad)
            v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, grad)
            rate = 1e-3 * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            return jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + 1e-8), net, m, v), m, v

        m = v = jax.tree.map(jnp.zeros_like, net)
        steps, began = -1, time.perf_counter()
        while True:
            order = rng.permutation(len(self.X))
            for at in range(0, len(order) - self.rows.batch + 1, self.rows.batch):
                rows = order[at : at + self.rows.batch]
                net, m, v = step(net, m, v, float(steps + 2), self.X[rows], self.y[rows])
                steps += 1
                if not steps:  # the first one has been compiled
                    jax.block_until_ready(net)
                    began = time.perf_counter()
                elif time.perf_counter() - began >= seconds:
                    jax.block_until_ready(net)
                    return (time.perf_counter() - began) / steps

    def _floor(self, seconds: float) -> float:
        """The products of a step: forward, dW, and the input's derivative but of the first layer."""
        rng = np.random.default_rng(0)
        pairs = list(zip(self.sizes, self.sizes[1:], strict=False))
        products = [
            (rng.standard_normal(a, np.float32), rng.standard_normal(b, np.float32))
            for l, (n, k) in enumerate(pairs)
            for a, b in (
                ((k, n), (n, self.rows.batch)),
                ((k, self.rows.batch), (self.rows.batch, n)),
                *([((n, k), (k, self.rows.batch))] if l else []),
            )
        ]
        steps, began = 0, time.perf_counter()
        while not steps or time.perf_counter() - began < seconds:
            for a, b in products:
                a @ b
            steps += 1
        return (time.perf_counter() - began) / steps


def rows_of(
    names: list[str],
    peers: list[str],
    repeats: int,
    seconds: float,
    variables: Mapping[str, str | None],
    kept: str | None = None,
) -> Iterator[dict[str, Any]]:
    """A row for each peer on each table; ``kept``: a folder where generated tables are left for the next time."""
    for given, known in ((names, WORKLOADS), (peers, dict.fromkeys(PEERS))):
        for name in given:
            if name not in known:
                raise ConfigError(f"stream has no {name!r}; it has {', '.join(known)}")
    for name in names or ("small",):
        with tempfile.TemporaryDirectory(dir=kept or ".") as temporary:
            folder = Path(kept, name) if kept else Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            generate(folder, WORKLOADS[name])
            yield from _measured(name, folder, peers or list(PEERS), repeats, seconds, variables)


def _measured(
    name: str, folder: Path, peers: list[str], repeats: int, seconds: float, variables: Mapping[str, str | None]
) -> Iterator[dict[str, Any]]:
    rows, workers = WORKLOADS[name], dict[str, WorkerProcess]()
    try:
        for peer in peers:
            try:
                workers[peer] = WorkerProcess(".stream:StreamWorker", peer, str(folder), rows, variables=variables)
            except (DeviceError, MissingDependencyError) as error:
                yield {"workload": name, "peer": peer, "note": str(error)}
        for worker in workers.values():
            worker.call("measure", min(seconds, 1.0))
        found = interleave(list(workers), repeats, lambda peer: float(workers[peer].call("measure", seconds)), rest=0.2)
        for peer, times in found.items():
            memory = workers[peer].call("memory")
            row = summary(times, next(iter(found.values())))
            speed = {"rows/s": f"{rows.batch / row['median']:,.0f}"}
            yield (
                {"workload": name, "peer": peer}
                | row
                | speed
                | {
                    "allocated": f"{memory['RssAnon'] / 2**20:.0f} MiB",
                    "resident": f"{memory['VmRSS'] / 2**20:.0f} MiB",
                    "base": next(iter(found)),
                }
            )
    finally:
        for worker in workers.values():
            worker.close()
