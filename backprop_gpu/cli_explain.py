"""``backprop-gpu explain`` and ``diagnose``: where the 1/m goes, and what is wrong with a gradient."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ConfigError, DataError

if TYPE_CHECKING:
    from .build import Experiment
    from .explain import Explanation

EXPLAIN = """\
examples:
  backprop-gpu explain                                          a network [2, 3, 1], four rows, in the terminal
  backprop-gpu explain --html one-over-m.html                   the same as a page, with sliders
  backprop-gpu explain --data flats.csv --target rent --rows 6  your own rows, a small network with initial weights
  backprop-gpu explain --config flats.yaml --html flats.html    the network of a configuration
  backprop-gpu explain --run runs/flats                         a trained model, on its own training rows
"""


def add_explain(parser: argparse.ArgumentParser) -> None:
    """Give the parser of ``explain`` its options."""
    parser.epilog, parser.formatter_class = EXPLAIN, argparse.RawDescriptionHelpFormatter
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--config", help="a .yaml file or a name of `config list`: its network, untrained, and its rows"
    )
    source.add_argument("--run", help="run folder: its trained model and training rows")
    parser.add_argument(
        "--data",
        metavar="FILE",
        help="a .csv, .parquet, .xlsx, .npy or .npz file, or a built-in set, such as moons",
    )
    parser.add_argument("--target", help="CSV: the target column; X.npy: the file of y")
    parser.add_argument("--rows", type=int, metavar="M", help="examples in the batch (default: 4)")
    parser.add_argument("--split", metavar="3,1", help="sizes of the parts that the batch is cut into (default: M-1,1)")
    parser.add_argument("--html", metavar="FILE", help="write a page with sliders, one file that needs no network")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override the configuration")
    parser.set_defaults(command=_explain)


DIAGNOSE = """\
The file holds W1, b1, W2, b2, ..., dW1, db1, ... and the rows X (n_samples, n_features) and y; with --columns, X and y
as the course has them, one column per example. It may hold sample_weight, and dropout's masks mask1, mask2, ...
For example

  np.savez("mine.npz", X=X, y=y, **parameters, **grads)
  backprop-gpu diagnose mine.npz --loss squared_error --activation tanh

Exit codes: 0 right, 1 wrong, 2 the file cannot be used.
"""


def add_diagnose(parser: argparse.ArgumentParser) -> None:
    """Give the parser of ``diagnose`` its options."""
    parser.epilog, parser.formatter_class = DIAGNOSE, argparse.RawDescriptionHelpFormatter
    parser.add_argument("file", help="a .npz file with parameters, gradients and rows")
    parser.add_argument("--columns", action="store_true", help="examples are columns, as in the course")
    parser.add_argument("--loss", default="binary_cross_entropy", help="default: binary_cross_entropy")
    parser.add_argument("--activation", default="relu", help="of the hidden layers (default: relu)")
    parser.add_argument("--l2", type=float, default=0.0, help="lambda of the penalty lambda/(2m) sum W^2 (default: 0)")
    parser.add_argument("--ranks", type=int, default=1, help="devices that shared the batch (default: 1)")
    parser.add_argument(
        "--micro-batches", metavar="N or 3,1", help="pieces that the batch was cut into, or their sizes"
    )
    parser.add_argument("--keep-prob", type=float, default=1.0, help="what dropout divides by (default: 1)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=_diagnose)


def _diagnose(options: argparse.Namespace) -> int:
    import json

    from .explain import diagnose

    X, y, parameters, grads, more = _arrays_of(options)
    pieces = options.micro_batches
    found = diagnose(
        parameters,
        grads,
        X,
        y,
        loss=options.loss,
        activation=options.activation,
        l2=options.l2,
        ranks=options.ranks,
        micro_batches=int(pieces) if pieces and pieces.isdigit() else _sizes(pieces, "--micro-batches"),
        keep_prob=options.keep_prob,
        **more,
    )
    if options.json:
        print(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
        return 0 if found.ok else 1
    from .report import terminal
    from .report.explanation import ratios

    terminal.console().print(ratios(found))
    print(found.summary())
    return 0 if found.ok else 1


def _arrays_of(options: argparse.Namespace) -> tuple[Any, Any, dict[str, Any], dict[str, Any], dict[str, Any]]:
    """X, y, parameters, gradients, and what else the file holds, with rows as examples."""
    import re

    from .data.array_files import read_archive

    _, names = read_archive(Path(options.file), [], options.file)
    arrays, _ = read_archive(Path(options.file), names, options.file)
    missing = [
        name for name in ("X", "y", "W1", "b1", "dW1", "db1") if name not in arrays and name.upper() not in arrays
    ]
    if missing:
        raise DataError(f"{options.file} has no {', '.join(missing)}; it has {', '.join(names) or 'nothing'}")
    X, y = arrays["X"], arrays.get("y", arrays.get("Y"))
    masks = {int(name[4:]): x for name, x in arrays.items() if re.fullmatch(r"mask\d+", name)}
    if not options.columns and X.ndim == 2 and X.shape[0] == arrays["W1"].shape[-1] != X.shape[1]:
        raise DataError(f"{options.file}: X is {X.shape}, one column per example, as in the course; add --columns")
    if options.columns:
        X, y, masks = X.T, y.T, {l: x.T for l, x in masks.items()}  # type: ignore[union-attr]
    parameters = {name: x for name, x in arrays.items() if re.fullmatch(r"[Wb]\d+", name)}
    grads = {name: x for name, x in arrays.items() if re.fullmatch(r"d[Wb]\d+", name)}
    more: dict[str, Any] = {"masks": masks} if masks else {}
    return X, y, parameters, grads, more | {k: arrays[k] for k in ("sample_weight",) if k in arrays}


def _explain(options: argparse.Namespace) -> int:
    explanation = _explanation(options)
    if options.html is None:
        from .report import terminal
        from .report.explanation import print_explanation

        print_explanation(explanation, terminal.console())
        return 0
    written, read = Path(options.html), Path(options.data or "")
    if options.data and written.exists() and read.exists() and written.samefile(read):
        raise ConfigError(f"--html {options.html} would overwrite the data; give another file")
    try:
        explanation.to_html(options.html)
    except OSError as error:
        raise DataError(f"cannot write {options.html}: {error.strerror}") from None
    print(f"{options.html}: open it in a browser")
    return 0


def _explanation(options: argparse.Namespace) -> Explanation:
    from .explain import explain

    settings: dict[str, Any] = {"rows": options.rows, "split": _sizes(options.split, "--split")}
    if options.run is not None:
        if options.data or options.set or options.target:
            raise ConfigError("--run has its own data and settings; leave --data, --target and --set away")
        return _of_run(options.run, settings)
    if options.config is None and options.data is None and not options.set:
        if options.target is not None:
            raise ConfigError("--target belongs to a file; name it: backprop-gpu explain --data FILE --target ...")
        return explain(**settings)
    return _of_experiment(_experiment(options), "initial weights", settings)


def _sizes(text: str | None, option: str) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(word) for word in text.replace("+", ",").split(",")]
    except ValueError:
        raise ConfigError(f"{option} takes sizes such as 3,1; got {text!r}") from None


def _experiment(options: argparse.Namespace) -> Experiment:
    """The network that a configuration makes, or a small one for the data alone."""
    import json

    from .build import prepare
    from .config_reading import load_config

    # of a file alone all rows are shown, in their order, from the first
    alone = ["model.hidden=[3]", "data.test=0", "data.validation=0", "training.early_stopping=null"]
    changes = [] if options.config else alone
    changes += [f"data.{key}={json.dumps(v)}" for key, v in (("source", options.data), ("target", options.target)) if v]
    config = load_config(options.config, [*changes, *options.set], device="cpu")
    return prepare(config, progress=False)


def _of_run(run: str, settings: dict[str, Any]) -> Explanation:
    from .build import load, prepare
    from .config_reading import load_config
    from .run_folder import CONFIG_FILE

    path = Path(run) / CONFIG_FILE
    if not path.is_file():
        raise ConfigError(f"{run} is no run folder with a {CONFIG_FILE}; give one that `backprop-gpu train` left")
    experiment = prepare(load_config(str(path), device="cpu"), progress=False)
    experiment.model = load(run, "cpu")
    return _of_experiment(experiment, "trained weights", settings)


def _of_experiment(experiment: Experiment, weights: str, settings: dict[str, Any]) -> Explanation:
    """Training rows, taken as the trainer takes them."""
    import numpy as np

    from .explain import explain

    rows = experiment.train.take(np.arange(min(16, experiment.train.n_samples)))
    pre, net = experiment.model.preprocessor, experiment.model.net
    X, y = pre.transform(rows, "float64"), pre.encode_target(rows, "float64")
    sizes = ", ".join(map(str, net.sizes))
    title = f"{experiment.config.name}, a network [{sizes}] with {weights}"
    explanation = explain(net, X, y, title=title, feature_names=pre.feature_names, **settings)
    r, loss = experiment.config.regularization, experiment.config.loss
    notes = list(explanation.notes)
    if experiment.config.data.standardize:
        as_read = "" if weights == "trained weights" else "; --set data.standardize=false takes them as they are"
        notes.insert(0, f"The inputs are as the network sees them: standardized{as_read}.")
    if r.l1 or r.l2:
        notes.append("The penalty is left out: J is the mean of the losses alone.")
    if loss.reduction == "sum":
        notes.append("The configuration adds losses up (reduction: sum); shown is the mean.")
    from dataclasses import replace

    return replace(explanation, notes=tuple(notes))
