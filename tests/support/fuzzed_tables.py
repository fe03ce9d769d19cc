"""More readers for ``fuzzing``: tables as programs of all kinds write them, run folders, weights of PyTorch."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import logging
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from support import mutations

from backprop_gpu.errors import ConfigError

Mutator = Callable[[random.Random, bytes, Any], bytes]

NAMES = ("init", "gz", "input", "rows", "metrics", "report", "torch")

WRITTEN = [  # by spreadsheets, statistics programs and scripts: (text, encoding)
    ("Wohnfläche;Stadt;bezugsfrei;Miete\n54,5;Köln;03.04.2024;1.234,50\n71,0;Bonn;17.12.2023;987,00\n", "cp1252"),
    ("id\tprice\tshare\tday\ty\n1\t$1,200.50\t5%\t2024-01-05\tyes\n2\t$900.00\t12.5%\t2024-02-17\tno\n", "utf-8"),
    ("sep=|\n'a'|'b'|'y'\n'1'|'x, y'|'t'\n'2'|'z'|'f'\n", "utf-16"),
    ("# written by hand\n# twice\na,b,y\n1_000,12:30,0\n2_000,13:45,1\n", "utf-8-sig"),
    ("when,at,y\n2024-01-05T10:00:00Z,1/2/2024,1\n2024-03-01T09:30:00Z,15/2/2024,0\n,28/2/2024,1\n", "utf-16-le"),
    ("n,y\n" + "".join(f"{i} kg,{'ab'[i % 2]}\n" for i in range(40)), "latin-1"),
]
PIECES = [
    *mutations.ODD_TEXTS,
    *(";", "\t", "|", "'", '"', "sep=;\n", "#", "1.234,5", "1,234.5", "1'234", "31.12.99", "12/31/1999", "24:61"),
    *("2024-02-30", "9999-99-99", "T25:00:00Z", "0001-01-01", "NaT", "€", "%", "kg", "NULL", "\ufeff", "\x1a", "\xa0"),
    *("1e400", "9" * 30, "a\nseed: 9", "# x", "*y", "-", "y\u2028z", "{{body}}", "</script>", "=1+1"),
]
TEXT = mutations.mutate_text(PIECES, ",;\t|\n")


def in_encoding(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """A mutant of a text that keeps its encoding, as far as its letters are in it."""
    for encoding in ("utf-16", "utf-8", "cp1252"):
        with contextlib.suppress(UnicodeDecodeError):
            text = content.decode(encoding)
            return TEXT(rng, text.encode(), others).decode(errors="replace").encode(encoding, errors="replace")
    return TEXT(rng, content, others)


def packed(mutator: Mutator) -> Mutator:
    """The mutant of what a gzip file holds, packed again."""

    def mutate(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
        return gzip.compress(mutator(rng, gzip.decompress(content), [gzip.decompress(x) for x in others]), mtime=0)

    return mutate


def mutate_value(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """A JSON file one to three of whose values are others."""
    return mutations.dumps(mutations.mutate_json(rng, json.loads(content))).encode()


MUTATORS: list[Mutator] = [mutations.mutate_bytes, in_encoding, in_encoding, in_encoding]


def more_readers(names: Sequence[str], reader: Callable[..., Any]) -> dict[str, Any]:
    """These readers by name; ``reader`` takes suffix, seeds, what reads, and mutators."""
    logging.getLogger("backprop_gpu.data").setLevel(logging.CRITICAL)
    found = _tables(reader) if {"init", "gz", "input"} & set(names) else {}
    found |= _runs(reader) if {"rows", "metrics", "report"} & set(names) else {}
    return found | ({"torch": _torch(reader)} if "torch" in names else {})


def _tables(reader: Callable[..., Any]) -> dict[str, Any]:
    from backprop_gpu.cli_init import configuration
    from backprop_gpu.data import read_table, text_files
    from backprop_gpu.data.inspection import inspect
    from backprop_gpu.data.preprocessing import Preprocessor
    from backprop_gpu.safe_yaml import parse_yaml

    def begin(path: Path) -> None:
        """As ``config init``; what it writes names this file and this target, whatever letters the table has."""
        table = read_table(path, target=-1)
        text = configuration(inspect(table), "a: b.csv", {"delimiter": ";"})
        try:
            written = parse_yaml(text, "init.yaml")
        except ConfigError as error:
            raise AssertionError(f"what config init wrote cannot be read: {error}") from error
        data = written.pop("data")
        assert {key: data[key] for key in ("source", "target", "delimiter")} == {
            "source": "a: b.csv",
            "target": table.target_names[0],
            "delimiter": ";",
        }
        assert set(written) == {"preset", "training"}

    def read(path: Path) -> None:
        table = read_table(path, target=-1)
        Preprocessor.fit(table, missing="indicator").transform(table)

    def read_input(path: Path) -> None:
        before, text_files._input = sys.stdin, None
        try:
            with open(path, encoding="utf-8") as sys.stdin:
                read(text_files.STANDARD_INPUT)
        finally:
            sys.stdin, text_files._input = before, None

    tables = [text.encode(encoding) for text, encoding in WRITTEN]
    packs = [mutations.mutate_bytes, packed(mutations.mutate_bytes), packed(in_encoding), packed(in_encoding)]
    return {
        "init": reader(".csv", tables, begin, MUTATORS),
        "gz": reader(".csv.gz", [gzip.compress(x, mtime=0) for x in tables], read, packs),
        "input": reader(".csv", tables, read_input, MUTATORS),
    }


def _runs(reader: Callable[..., Any]) -> dict[str, Any]:
    """The rows that a model is asked about, and the files of a run that its report is made from."""
    from rich.cells import cell_len

    from backprop_gpu import build
    from backprop_gpu.report import comparison, run_data, run_report, terminal
    from backprop_gpu.training.callbacks import history_lines

    cell_len("中")  # loads tables of widths, which is no import of a file's
    rows = "".join(
        f"{i % 7};{i % 5},25;0{i % 9 + 1}.04.2024;{'rgb'[i % 3]};{'nj'[i % 2]};{i % 3},5\n" for i in range(60)
    )
    content = f"zahl;größe;tag;farbe;kauft;gewicht\n{rows}"
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "shop.csv")
        table.write_text(content, encoding="utf-8")
        data = [f"data.source={table}", "data.target=kauft", "data.weight_column=gewicht", "data.missing=indicator"]
        more = ["data.unknown=missing", "training.epochs=2", "model.hidden=[2]", "model.members=2"]
        done = build.train(None, overrides=[*data, *more], run_dir=Path(folder, "run"), device="cpu", progress=False)
        model, run = done.model, run_data.read_run(done.run_dir, "cpu")
        files = {name: (done.run_dir / name).read_bytes() for name in ("metrics.json", "history.jsonl")}

    def predict(path: Path) -> None:
        model.predict(str(path))
        model.evaluate(str(path))

    def show(epochs: list[dict[str, Any]], metrics: dict[str, Any]) -> None:
        found = run_data.Run(run.folder, run.config, epochs, metrics, run.model, run.tables, list(run.missing))
        run_report.page(found.title, run_report.sections(found))
        run_report.page("two", comparison.sections([run, found]))
        with contextlib.redirect_stdout(io.StringIO()):
            terminal.print_whole(terminal.console(), comparison.terminal_table([run, found]))
        comparison.remarks([run, found])

    def read_history(path: Path) -> None:
        show([run_data._checked(line, path) for line in history_lines(path)], run.metrics)

    return {
        "rows": reader(
            ".csv",
            ["".join(content.splitlines(keepends=True)[:9]).encode(), content.encode("utf-16")],
            predict,
            MUTATORS,
        ),
        "metrics": reader(
            ".json",
            [files["metrics.json"]],
            lambda path: show(run.epochs, run_data._metrics_in(path)),
            [mutations.mutate_bytes, mutate_value, mutate_value],
        ),
        "report": reader(
            ".jsonl", [files["history.jsonl"]], read_history, [mutations.mutate_bytes, *[mutations.mutate_lines] * 2]
        ),
    }


def _torch(reader: Callable[..., Any]) -> Any:
    """A ``state_dict``, as safetensors holds it, whose shapes, types and names are others."""
    from safetensors import SafetensorError
    from safetensors.numpy import load, save

    from backprop_gpu.export import from_torch_state

    state = {"0.weight": np.ones((3, 2), "f4"), "0.bias": np.zeros(3, "f4"), "2.weight": np.ones((1, 3), "f4")}
    state |= {"2.bias": np.zeros(1, "f4")}

    def change(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
        found = load(content)
        name = rng.choice(list(found))
        x, kind = found.pop(name), rng.choice(["f2", "f8", "i8", "u1", "?"])
        shape = rng.choice([(0,), (), (1, 1), (2, 3), (3, 2, 1), (1, 0), (9, 9)])
        values = rng.choice([0.0, float("nan"), float("inf"), -1e30])
        other = rng.choice([x.T.copy(), np.full(shape, values, x.dtype), x.astype(kind), x.ravel(), x[:0]])
        if rng.random() < 0.8:
            found[rng.choice([name, name, "weight", "bias", "0", "0.weight.weight", f"é.{name}", "2.running_mean"])] = (
                other
            )
        return save(found)

    def read(path: Path) -> None:
        from_torch_state(load(path.read_bytes()), device="cpu").predict(np.zeros((2, 2)))

    also = (SafetensorError,)  # of the library's own reader
    return reader(".safetensors", [save(state)], read, [mutations.mutate_bytes, change, change], also)
