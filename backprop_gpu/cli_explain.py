"""``backprop-gpu explain``: where the 1/m goes, with the reader's own numbers."""

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
        "--data", metavar="FILE", help="a .csv, .tsv, .npy or .npz file, or a built-in set, such as moons"
    )
    parser.add_argument("--target", help="CSV: the target column; X.npy: the file of y")
    parser.add_argument("--rows", type=int, metavar="M", help="examples in the batch (default: 4)")
    parser.add_argument("--split", metavar="3,1", help="sizes of the parts that the batch is cut into (default: M-1,1)")
    parser.add_argument("--html", metavar="FILE", help="write a page with sliders, one file that needs no network")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override the configuration")
    parser.set_defaults(command=_explain)


def _explain(options: argparse.Namespace) -> int:
    explanation = _explanation(options)
    if options.html is None:
        from .report import terminal
        from .report.explanation import print_explanation

        print_explanation(explanation, terminal.console())
        return 0
    if options.data is not None and Path(options.html).exists() and Path(options.html).samefile(options.data):
        raise ConfigError(f"--html {options.html} would overwrite the data; give another file")
    try:
        explanation.to_html(options.html)
    except OSError as error:
        raise DataError(f"cannot write {options.html}: {error.strerror}") from None
    print(f"{options.html}: open it in a browser")
    return 0


def _explanation(options: argparse.Namespace) -> Explanation:
    from .explain import explain

    settings: dict[str, Any] = {"rows": options.rows, "split": _sizes(options.split)}
    if options.run is not None:
        if options.data or options.set or options.target:
            raise ConfigError("--run has its own data and settings; leave --data, --target and --set away")
        return _of_run(options.run, settings)
    if options.config is None and options.data is None and not options.set:
        if options.target is not None:
            raise ConfigError("--target belongs to a file; name it: backprop-gpu explain --data FILE --target ...")
        return explain(**settings)
    return _of_experiment(_experiment(options), "initial weights", settings)


def _sizes(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(word) for word in text.replace("+", ",").split(",")]
    except ValueError:
        raise ConfigError(f"--split takes sizes such as 3,1; got {text!r}") from None


def _experiment(options: argparse.Namespace) -> Experiment:
    """The network that a configuration makes, or a small one for the data alone."""
    import json

    from .build import prepare
    from .config_reading import load_config

    changes = [] if options.config else ["model.hidden=[3]"]
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
    explanation = explain(net, X, y, title=title, **settings)
    r, loss = experiment.config.regularization, experiment.config.loss
    notes = [*explanation.notes]
    if r.l1 or r.l2:
        notes.append("The penalty is left out: J is the mean of the losses alone.")
    if loss.reduction == "sum":
        notes.append("The configuration adds losses up (reduction: sum); shown is the mean.")
    from dataclasses import replace

    return replace(explanation, notes=tuple(notes))
