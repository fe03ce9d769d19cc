"""Runs that are killed and go on, many of them quickly: a server that forks a process for each, ready to train.

``python kills.py`` is the server. It loads the package once, starts no thread, and takes one JSON request a line:
what to train, the variables of ``support.io_faults``, and perhaps a signal and after how many seconds it is sent.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
COMMON = [
    "data.options={n: 150}", "device=cpu", "model.hidden=[6, 5]", "training.epochs=5", "training.batch_size=16",
    "training.early_stopping=null", "checkpoint.every_steps=4",
]  # fmt: skip
STOPPING = "training.early_stopping={patience: 2, min_delta: 0.02}"

# name -> overrides: every optimizer, every feature that has a state.
CASES: dict[str, list[str]] = {
    "sgd": ["optimizer={name: sgd}", "schedule={name: cosine}", "checkpoint.keep_best=true"],
    "momentum": ["optimizer={name: momentum}", "schedule={name: one_cycle}", "model.dropout=0.3"],
    "nesterov": ["optimizer={name: nesterov}", "model.batch_norm=true", "training.micro_batch=7"],
    "rmsprop": ["optimizer={name: rmsprop, average: 0.9}", "checkpoint={every_seconds: 0.01, keep: 3}"],
    "adagrad": ["optimizer={name: adagrad}", "dtype=float64", "training.shuffle=false", "loss.delta=literal"],
    "adam": ["optimizer={name: adam}", "training.data_on=host", "regularization.clip_norm=0.5", "model.dropout=0.2"],
    "adamw": ["optimizer={name: adamw, average: 0.8}", "model.batch_norm=true", "model.dropout=0.1",
              "regularization.l2=0.1", "checkpoint={every_epochs: 1, keep: 1, keep_best: true}"],
    "amsgrad": ["optimizer={name: amsgrad}", STOPPING, "training.metrics=[accuracy, roc_auc]"],
    "lion": ["optimizer={name: lion}", STOPPING, "training.restore_best=false", "kernels=reference"],
}  # fmt: skip

# name -> parameters of an MLPClassifier: its own fit, and networks that advance together.
ESTIMATORS: dict[str, dict[str, Any]] = {
    "estimator": {"hidden_layer_sizes": [6], "max_iter": 12, "early_stopping": True, "dropout": 0.1},
    "ensemble": {"preset": "tabular", "hidden_layer_sizes": [6], "max_iter": 6, "n_members": 3},
}


@dataclass
class Ended:
    """How a process ended: its exit code (minus a signal's number), its words, how long it took."""

    code: int
    err: str
    seconds: float


@dataclass
class Server:
    """Forks processes that train."""

    variables: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> Server:
        paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        passed_on = {key: value for key, value in os.environ.items() if key != "BACKPROP_GPU_DEVICE"}
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env=passed_on | {"PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"} | self.variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *error: object) -> None:
        with self._process:  # which closes its pipes and waits
            pass

    def train(self, case: str, run_dir: Path, *, command: bool = False, **request: Any) -> Ended:
        """Train, or go on with what is in ``run_dir``, to the end or until the process is killed.

        ``command``: by ``backprop-gpu train``. ``variables``: of the process. ``number``, ``after``: a signal, and
        after how many seconds it is sent; ``again``: once more so many seconds later.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        what = {"estimator": ESTIMATORS[case]} if case in ESTIMATORS else {"overrides": COMMON + CASES[case]}
        words = what | {"run_dir": str(run_dir), "command": command}
        self._process.stdin.write(json.dumps(words | request) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))


def result(run_dir: Path) -> dict[str, Any]:
    """All that a finished run leaves, but for the clock."""
    from support.fits import tree

    from backprop_gpu.training.checkpoint_file import load_checkpoint

    if (run_dir / "outputs").exists():
        return {"outputs": (run_dir / "outputs").read_bytes(), "state": tree(load_checkpoint(run_dir)[0]["fit"])}
    lines = [json.loads(line) for line in (run_dir / "history.jsonl").read_text().splitlines()]
    return {
        "model": (run_dir / "model.safetensors").read_bytes(),
        "history": [line | {"seconds": 0} for line in lines],
        "metrics": json.loads((run_dir / "metrics.json").read_text()) | {"seconds": 0},
        "state": tree(load_checkpoint(run_dir)[0]["fit"]),
    }


def lost(run_dir: Path, log: Path) -> str | None:
    """The last checkpoint that was complete when the process was killed, if there is no such one any more.

    ``log``: of ``io_faults``, which has a line before each call: the folder is flushed after the rename.
    """
    from support.io_faults import calls

    from backprop_gpu.training.checkpoint_file import load_checkpoint

    renamed, complete = None, None
    for call, path in calls(log, "/checkpoints") if log.exists() else []:
        if call == "rename" and Path(path).name[0].isdigit():
            renamed = Path(path).name
        elif call == "fsync" and path.endswith("/checkpoints"):
            complete = renamed
    if complete is None:
        return None
    with contextlib.suppress(Exception):
        if load_checkpoint(run_dir / "checkpoints", say=_refuse)[1].name >= complete:
            return None
    return complete


def _refuse(line: str) -> None:
    raise AssertionError(line)


@dataclass
class Kills:
    """Kills runs and has them go on; counts what comes of it.

    Attributes
    ----------
    killed, resumed : int
        Processes that were killed, runs that were finished after one or more kills.
    wrong : list of str
        What did not go on, or did not end as the run that was never interrupted, or lost a checkpoint.
    """

    server: Server
    folder: Path
    killed: int = 0
    resumed: int = 0
    wrong: list[str] = field(default_factory=list)

    def reference(self, case: str) -> dict[str, Any]:
        """The run that is never interrupted; its log has every call of the save path."""
        run_dir = self.folder / f"{case}-whole"
        if not run_dir.exists():
            ended = self.server.train(case, run_dir, variables={"IO_FAULTS_LOG": str(self.folder / f"{case}.log")})
            assert ended.code == 0, ended.err
            self.seconds = ended.seconds
        return result(run_dir)

    def kill(self, case: str, name: str, requests: list[dict[str, Any]], want: dict[str, Any]) -> None:
        """Start a run, kill it in each of these ways in turn, and let it go on to its end, with other threads."""
        run_dir, log = self.folder / name, self.folder / f"{name}.log"
        here = self.killed
        for request in requests:
            log.unlink(missing_ok=True)
            request["variables"] = {"IO_FAULTS_LOG": str(log)} | request.get("variables", {})
            ended = self.server.train(case, run_dir, **request)
            self.killed += ended.code == -signal.SIGKILL
            if ended.code not in (0, -signal.SIGKILL):
                self.wrong.append(f"{name}: {request}: {ended.err}")
            missing = lost(run_dir, log)
            if missing is not None:
                self.wrong.append(f"{name}: {request}: lost {missing}")
        ended = self.server.train(case, run_dir, variables={"OPENBLAS_NUM_THREADS": "3"})
        if ended.code != 0:
            self.wrong.append(f"{name}: {requests}: did not go on: {ended.err}")
        elif result(run_dir) != want:
            different = [key for key, value in result(run_dir).items() if value != want[key]]
            self.wrong.append(f"{name}: {requests}: another {', '.join(different)}")
        elif list(run_dir.rglob("*.tmp")):
            self.wrong.append(f"{name}: {requests}: left {list(run_dir.rglob('*.tmp'))}")
        else:
            self.resumed += self.killed > here
            for path in sorted(run_dir.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            run_dir.rmdir()
            log.unlink(missing_ok=True)

    def every_call(self, case: str, every: int = 1) -> None:
        """A run for each system call of a whole run that writes to its folder (or each ``every``-th): killed there."""
        from support.io_faults import calls

        want = self.reference(case)
        seen = dict[str, int]()
        for k, (call, _) in enumerate(calls(self.folder / f"{case}.log", f"/{case}-whole")):
            seen[call] = nth = seen.get(call, 0) + 1
            rules = f"{call}:{nth}:KILL:/{case}-"
            if call == "write" and nth % 2:  # half of it is written, and the next attempt kills
                rules = f"{call}:{nth}:SHORT:/{case}-;{call}:{nth + 1}:KILL:/{case}-"
            if k % every == 0:
                self.kill(case, f"{case}-{k}", [{"variables": {"IO_FAULTS": rules}}], want)

    def at_random(self, case: str, times: int, seed: int) -> None:
        """Runs that are killed at one to three random times."""
        want, rng = self.reference(case), random.Random(f"{case} {seed}")
        whole = self.server.train(case, self.folder / f"{case}-timed")
        for k in range(times):
            whens = [rng.uniform(0.0, whole.seconds) for _ in range(rng.choice((1, 1, 2, 3)))]
            requests = [{"number": int(signal.SIGKILL), "after": when} for when in whens]
            self.kill(case, f"{case}-random-{k}", requests, want)


def damaged(whole: bytes, path: Path, bits: int, lengths: Iterable[int]) -> list[str]:
    """Which of so many random flipped bits, and of these lengths, of a checkpoint are read as if nothing were wrong."""
    from backprop_gpu.errors import CheckpointError
    from backprop_gpu.training.checkpoint_file import load_checkpoint

    def cases() -> Iterator[tuple[str, bytes]]:
        for bit in random.Random(0).sample(range(8 * len(whole)), bits):
            flipped = bytearray(whole)
            flipped[bit // 8] ^= 1 << bit % 8
            yield f"bit {bit}", bytes(flipped)
        for length in lengths:
            yield f"length {length}", whole[:length]

    read = []
    for name, content in cases():
        path.write_bytes(content)
        with contextlib.suppress(CheckpointError):
            load_checkpoint(path)
            read.append(f"{name} of {len(whole)} bytes was read")
    return read


# -- the server -------------------------------------------------------------------------------------------------------


def _serve() -> None:
    from backprop_gpu.build import train  # noqa: F401

    with contextlib.suppress(ImportError):
        import matplotlib.figure  # noqa: F401
    for line in sys.stdin:
        request = json.loads(line)
        if "estimator" in request:  # scikit-learn takes a second to load: once
            import backprop_gpu.estimators.classifier
            import backprop_gpu.estimators.tabular  # noqa: F401
        reader, writer = os.pipe()
        start = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            _child(request, writer)
        os.close(writer)
        for wait in (request.get("after"), request.get("again")):
            if wait is not None:
                time.sleep(wait)
                os.kill(pid, request["number"])
        with os.fdopen(reader) as pipe:
            err = pipe.read()
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps({"code": code, "err": err, "seconds": time.monotonic() - start}), flush=True)


def _child(request: dict[str, Any], writer: int) -> None:
    """In the fork: train, and never return."""
    code = 70
    try:
        os.dup2(writer, 2)
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        os.dup2(1, 0)
        os.environ.update(request.get("variables", {}))
        reset = getattr(ctypes.CDLL(None), "io_faults_reset", None)
        if reset is not None:
            reset()
        if request["command"]:
            from backprop_gpu.__main__ import entry

            words = ["train", "moons", "--quiet", "--run-dir", request["run_dir"], "--resume", "auto"]
            sys.argv[1:] = [*words, *(word for override in request["overrides"] for word in ("--set", override))]
            entry()
        if "estimator" in request:
            _fit_estimator(Path(request["run_dir"]), request["estimator"])
            os._exit(0)
        from backprop_gpu.build import train

        train("moons", overrides=request["overrides"], run_dir=request["run_dir"], resume="auto", progress=False)
        code = 0
    except SystemExit as done:
        code = int(done.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def _fit_estimator(folder: Path, parameters: dict[str, Any]) -> None:
    """Fit, or go on with the checkpoints in ``folder``, and write what the estimator predicts there."""
    import warnings

    from support.small_nets import two_moons

    from backprop_gpu import Checkpoint, MLPClassifier
    from backprop_gpu.training.checkpoint_file import checkpoints_in

    warnings.simplefilter("ignore")
    X, y = two_moons(120, seed=0, noise=0.3)
    checkpoints = folder / "checkpoints"
    begun = checkpoints.is_dir() and bool(checkpoints_in(checkpoints))
    model = MLPClassifier(
        **parameters, batch_size=16, random_state=0, device="cpu", callbacks=[Checkpoint(checkpoints, every_steps=4)]
    )
    model.fit(X, y, resume=checkpoints if begun else None)
    (folder / "outputs").write_bytes(model.predict_proba(X).tobytes())


if __name__ == "__main__":
    _serve()
