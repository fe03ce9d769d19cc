"""Every reader of files, fed with mutants of valid files under limits of time and memory.

An input is a reader's name and a number, which say all: the same pair is the same file. Reading it must end well or
with one of the package's errors, of one line, within a second of processor time and ``safe_files.memory_limit``, and
must neither run code, nor load a module, nor open a file for writing.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import resource
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from support import fuzzed_tables, mutations
from support.mutations import mutate_bytes

from backprop_gpu.errors import BackpropError, DataError
from backprop_gpu.safe_files import memory_limit

SECONDS = 1.0  # of processor time
LONGEST_MESSAGE = 2000
FORBIDDEN = (
    *("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.remove", "os.rename", "os.mkdir", "os.symlink"),
    *("subprocess.Popen", "pickle.find_class", "marshal.loads", "ctypes.dlopen", "exec", "import", "shutil.rmtree"),
    *("socket.connect", "socket.bind", "urllib.Request", "code.__new__"),
)

Mutator = Callable[[random.Random, bytes, Any], bytes]


class TooSlow(BaseException):
    """The limit of processor time."""


class Wrong(AssertionError):
    """Reading an input did what it must not do."""


@dataclass
class Reader:
    """What is read, how, and how its mutants are made."""

    suffix: str
    seeds: list[bytes]
    read: Callable[[Path], Any]
    mutators: list[Mutator]
    also: tuple[type[Exception], ...] = ()  # errors that are allowed beside the package's own

    def input(self, name: str, number: int) -> bytes:
        """The bytes of an input."""
        rng = random.Random(f"{name}:{number}")
        seed = rng.choice(self.seeds)
        return rng.choice(self.mutators)(rng, seed, self.seeds)


# -- limits -----------------------------------------------------------------------------------------------------------


class _Watch:
    """Looks at what Python is about to do, while an input is read."""

    def __init__(self) -> None:
        self.on = False
        self.seen = ""
        sys.addaudithook(self.event)

    def event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on or self.seen:
            return
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if event in FORBIDDEN or writes:
            self.seen = f"{event} {arguments!r}"[:300]


_watch: _Watch | None = None


@contextlib.contextmanager
def limits(size: int, *, memory: bool = True, seconds: float = SECONDS, watched: bool = True) -> Iterator[None]:
    """Some processor time, and memory for a file of ``size`` bytes; Wrong if code was run."""
    global _watch
    watch = _watch = _watch or _Watch()

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGPROF, stop)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if memory:
        pages = int(Path("/proc/self/statm").read_bytes().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory_limit(size), hard))
    watch.on, watch.seen = watched, ""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        watch.on = False
        if memory:
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        signal.signal(signal.SIGPROF, before)
    if watch.seen:
        raise Wrong(f"it did {watch.seen}")


def outcome(reader: Reader, content: bytes, path: Path, *, memory: bool = True, seconds: float = SECONDS) -> str:
    """``"read"`` or ``"refused"``.

    Raises
    ------
    Wrong
        For anything else.
    """
    path.write_bytes(content)
    try:
        with limits(len(content), memory=memory, seconds=seconds), warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            reader.read(path)
    except TooSlow:
        raise Wrong(f"it took more than {seconds:g} s of processor time") from None
    except BackpropError as error:
        message = str(error)
        if "\n" in message or not 0 < len(message) <= LONGEST_MESSAGE:
            raise Wrong(f"the message has {len(message)} letters in {message.count(chr(10)) + 1} lines") from error
        return "refused"
    except reader.also:
        return "refused"
    except Wrong:
        raise
    except (Exception, RecursionError) as error:
        raise Wrong(f"{type(error).__name__}: {str(error)[:300]}") from error
    return "read"


# -- readers ----------------------------------------------------------------------------------------------------------

YAML_WORDS = [
    *mutations.ODD_TEXTS,
    "a: ",
    "- ",
    "? ",
    "[",
    "]",
    "{",
    "}",
    "&a ",
    "*a",
    "!!python/name:os.system ",
    "|\n",
    ">\n",
]
YAML_WORDS += [
    "<<: ",
    "~",
    "0b1",
    ".inf",
    "%YAML 1.1\n",
    "---\n",
    "...\n",
    "\t",
    "# ",
    "1e9",
    "-0",
    "[" * 50,
    "? " * 30,
]
CELLS = [
    *mutations.ODD_TEXTS,
    '""',
    '"a\nb"',
    "1,5",
    "$5",
    "5%",
    "2024-01-05",
    "1_000",
    "١",
    "0x10",
    ",",
    "\n",
    ";",
    "\r\n",
]
CELLS += ["1e309", "-1e-400", "007", "NA", "1" * 400, "x" * 131_073, "\ufeff", '"', "\x1c", "\u2028"]
COMMON = [mutate_bytes, mutate_bytes]


OF_DATA = ("yaml", "csv", "parquet", "arrow", "xlsx", "npy", "npz")
OF_MODELS = ("model", "estimator", "case", "tensors", "history", "checkpoint", "diagnose")
NAMES = (*OF_DATA, *OF_MODELS, *fuzzed_tables.NAMES)


def readers(names: Sequence[str] = NAMES) -> dict[str, Reader]:
    """Readers of files, by name, with small valid files."""
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        made = (_of_data() if set(names) & set(OF_DATA) else {}) | (_of_models() if set(names) & set(OF_MODELS) else {})
        made |= fuzzed_tables.more_readers(names, Reader)
        found = {name: made[name] for name in names}
        for reader in found.values():  # what is imported on first use is imported now
            path = Path(folder, f"seed{reader.suffix}")
            for seed in reader.seeds:
                path.write_bytes(seed)
                reader.read(path)
    return found


def _of_data() -> dict[str, Reader]:
    import logging

    from backprop_gpu.config_reading import carried, load_config
    from backprop_gpu.data import read_table
    from backprop_gpu.data.array_files import map_array
    from backprop_gpu.data.preprocessing import Preprocessor
    from backprop_gpu.data.table import table_from_arrays
    from backprop_gpu.safe_yaml import to_yaml

    logging.getLogger("backprop_gpu.data").setLevel(logging.CRITICAL)

    def read_csv(path: Path) -> None:
        table = read_table(path, target=-1)
        Preprocessor.fit(table, missing="indicator").transform(table)

    def read_array(path: Path) -> None:
        array = map_array(path)
        if array.ndim == 2 and array.dtype.kind != "U":
            read_table(path, labelled=False).fingerprint()
        else:
            table_from_arrays(np.zeros((len(np.atleast_1d(array)), 1)), array).fingerprint()

    tables = [
        "a,b,y\n1,2,0\n3,4.5,1\n-1,1e3,0\n2,,1\n",
        "größe,farbe,kauft\n1.5,rot,ja\n2,blau,nein\n,grün,ja\n",
        'k,"q ""x""",d,y\nid1,"a, b",2024-01-05,1\nid2,"c\nd",2024-02-05,2\n',
        "n,m,t\n" + "".join(f"{i},{'x' if i % 3 else i},{i * 1.5}\n" for i in range(30)),
    ]
    X = np.arange(12.0).reshape(6, 2)
    text = [mutations.mutate_text(YAML_WORDS, " \n:[]{},")]
    cells = [mutations.mutate_text(CELLS, ",\n"), mutations.mutate_text(CELLS, ",\n")]
    configurations = [path.read_bytes() for path in carried().values()]
    configurations.append(
        to_yaml({"data": {"source": "a.csv", "target": "y", "columns": ["a", "b"]}, "seed": 3}).encode()
    )
    arrays = [_npy(X), _npy(X.astype("f4").T), _npy(np.arange(6)), _npy(np.array([["a", "bb"], ["c", ""]]))]
    archives = [
        _npz(X=X, y=np.arange(6)),
        _npz(X=X.astype("u1"), y=np.array(["a", "b"] * 3), feature_names=np.array(["u", "v"])),
        _npz(X=X, y=np.array([0, 1] * 3), classes=np.array(["no", "yes"])),
    ]
    return {
        "yaml": Reader(".yaml", configurations, lambda path: load_config(str(path)), [*COMMON, *text, *text]),
        "csv": Reader(".csv", [t.encode() for t in tables], read_csv, [*COMMON, *cells]),
        **_of_columns(read_csv),
        "npy": Reader(".npy", arrays, read_array, [*COMMON, mutations.mutate_header, mutations.mutate_header]),
        "npz": Reader(
            ".npz",
            archives,
            lambda path: read_table(path).fingerprint(),
            [*COMMON, mutations.mutate_archive, mutations.mutate_archive],
        ),
    }


def _of_columns(read: Callable[[Path], Any]) -> dict[str, Reader]:
    import datetime

    import openpyxl
    import pyarrow as pa
    import pyarrow.parquet as pq

    days = [datetime.date(2024, 1, 1 + k) for k in range(12)]
    table = pa.table(
        {
            "a": range(12),
            "b": pa.array(["x", None, "z"] * 4).dictionary_encode(),
            "d": days,
            "s": ["1,5"] * 12,
            "y": range(12),
        }
    )
    parquet = [io.BytesIO(), io.BytesIO()]
    pq.write_table(table, parquet[0], row_group_size=5, compression="zstd")
    pq.write_table(table, parquet[1], compression="none", use_dictionary=False)
    arrow = [io.BytesIO(), io.BytesIO()]
    for output, new in zip(arrow, (pa.ipc.new_file, pa.ipc.new_stream), strict=True):
        with new(output, table.schema) as writer:
            writer.write_table(table)
    book, excel = openpyxl.Workbook(), io.BytesIO()
    for row in [table.column_names, *(row.values() for row in table.to_pylist())]:
        book.active.append(list(row))
    book.save(excel)

    def seeds(outputs: list[io.BytesIO]) -> list[bytes]:
        return [output.getvalue() for output in outputs]

    return {
        "parquet": Reader(".parquet", seeds(parquet), read, COMMON),
        "arrow": Reader(".arrow", seeds(arrow), read, COMMON),
        "xlsx": Reader(".xlsx", seeds([excel]), read, COMMON),
    }


def _npy(x: np.ndarray) -> bytes:
    output = io.BytesIO()
    np.save(output, x)
    return output.getvalue()


def _npz(**arrays: np.ndarray) -> bytes:
    output = io.BytesIO()
    np.savez(output, **arrays)  # type: ignore[arg-type]
    return output.getvalue()


def _of_models() -> dict[str, Reader]:
    from backprop_gpu import build, parity
    from backprop_gpu.cli import main
    from backprop_gpu.estimators import MLPClassifier, MLPRegressor
    from backprop_gpu.tensor_file import read_tensors
    from backprop_gpu.training.callbacks import history_lines

    def read_model(path: Path) -> None:
        model = build.load(path, "cpu")
        p = model.preprocessor
        row: dict[str, Any] = dict.fromkeys(p.numeric, 0.5) | {name: known[0] for name, known in p.categories.items()}
        model.predict([row, row] if p.named else [list(row.values())] * 2)

    def read_estimator(path: Path) -> None:
        for ours in (MLPClassifier, MLPRegressor):
            try:
                found = ours.from_safetensors(path, device="cpu")
            except BackpropError as error:
                if ours is MLPRegressor or ", not MLPClassifier" not in str(error):
                    raise
                continue
            X = np.zeros((2, found.coefs_[0].shape[0] if hasattr(found, "coefs_") else found.n_features_in_))
            with contextlib.suppress(ValueError):  # as scikit-learn's own: NaN, or parameters that are none
                found.predict(X)
            return

    def read_checkpoint(path: Path) -> None:
        small_trainer(1).fit(*ROWS, resume=path)

    def diagnose(path: Path) -> None:
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            code = main(["diagnose", str(path)])
        if code == 2:
            raise DataError(errors.getvalue().removesuffix("\n"))

    with tempfile.TemporaryDirectory() as folder:
        files = _saved(Path(folder))
    tensors = [*COMMON, mutations.mutate_tensors, mutations.mutate_tensors]
    return {
        "model": Reader(".safetensors", files["model"], read_model, tensors),
        "estimator": Reader(".safetensors", files["estimator"], read_estimator, tensors),
        "case": Reader(".safetensors", files["case"], lambda path: parity.replay(path), tensors),
        "tensors": Reader(
            ".safetensors", files["model"], lambda path: read_tensors(path, "backprop_gpu/1", "model"), COMMON
        ),
        "history": Reader(".jsonl", files["history"], history_lines, [*COMMON, mutations.mutate_lines]),
        "checkpoint": Reader(".safetensors", files["checkpoint"], read_checkpoint, tensors),
        "diagnose": Reader(".npz", files["diagnose"], diagnose, [*COMMON, *[mutations.mutate_archive] * 2]),
    }


def _saved(folder: Path) -> dict[str, list[bytes]]:
    """Files that the package wrote, of each kind."""
    from backprop_gpu import Checkpoint, DenseNet, build, parity
    from backprop_gpu.estimators import MLPClassifier, MLPRegressor

    files: dict[str, list[bytes]] = {"model": [], "estimator": [], "case": [], "history": [], "checkpoint": []}
    (folder / "shop.csv").write_text(
        "a,farbe,y\n" + "".join(f"{i % 7},{'rg'[i % 2]},{'jn'[i % 3 > 0]}\n" for i in range(40)), encoding="utf-8"
    )
    quick = ["training.epochs=2", "model.hidden=[2]", "data.test=0"]
    for k, more in enumerate(
        (["data.source=regression", "data.options.n=40"], [f"data.source={folder}/shop.csv", "data.target=y"])
    ):
        outcome = build.train(None, overrides=[*quick, *more], run_dir=folder / f"run{k}", device="cpu", progress=False)
        files["model"].append((outcome.run_dir / "model.safetensors").read_bytes())
        files["history"].append((outcome.run_dir / "history.jsonl").read_bytes())
    X = np.random.default_rng(0).normal(size=(40, 2))
    y = (X[:, 0] > 0).astype(int)
    small: dict[str, Any] = {"hidden_layer_sizes": (2,), "max_iter": 2, "random_state": 0}
    made = [
        MLPClassifier(early_stopping=True, **small).fit(X, np.array(["n", "y"])[y]),
        MLPClassifier(**small).fit(X, np.stack([y, 1 - y], axis=1)),
        MLPRegressor(**small).fit(X, X[:, 1]),
        MLPRegressor(preset="tabular", n_members=2, max_iter=1, random_state=0).fit(X, X[:, 1]),
    ]
    for estimator in made:
        estimator.to_safetensors(folder / "e.safetensors")
        files["estimator"].append((folder / "e.safetensors").read_bytes())
    for optimizer in ("sgd", "adam"):
        net = DenseNet([2, 2, 1], device="cpu", seed=1)
        parity.check(net, X[:3], y[:3], steps=1, optimizer=optimizer).save(folder / "c.safetensors")
        files["case"].append((folder / "c.safetensors").read_bytes())
    trainer = small_trainer(1)
    trainer.callbacks = [Checkpoint(folder / "checkpoints", every_steps=1)]
    trainer.fit(*ROWS)
    files["checkpoint"] = [path.read_bytes() for path in (folder / "checkpoints").glob("*.safetensors")]
    own = {"W1": np.ones((2, 2)), "b1": np.zeros((2, 1)), "W2": np.ones((1, 2)), "b2": np.zeros((1, 1))}
    files["diagnose"] = [_npz(X=X[:4], y=y[:4], **own, **{f"d{name}": x for name, x in own.items()})]
    return files


ROWS = np.linspace(-1.0, 1.0, 12).reshape(6, 2), np.arange(6) % 2


def small_trainer(epochs: int) -> Any:
    """A trainer of three weights and a bias."""
    from backprop_gpu import DenseNet, Trainer

    net = DenseNet([2, 1], device="cpu", kernels="reference", seed=1)
    return Trainer(net, epochs=epochs, batch_size=3, optimizer="adam", seed=1)


def describe(name: str, number: int, problem: BaseException) -> str:
    """One line for a finding."""
    return json.dumps({"input": f"{name}:{number}", "problem": str(problem)})
