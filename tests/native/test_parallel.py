"""A step on several cores: the same bits in whatever order tasks run and whoever runs them."""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_nets import targets_of

from backprop_gpu.backends.cpu import recording, thread_pool
from backprop_gpu.backends.cpu.autotuner import Autotuner
from backprop_gpu.backends.cpu.calls import ArgumentSlice, Call, Columns, Region, Units, columns, rows, whole
from backprop_gpu.backends.cpu.library import native_library
from backprop_gpu.backends.cpu.openblas import thread_limit
from backprop_gpu.backends.cpu.schedule import Schedule, stages_of
from backprop_gpu.backends.cpu.thread_pool import ThreadPool
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.step import TrainingStep
from backprop_gpu.training.batches import Batches
from backprop_gpu.training.epoch import CapturedEpoch

# Layers wider than the batch are cut by units, narrower ones by examples; batches of 72 float32 share cache lines.
SETTINGS: dict[str, dict[str, Any]] = {
    "by examples": {},
    "by units": {"sizes": [40, 160, 130, 5], "batch_size": 64},
    "dropout, norms, clipping": {
        "dropout": 0.3,
        "activation": "gelu",
        "l2": 0.1,
        "l1": 0.01,
        "clip_norm": 0.5,
        "batch_norm": True,
        "optimizer": {"name": "adamw", "average": 0.9},
    },
    "weights, micro-batches": {"weighted": True, "micro_batch": 72, "activation": "tanh", "batch_size": 192},
    "members": {"members": 3, "adapters": "all", "dropout": 0.2, "weighted": True, "micro_batch": 72, "clip_norm": 0.5},
    "one output": {"sizes": [30, 128, 64, 1], "loss": "squared_error", "optimizer": "sgd", "l2": 0.01},
}
NETWORK = (
    "activation",
    "dropout",
    "batch_norm",
    "members",
    "adapters",
)  # the settings of it, the others are the step's
SIZES = (2, 3)


@pytest.fixture(params=SIZES)
def pool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadPool]:
    made = ThreadPool(native_library(), request.param)
    monkeypatch.setattr(recording, "thread_pool", lambda: made)
    monkeypatch.setattr(thread_pool, "SERIAL_NANOSECONDS", 0)
    return made


def build(settings: dict[str, Any], kernels: str = "native", dtype: str = "float32", n: int = 400) -> CapturedEpoch:
    s = dict(settings)
    rng = np.random.default_rng(3)
    sizes, batch_size = s.pop("sizes", [40, 96, 64, 5]), s.pop("batch_size", 128)
    loss = s.pop("loss", "categorical_cross_entropy")
    X = rng.standard_normal((n, sizes[0]))
    y = rng.standard_normal((n, 1)) if loss == "squared_error" else rng.integers(0, sizes[-1], (n, 1))
    weights = rng.integers(0, 3, (n, 1)) + 0.5 if s.pop("weighted", False) else None
    micro_batch = s.pop("micro_batch", None)
    net_settings = {name: s.pop(name) for name in NETWORK if name in s}
    net = DenseNet(sizes, loss=loss, dtype=dtype, device="numpy", kernels=kernels, seed=5, **net_settings)
    step = TrainingStep(net, s.pop("optimizer", "adam"), total_steps=40, **s)
    y = y if loss == "squared_error" else targets_of(loss, y)
    return CapturedEpoch(step, Batches(net, X, y, weights, batch_size=batch_size, shuffle=True, seed=1), micro_batch)


@pytest.fixture
def schedules(pool: ThreadPool, monkeypatch: pytest.MonkeyPatch) -> list[Schedule]:
    """Filled with the recorded programs as they are made."""
    found: list[Schedule] = []

    def make(calls: list[Call], cores: int) -> Schedule:
        found.append(Schedule(calls, cores))
        return found[-1]

    monkeypatch.setattr(thread_pool, "Schedule", make)
    return found


def trained(made: CapturedEpoch, epochs: int = 3) -> list[np.ndarray]:
    costs = [made.run(epoch) for epoch in range(epochs)]
    return [*costs, made.step.net.params.theta.copy(), made.step.net.params.grad.copy()]


def same_bits(these: list[np.ndarray], those: list[np.ndarray]) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(these, those, strict=True))


def run_one(kernel: int, arguments: int) -> None:
    words = [ctypes.c_int64(kernel), ctypes.c_int64(arguments)]
    assert native_library().run(*(ctypes.addressof(word) for word in words), 1, 1) == 0


def in_order(tasks_in: Callable[[list[int]], list[int]]) -> Callable[[ThreadPool, Schedule, int, int], None]:
    """Runs on this thread, the tasks of each stage in another order."""

    def run(self: ThreadPool, schedule: Schedule, times: int, limit: int) -> None:
        for _, stage in itertools.product(range(times), stages_of(schedule.calls, self.size)):
            for number in tasks_in(list(range(len(stage.tasks)))):
                for made, chunk in stage.tasks[number].chunks:
                    run_one(made.kernel, made.row_addresses[chunk])

    return run


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", SETTINGS)
def test_the_order_of_tasks_changes_no_bit(
    name: str, dtype: str, pool: ThreadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = trained(build(SETTINGS[name], dtype=dtype))
    orders: list[Callable[[list[int]], list[int]]] = [list, lambda x: x[::-1], lambda x: x[1:] + x[:1]]
    for order in orders:
        monkeypatch.setattr(ThreadPool, "run", in_order(order))
        assert same_bits(trained(build(SETTINGS[name], dtype=dtype)), together)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_call_writes_what_it_declares_and_no_chunk_meets_another(name: str, schedules: list[Schedule]) -> None:
    trained(build(SETTINGS[name]), 1)
    gathers = {native_library().kernel(f"gather_{dtype}") for dtype in ("float32", "float64", "int64")}
    assert max(call.chunks for schedule in schedules for call in schedule.calls) > 1
    for schedule in schedules:
        for counters in (c.arguments[2] for c in schedule.calls if c.kernel in gathers):
            counters[...] = 0  # type: ignore[index]  # the first batch: after an epoch they are at its end
        arrays = [x for call in schedule.calls for x in arrays_of(call)]
        for number, call in enumerate(schedule.calls):
            regions = [call.regions(chunk) for chunk in range(call.chunks)]
            for (reads, writes), (_, others) in itertools.permutations(regions, 2):
                assert not any(a.overlaps(b) for a in (*reads, *writes) for b in others), number
            before = [x.copy() for x in arrays]
            for row, (_, writes) in zip(call.row_addresses, regions, strict=True):
                run_one(call.kernel, row)
                for x, old in zip(arrays, before, strict=True):
                    changed = np.flatnonzero(x.view(np.uint8).reshape(-1) != old.view(np.uint8).reshape(-1))
                    places = x.ctypes.data + changed
                    assert all(any(holds(w, int(p)) for w in writes) for p in places[:: max(1, places.size // 50)])
                before = [x.copy() for x in arrays]


def arrays_of(call: Call) -> list[np.ndarray]:
    found = [a.array if isinstance(a, ArgumentSlice) else a for a in call.arguments]
    return [x for x in found if isinstance(x, np.ndarray)]


def holds(region: Region, place: int) -> bool:
    if not region.start <= place < region.end:
        return False
    return not region.pitch or region.first <= (place - region.start) % region.pitch < region.last


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_step_in_chunks_is_the_step_of_the_reference(name: str, dtype: str, pool: ThreadPool) -> None:
    """With plain descent: Adam's quotients make a rounding as large as a step where a gradient is about its epsilon."""
    settings = SETTINGS[name] | {"optimizer": "sgd"}
    ours, plain = (trained(build(settings, kernels, dtype), 1) for kernels in ("native", "reference"))
    scale = np.abs(plain[-2]).max()
    assert np.abs(ours[-2] - plain[-2]).max() <= {"float32": 2e-4, "float64": 1e-11}[dtype] * scale


@pytest.mark.parametrize("name", SETTINGS)
def test_a_recorded_step_has_the_bits_of_one_that_is_called(
    name: str, pool: ThreadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = trained(build(SETTINGS[name]))

    def capture(self: Any, program: Callable[[], None]) -> Callable[..., None]:
        def replay(times: int, before: Any = None) -> None:
            for _ in range(times):
                program()

        return replay

    monkeypatch.setattr(recording.RecordingKernels, "capture", capture)
    assert same_bits(trained(build(SETTINGS[name])), recorded)


def test_a_short_program_is_played_in_order_and_on_all_cores_when_it_goes_on(
    schedules: list[Schedule], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = trained(build({}))
    schedules.clear()
    monkeypatch.setattr(thread_pool, "SERIAL_NANOSECONDS", 1e6)
    made = build({})
    made.run(0)
    assert not schedules
    monkeypatch.setattr(thread_pool, "SERIAL_NANOSECONDS", 3e5)
    later = build({})
    counts = list[int]()
    costs = []
    for epoch in range(3):
        costs.append(later.run(epoch))
        counts.append(len(schedules))
    assert counts[0] == 0 < counts[-1]
    params = later.step.net.params
    assert same_bits([*costs, params.theta.copy(), params.grad.copy()], together)


def test_it_changes_between_alone_and_together_with_the_same_bits(
    pool: ThreadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, turns = trained(build({})), itertools.cycle([(True, 1), (False, 2), (True, 3)])

    def next_turn(self: Autotuner, times: int) -> tuple[bool, int]:
        how, steps = next(turns)
        return how, min(steps, times)

    monkeypatch.setattr(Autotuner, "next", next_turn)
    assert same_bits(trained(build({})), together)


@pytest.mark.parametrize("sizes", [[40, 96, 64, 5], [300, 400, 300, 5]])
def test_threads_of_python_may_train_at_once(sizes: list[int], pool: ThreadPool) -> None:
    """The large products would have other bits with two threads of BLAS: those who end must not restore them."""
    wanted, found = trained(build({"sizes": sizes})), dict[int, list[np.ndarray]]()
    made = [build({"sizes": sizes}) for _ in range(4)]

    def work(i: int) -> None:
        found[i] = trained(made[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(same_bits(got, wanted) for got in found.values())


def test_a_network_that_is_gone_is_not_kept_by_the_pool(schedules: list[Schedule]) -> None:
    trained(build({}))
    gone = [weakref.ref(schedule) for schedule in schedules]
    schedules.clear()
    deadline = time.monotonic() + 10
    while any(ref() is not None for ref in gone) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    assert all(ref() is None for ref in gone)


def test_the_threads_of_blas_are_as_before(pool: ThreadPool) -> None:
    before = thread_limit()
    trained(build({}))
    assert thread_limit() == before


def test_a_limit_of_the_users_holds_and_changes_no_bit(pool: ThreadPool, monkeypatch: pytest.MonkeyPatch) -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl", reason="pip install threadpoolctl")
    wanted, found = trained(build({})), list[int]()
    run = pool.library.run_schedule

    def noted(schedule: int, steps: int, threads: int) -> int:
        found.append(threads)
        return int(run(schedule, steps, threads))

    monkeypatch.setattr(pool.library, "run_schedule", noted)
    with threadpoolctl.threadpool_limits(1):
        assert same_bits(trained(build({})), wanted)
    assert set(found) == {1}


def test_what_a_network_has_done_before_changes_no_bit(pool: ThreadPool) -> None:
    X = np.random.default_rng(1).standard_normal((600, 40))
    made = build({"batch_size": 64})
    first = made.step.net.predict_proba(X)
    assert same_bits([made.step.net.predict_proba(X)], [first])
    assert same_bits(trained(made), trained(build({"batch_size": 64})))


SCRIPT = """
    import os, sys, warnings
    import numpy as np
    from backprop_gpu import MLPClassifier

    warnings.simplefilter("ignore")
    X = np.random.default_rng(0).standard_normal((600, 40), dtype=np.float32)
    y = (X[:, 0] > 0).astype(int)

    def fit():
        net = MLPClassifier((96, 64), batch_size=128, max_iter=5, random_state=0, kernels="native").fit(X, y)
        return b"".join(W.tobytes() for W in net.coefs_)

    wanted = fit()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_has_a_pool_of_its_own(tmp_path: Path) -> None:
    script = textwrap.dedent(SCRIPT) + textwrap.dedent("""
        child = os.fork()
        if child == 0:
            os._exit(0 if fit() == wanted else 1)
        assert fit() == wanted
        assert os.waitpid(child, 0)[1] == 0
    """)
    for made_before in (False, True):
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        )
        assert done.returncode == 0, (made_before, done.stderr)


@pytest.mark.parametrize("limit", ["OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"])
def test_one_thread_is_one_core(limit: str) -> None:
    script = textwrap.dedent(SCRIPT) + textwrap.dedent("""
        import threading
        assert threading.active_count() == 1, threading.enumerate()
    """)
    environment = {**os.environ, limit: "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="this system does not list a process's threads")
def test_epochs_wake_no_thread_of_blas() -> None:
    """Such a thread looks out for more work, some 20 ms, on the core that the next epoch needs."""
    script = textwrap.dedent(
        """
        import os
        import numpy as np
        blas = [task for task in os.listdir("/proc/self/task") if int(task) != os.getpid()]

        def switches():
            lines = [line for task in blas for line in open(f"/proc/self/task/{task}/status")]
            return [line for line in lines if "ctxt_switches" in line]

        from backprop_gpu import MLPClassifier
        X = np.random.default_rng(0).standard_normal((300, 40))
        before = switches()
        net = MLPClassifier((300, 4), max_iter=3, tol=0.0, random_state=0, kernels="native").fit(X, X[:, 0] > 0)
        assert sum(W.size for W in net.coefs_) > 10_000
        assert switches() == before
        """
    )
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr


# -- regions, calls and stages ----------------------------------------------------------------------------------------


def call(*arguments: Any, chunks: int = 2) -> Call:
    return Call(1, arguments, 1.0, chunks=chunks)


def words(made: Call) -> list[list[int]]:
    assert made.row_addresses
    assert made._rows is not None
    return [row.tolist() for row in made._rows]


def test_chunks_begin_at_rows_of_four_and_at_cache_lines() -> None:
    x = np.zeros((22, 40), np.float32)
    by_rows, by_columns = call(rows(x, written=True), Units(22)), call(columns(x, written=True), Columns(40))
    assert words(by_rows) == [[x.ctypes.data, 8], [x.ctypes.data + 8 * 160, 14]]
    assert words(by_columns) == [[x.ctypes.data, 16], [x.ctypes.data + 64, 24]]


def test_chunks_of_an_array_are_apart_and_a_chunk_meets_the_whole() -> None:
    x = np.zeros((8, 64), np.float32)
    for sliced, units in ((rows, Units(8)), (columns, Columns(64))):
        made = call(sliced(x, written=True), units)
        (_, [first]), (_, [second]) = made.regions(0), made.regions(1)
        assert not first.overlaps(second)
        assert first.overlaps(first)
    (_, [by_row]), (_, [by_column]) = (
        call(rows(x, written=True), Units(8)).regions(0),
        call(columns(x, written=True), Columns(64)).regions(1),
    )
    assert by_row.overlaps(by_column), "a row crosses all columns"


def test_the_last_block_of_a_vector_may_be_shorter() -> None:
    x = np.zeros(4096 * 8 + 5, np.float32)
    made = call(ArgumentSlice(x, 4096 * 4, written=True), Units(9))
    (_, [first]), (_, [second]) = made.regions(0), made.regions(1)
    assert (first.start, first.end, second.end) == (x.ctypes.data, second.start, x.ctypes.data + x.nbytes)


def shape_of(*calls: Call) -> list[list[int]]:
    return [[len(task.chunks) for task in stage.tasks] for stage in stages_of(list(calls), 2)]


def test_a_stage_ends_where_a_task_needs_what_another_wrote() -> None:
    x, y, z = (np.zeros((8, 64), np.float32) for _ in range(3))
    make, same = call(rows(x, written=True), Units(8)), call(rows(x), rows(y, written=True), Units(8))
    reads_all = call(x, rows(z, written=True), Units(8))
    assert shape_of(make, same) == [[2, 2]]
    assert shape_of(make, reads_all) == [[1, 1], [1, 1]]
    assert shape_of(reads_all, make) == [[1, 1], [1, 1]], "nor may it be overwritten while another reads it"
    assert shape_of(make, call(columns(x, written=True), Columns(64))) == [[1, 1], [1, 1]]


def test_a_small_call_goes_beside_others_in_the_shorter_task() -> None:
    x, y, z = (np.zeros((8, 64), np.float32) for _ in range(3))
    small = call(whole(y, written=True))
    assert shape_of(small, call(rows(x, written=True), Units(8))) == [[2, 1]]
    assert shape_of(call(rows(x, written=True), Units(8)), small, call(whole(z, written=True))) == [[2, 2]]


def test_what_does_not_depend_on_each_other_goes_side_by_side() -> None:
    x, y = (np.zeros((8, 64), np.float32) for _ in range(2))
    first = [call(whole(x, written=True)), call(x, whole(x, written=True))]
    second = [call(whole(y, written=True)), call(y, whole(y, written=True))]
    assert shape_of(*first, *second) == [[2, 2]]
    cut = [call(rows(x, written=True), Units(8)), call(x, columns(x, written=True), Columns(64))]
    other = [call(rows(y, written=True), Units(8)), call(y, columns(y, written=True), Columns(64))]
    assert shape_of(*cut, *other) == [[2, 2], [2, 2]], "no more stages than one of them alone"


# -- the autotuner ----------------------------------------------------------------------------------------------------


def run_by(tuner: Autotuner, seconds: Callable[[bool], float], steps: int) -> list[tuple[bool, int]]:
    """Ways and numbers of steps of a play that takes ``seconds(together)`` a step."""
    turns = []
    while steps > 0:
        together, now = tuner.next(steps)
        assert 1 <= now <= steps
        tuner.record(together, now, now * seconds(together))
        turns.append((together, now))
        steps -= now
    return turns


def share_together(turns: list[tuple[bool, int]]) -> float:
    return sum(n for together, n in turns if together) / sum(n for _, n in turns)


@pytest.mark.parametrize("step", [1e-5, 1e-3, 0.1])
def test_the_faster_way_is_played_and_the_other_tried_now_and_then(step: float) -> None:
    for factor, least, most in ((0.6, 0.9, 0.999), (1.4, 0.001, 0.1)):
        tuner = Autotuner(step)
        turns = run_by(tuner, lambda together: step * (factor if together else 1.0), int(20 / step))  # noqa: B023
        assert least <= share_together(turns) <= most
        assert max(n for _, n in turns) * step * 1.4 <= max(0.05, 2 * step), "signals are looked at in between"


def test_it_changes_its_mind_when_the_machine_does() -> None:
    tuner = Autotuner(1e-4)
    quick, slow = (lambda together: 6e-5 if together else 1e-4), (lambda together: 3e-4 if together else 1e-4)
    assert share_together(run_by(tuner, quick, 20_000)) > 0.9
    assert share_together(run_by(tuner, slow, 20_000)) < 0.1
    assert share_together(run_by(tuner, quick, 20_000)) > 0.85


def test_a_short_play_is_not_spent_on_trials() -> None:
    assert all(together for together, _ in run_by(Autotuner(1e-4), lambda together: 6e-5, 100))


def test_a_new_program_begins_as_one_like_it_went_and_still_finds_out_when_the_machine_changes() -> None:
    first = Autotuner(1e-4)
    run_by(first, lambda together: 3e-4 if together else 1e-4, 20_000)
    assert not any(together for together, _ in run_by(Autotuner(1e-4, first), lambda together: 1e-4, 10))
    tuner, turns = first, []
    for _ in range(200):  # programs of 2 ms each
        tuner = Autotuner(1e-4, tuner)
        turns += run_by(tuner, lambda together: 6e-5 if together else 1e-4, 20)
    assert share_together(turns) > 0.5
