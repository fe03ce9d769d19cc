"""``backprop-gpu evaluate`` and ``predict``: what a trained model says about rows."""

from __future__ import annotations

import argparse
import io
import os
import sys
from typing import TYPE_CHECKING, Any

from .atomic_file import replace_file
from .cli_reading import NAMES as READING
from .cli_reading import add_reading, settings_of
from .errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np

    from .data.table import Table
    from .model import Model


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """Give the parser of ``evaluate`` its options."""
    parser.add_argument("run", help="run folder or model.safetensors")
    parser.add_argument("data", nargs="?", help="labelled file or built-in set (default: the run's own test rows)")
    parser.add_argument("--target", help="CSV: the target column, if not the trained one; X.npy: the file of y")
    _add_reading(parser)
    _add_threshold(parser)
    add_device(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=_evaluate)


def add_importance(parser: argparse.ArgumentParser) -> None:
    """Give the parser of ``importance`` its options."""
    parser.add_argument("run", help="run folder or model.safetensors")
    parser.add_argument("data", nargs="?", help="labelled file or built-in set (default: the run's own test rows)")
    parser.add_argument("--metric", help="what a shuffled column makes worse (default: log_loss, or r2 for values)")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="shuffles of each column (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="of the shuffles (default: 0)")
    _add_reading(parser)
    _add_threshold(parser)
    add_device(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=_importance, target=None)


def add_predict(parser: argparse.ArgumentParser) -> None:
    """Give the parser of ``predict`` its options."""
    parser.add_argument("run", help="run folder or model.safetensors")
    parser.add_argument("data", help="file or built-in set; a target column is not needed")
    parser.add_argument("--out", metavar="FILE", help="where the CSV goes (default: standard output)")
    parser.add_argument("--proba", action="store_true", help="add a column of probabilities for each class")
    kept = "CSV: copy this column of the file beside the predictions, an identifier say; may be given again"
    parser.add_argument("--keep", action="append", default=[], metavar="COLUMN", help=kept)
    _add_reading(parser)
    _add_threshold(parser)
    parser.add_argument("--class-numbers", action="store_true", help="print classes as 0, 1, ..., not by their names")
    add_device(parser)
    parser.set_defaults(command=_predict)


def add_show(parser: argparse.ArgumentParser) -> None:
    """Give the parser of ``show`` its options."""
    parser.add_argument("run", help="run folder or model.safetensors")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=_show)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument(
        "--device",
        help="auto | cpu | cuda[:i] | NAMESPACE[:DEVICE]; default: BACKPROP_GPU_DEVICE, else the configuration's",
    )


def _add_reading(parser: argparse.ArgumentParser) -> None:
    add_reading(parser)
    text = "a category that training did not see: an error, encoded as zeros, or as a gap (default: as trained)"
    parser.add_argument("--unknown", choices=("error", "ignore", "missing"), help=text)
    text = "a column that the rows lack: an error, or each of its cells is a gap (default: as trained)"
    parser.add_argument("--missing-columns", choices=("error", "fill"), help=text)
    text = "columns that the training data did not have: left out, or an error (default: as trained)"
    parser.add_argument("--extra-columns", choices=("ignore", "error"), help=text)


def _add_threshold(parser: argparse.ArgumentParser) -> None:
    text = "two classes: the probability above which the second is predicted (default: as trained)"
    parser.add_argument("--threshold", type=float, metavar="P", help=text)


def set_output(**settings: str) -> None:
    """Reconfigure standard output, where it can be."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(**settings)  # type: ignore[arg-type]


def _load_model(options: argparse.Namespace) -> Model:
    from .model import load

    model = load(options.run, options.device)
    model.set_policies(
        unknown=options.unknown,
        missing_columns=options.missing_columns,
        extra_columns=options.extra_columns,
        threshold=options.threshold,
    )
    return model


def _labelled_rows(options: argparse.Namespace, model: Model) -> Table:
    """The file that is named, else the run's own test rows."""
    from .data.roles import weighted_if_there
    from .rows import read_test_rows

    for option in ("target", *READING):
        if options.data is None and getattr(options, option) is not None:
            option = option.replace("_", "-")
            name_it = f"name the file: backprop-gpu evaluate RUN DATA --{option} ..."
            raise ConfigError(f"--{option} belongs to a file; {name_it}")
    if options.data is None:
        return read_test_rows(options.run, model.test_rows)
    table = model.read(options.data, labelled=True, target=options.target, **settings_of(options))
    if model.preprocessor.weight_column is not None:
        table = weighted_if_there(table, options.data, model.preprocessor.weight_column, table.settings)
    return table


def _importance(options: argparse.Namespace) -> int:
    from .report import terminal
    from .training.callbacks import to_json

    model = _load_model(options)
    table = _labelled_rows(options, model)
    found = model.permutation_importance(table, options.metric, repeats=options.repeats, random_state=options.seed)
    if options.json:
        columns = [{"column": name, "mean": mean, "deviation": spread} for name, mean, spread in found.ranked()]
        print(
            to_json(
                {"metric": found.metric, "score": found.score, "rows": table.n_samples, "columns": columns}, indent=2
            )
        )
    else:
        terminal.console().print(terminal.importance(found))
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from .report import terminal
    from .training.callbacks import to_json

    model = _load_model(options)
    scores = model.evaluate(_labelled_rows(options, model))
    if options.json:
        print(to_json(scores, indent=2))
        return 0
    out = terminal.console()
    out.print(terminal.scores({"test" if options.data is None else "rows": scores}))
    rows = "the test rows" if options.data is None else f"all rows of {options.data}"
    if "confusion_matrix" in scores:
        terminal.print_confusion(out, scores["confusion_matrix"], rows)
    terminal.print_calibration(out, scores, rows)
    terminal.print_always(out, scores, rows)
    return 0


def _show(options: argparse.Namespace) -> int:
    from .data.column_summary import summary
    from .model import load
    from .report import terminal
    from .training.callbacks import to_json

    model = load(options.run, "cpu")
    lines = summary(model.preprocessor)
    if options.json:
        print(to_json({"model": repr(model).strip("<>"), "columns": [vars(line) for line in lines]}, indent=2))
        return 0
    out = terminal.console()
    terminal.print_whole(out, terminal.columns(lines))
    print(repr(model).strip("<>"))
    return 0


def _predict(options: argparse.Namespace) -> int:
    import csv

    from .data.sources import read_texts

    there = options.out is not None and os.path.exists(options.out) and os.path.exists(options.data)
    if there and os.path.samefile(options.out, options.data):
        raise ConfigError(f"--out {options.out} would overwrite the rows that are predicted; give another file")
    model = _load_model(options)
    table = model.read(options.data, keep=options.keep, **settings_of(options))
    header, columns = _prediction_columns(model, table, options.proba, options.class_numbers)
    if options.keep:
        kept = read_texts(options.data, options.keep, model.reading(**settings_of(options)))
        header = [*options.keep, *(f"predicted {name}" if name in options.keep else name for name in header)]
        rows = zip(*kept, *(column.tolist() for column in columns), strict=True)
    else:
        rows = zip(*(column.tolist() for column in columns), strict=True)
    if options.out is None:
        set_output(encoding="utf-8", newline="\n")  # as in a file
        csv.writer(sys.stdout, lineterminator="\n").writerows([header, *rows])
        return 0
    try:
        with replace_file(options.out) as file:
            text = io.TextIOWrapper(file, encoding="utf-8", newline="")
            csv.writer(text, lineterminator="\n").writerows([header, *rows])
            text.detach()
    except OSError as error:
        raise DataError(f"cannot write {options.out}: {error.strerror}") from None
    return 0


def _prediction_columns(
    model: Model, table: Any, proba: bool, class_numbers: bool
) -> tuple[list[str], list[np.ndarray]]:
    import numpy as np

    codec = model.preprocessor.target
    assert codec is not None, "a model is always trained with a task"
    if class_numbers and not codec.labels:
        raise ConfigError("--class-numbers is for classes; this model predicts values, or labels that are 0 or 1")
    if proba and codec.task in ("regression", "count"):
        raise ConfigError("--proba is for classes; this model predicts values")
    AL = model.predict_proba(table)
    predicted = model.preprocessor.decode(AL)
    if codec.labels:
        predicted = codec.classes(AL) if class_numbers else np.array(codec.class_names)[codec.classes(AL)]
    predicted = predicted.reshape(len(predicted), -1)
    header, columns = list(codec.names), list(predicted.T)
    if len(columns) > len(header):
        header = [f"{name} q{q:g}" for name in codec.names for q in vars(model.net.loss)["quantiles"]]
    if proba:
        if codec.task == "binary":
            AL = np.concatenate([1.0 - AL, AL], axis=1)
        names = codec.names if codec.task == "multilabel" else codec.class_names
        header += [f"P({name})" for name in names]
        columns += [np.array([f"{p:.6g}" for p in column]) for column in AL.T]
    return header, columns
