"""``backprop-gpu``: train, evaluate, predict, report, explain, diagnose, gradcheck, parity, devices, config.

Exit codes: 0 done; 1 a check failed; 2 the input or the device is not usable, in one line; 130 interrupted (SIGINT);
143 terminated (SIGTERM).
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import os
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from .cli_completion import add_completion, complete
from .cli_errors import how_here, one_line
from .cli_examples import add_examples
from .cli_explain import add_diagnose, add_explain
from .cli_export import add_export
from .cli_init import add_init, without_useless
from .cli_models import add_device, add_evaluate, add_importance, add_predict, add_show, set_output
from .cli_parity import add_parity
from .cli_reading import add_reading, as_overrides
from .cli_report import add_report
from .errors import BackpropError, CheckpointError, ConfigError, Stopped

if TYPE_CHECKING:
    from .build import Experiment, Outcome

INTERRUPTED = 130
_SIGNALS = """\
SIGINT (Ctrl-C) and SIGTERM: the step is finished, a checkpoint is written, and the exit code is 130 or 143; a
second one ends the process at once. SIGUSR1: a checkpoint is written and training goes on."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    set_output(errors="replace")  # letters that the terminal lacks
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning  # type: ignore[assignment]
            options = _parse(words)
            code = options if isinstance(options, int) else int(options.command(options))
            sys.stdout.flush()
            return code
    except BrokenPipeError:  # the reader of our output, such as head, has gone
        _drop_output()
        return 141
    except KeyboardInterrupt as stop:
        code = stop.exit_code if isinstance(stop, Stopped) else INTERRUPTED
        word = "interrupted" if code == INTERRUPTED else "terminated"
        print("; ".join([f"backprop-gpu: {word}", *map(str, stop.args)]), file=sys.stderr)
        return code
    except (BackpropError, OSError, MemoryError) as error:
        if isinstance(error, OSError) and not isinstance(error, BackpropError):
            _drop_output()
        if "--debug" in words:
            raise
        say = functools.partial(print, f"backprop-gpu: {one_line(error)}{how_here(error, words)}", file=sys.stderr)
        if started := sys.modules.get("backprop_gpu.backends.collective"):
            started.end_ranks(2, say)
        else:
            say()
        return 2


def _parse(words: list[str]) -> argparse.Namespace | int:
    """The options, or the exit code where argparse has done all, as for --help and --version."""
    if words[:1] == ["bench"]:  # a command of earlier versions
        raise ConfigError("the benchmarks run from a checkout of the repository now: python -m benchmarks --help")
    parser = _parser()
    complete(parser)
    try:
        return parser.parse_args(words)
    except SystemExit as done:
        return int(done.code or 0)


def _show_warning(message: Warning | str, *unused: Any) -> None:
    print(f"backprop-gpu: {' '.join(str(message).split())}", file=sys.stderr)


def _drop_output() -> None:
    """What could not be written would be tried again, and complained of, when Python ends."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    """Takes --debug before and after the command, and complains in one line."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="backprop-gpu", description="An L-layer network with hand-written backpropagation, on NumPy or CUDA."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a network and leave a run folder", epilog=_SIGNALS)
    _add_config(train)
    train.add_argument("--run-dir", metavar="DIR", help="where the run goes (default: runs/NAME-TIME)")
    text = "go on with the run in this folder; auto: with that in --run-dir if there is one, else start it"
    train.add_argument("--resume", metavar="RUN|auto", help=text)
    text = "with --resume: go on even if the configuration or the data have changed"
    train.add_argument("--allow-change", action="store_true", help=text)
    text = "cross-validate too: train so many times more, each row tested on once (data.folds)"
    train.add_argument("--folds", type=int, metavar="K", help=text)
    train.add_argument("--verify", action="store_true", help="check a step on this device by parity before and after")
    train.add_argument("--quiet", action="store_true", help="print the run folder alone: no progress, no tables")
    train.set_defaults(command=_train)

    add_evaluate(commands.add_parser("evaluate", help="score a trained model on its test rows, or on a file"))
    text = "which columns matter: what a score loses when one is shuffled"
    add_importance(commands.add_parser("importance", help=text))
    add_predict(commands.add_parser("predict", help="predict rows of a file, as CSV"))

    add_show(commands.add_parser("show", help="how a model reads each column, and its layers"))

    add_export(commands.add_parser("export", help="write a trained model as ONNX, a NumPy file, or PyTorch's weights"))
    add_report(commands.add_parser("report", help="write the page of a run again, or compare runs"))

    add_explain(
        commands.add_parser("explain", help="where the 1/m goes: every number of backpropagation, as a page too")
    )

    add_diagnose(commands.add_parser("diagnose", help="what is wrong with a gradient of your own: m, a sign, g', ..."))

    check = commands.add_parser("gradcheck", help="compare a network's gradient with the complex step")
    _add_config(check)
    check.add_argument("--rows", type=int, default=8, help="training rows to use (default: 8)")
    check.set_defaults(command=_gradcheck)

    devices = commands.add_parser("devices", help="what was found, what is used and why")
    add_device(devices)
    plan_help = "what this configuration would run on, by which kernels, in how much memory"
    devices.add_argument("--plan", metavar="CONFIG", help=plan_help)
    devices.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override, with --plan")
    devices.add_argument("--json", action="store_true", help="print JSON")
    devices.set_defaults(command=_devices)

    config = commands.add_parser("config", help="validate, show, list configurations; print their schema")
    verbs = config.add_subparsers(title="verbs", required=True, metavar="VERB")
    add_init(verbs.add_parser("init", help="write a first configuration of a table, with what was seen in it"))
    for verb, text in (("validate", "check a configuration"), ("show", "print it with every default filled in")):
        sub = verbs.add_parser(verb, help=text)
        _add_config(sub)
        sub.set_defaults(command=_config_validate if verb == "validate" else _config_show)
    verbs.add_parser("schema", help="print the JSON Schema, for editors").set_defaults(command=_config_schema)
    verbs.add_parser("list", help="name the configurations that come along").set_defaults(command=_config_list)
    add_parity(
        commands.add_parser("parity", help="check a device against derived error bounds: run, probe, exact, diff")
    )
    add_completion(commands.add_parser("completion", help="print what makes a shell complete this command line"))
    add_examples(parser)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *unused: Any) -> None:
        from . import __version__

        print(f"backprop-gpu {__version__}")
        parser.exit()


def _add_config(parser: argparse.ArgumentParser) -> None:
    named = "a .yaml file, a data file, or a name of `config list` (default: breast_cancer)"
    parser.add_argument("config", nargs="?", help=named)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override, e.g. optimizer.learning_rate=1e-3"
    )
    parser.add_argument("--target", help="the column to predict, for --set data.target=...")
    parser.add_argument("--preset", metavar="NAME", help="tabular: settings that suit tables, for --set preset=...")
    add_reading(parser)
    add_device(parser)


def _load_config(options: argparse.Namespace) -> Any:
    from .config_reading import load_config

    of_target = [] if options.target is None else [f"data.target={json.dumps(options.target, ensure_ascii=False)}"]
    preset = [] if options.preset is None else [f"preset={json.dumps(options.preset)}"]
    return load_config(options.config, options.set + of_target + preset + as_overrides(options), device=options.device)


# -- commands --------------------------------------------------------------------------------------------------------


def _train(options: argparse.Namespace) -> int:
    from .backends.collective import launched
    from .build import prepare, run
    from .data.column_summary import in_short
    from .run_folder import config_of, find_run
    from .training.signals import Signals

    if options.verify:
        options.set.append("verify=true")
    if options.folds is not None:
        options.set.append(f"data.folds={options.folds}")
    if options.allow_change and options.resume is None:
        raise ConfigError("--allow-change is about a run that goes on; name it: --resume RUN")
    ranks = launched()
    options.quiet |= ranks.rank > 0
    options.device = ranks.device(options.device)
    found = find_run(options.resume, options.run_dir)
    ranks.agree("run folder", str(found))  # and none makes one before all have looked
    options.config = config_of(found, options.resume, options.config)
    config = _load_config(options)
    if found is None and options.config == config.data.source:
        config = without_useless(config, (lambda line: None) if options.quiet else print)
    experiment = prepare(config, progress=not options.quiet, ranks=ranks)
    if not options.quiet:
        net = experiment.model.net
        print(f"{config.name}: {' - '.join(map(str, net.sizes))}, {net.n_parameters:,} parameters, {net.dtype}")
        if experiment.why_task:
            print(f"task: {experiment.config.data.task}, since {experiment.why_task}; else set data.task")
        print(f"device: {net.backend.name} ({_in_short(net.backend.reason)})")
        for line in in_short(experiment.model.preprocessor):
            print(line)
    signals = Signals()
    try:
        outcome = run(
            experiment,
            found or options.run_dir,
            [signals],
            resume=found is not None,
            allow_change=options.allow_change,
            say=(lambda line: None) if options.quiet else print,
        )
    except Stopped as stop:  # all ranks stop, rank 0 says so
        if not ranks.rank:
            raise
        return stop.exit_code
    finally:
        signals.restore()
    if ranks.rank:
        return 0
    drawn = _draw(experiment, outcome)
    if options.quiet:
        print(outcome.run_dir)
    else:
        _report(outcome, drawn)
    return 0


def _draw(experiment: Experiment, outcome: Outcome) -> bool:
    """Write the run's page and its picture; False where there is no picture for want of matplotlib."""
    from .report.curve import draw_curve
    from .report.run_data import finished_run
    from .report.run_report import write_report
    from .run_folder import PICTURE_FILE

    history, picture = outcome.history, outcome.run_dir / PICTURE_FILE
    title = f"{experiment.config.name}: {outcome.run_dir.name}"
    try:
        write_report(finished_run(experiment, outcome))
        return draw_curve(history.epochs, history.best_epoch, picture, title)
    except OSError as error:  # everything else is written
        cause = f"cannot write {error.filename or outcome.run_dir}: {error.strerror}"
        raise CheckpointError(f"{cause}; all the rest of the run is there") from None


def _in_short(reason: str) -> str:
    """Why a device was taken; why it is not CUDA takes several lines, which ``devices`` has."""
    cause, _, _ = reason.partition(":")
    return f"{cause}; `backprop-gpu devices` says why" if cause == "CUDA cannot be used" else reason


def _report(outcome: Outcome, drawn: bool) -> None:
    from .report import terminal
    from .run_folder import REPORT_FILE

    m = outcome.metrics
    parts: dict[str, Any] = {name: m[name] for name in ("train", "validation", "test") if name in m}
    out = terminal.console()
    out.print(terminal.scores(parts))
    part = next(name for name in ("test", "validation", "train") if name in parts)
    rows = {"test": "the test rows", "validation": "the validation rows"}.get(part, "the training rows")
    matrix = parts[part].get("confusion_matrix")
    if matrix is not None and len(matrix["classes"]) <= 12:
        terminal.print_confusion(out, matrix, rows)
    terminal.print_always(out, parts[part], rows)
    if "threshold" in m:
        print(f"threshold: {matrix['positive_class']} is predicted above {m['threshold']:.4g}")
    if "cross_validation" in m:
        out.print(terminal.folds(m["cross_validation"]))
    for when, line in zip(("before", "after"), m.get("parity", ()), strict=False):
        print(f"{when} training: {line}")
    for note in m["notes"]:
        print(f"note: {note}")
    print(
        f"trained {m['epochs']} epochs ({m['steps']} steps) in {m['seconds']:.2f} s; "
        f"stopped by {m['stopped']}, weights of epoch {m['best_epoch']}"
    )
    if not drawn:
        print("no curve picture: it needs matplotlib; pip install matplotlib")
    print(f"report: {outcome.run_dir / REPORT_FILE}")
    print(f"run folder: {outcome.run_dir}")


def _gradcheck(options: argparse.Namespace) -> int:
    import numpy as np

    from .build import prepare
    from .gradcheck import gradcheck
    from .report import terminal

    config = _load_config(options)
    if options.rows < 1:
        raise ConfigError(f"--rows must be at least 1, got {options.rows}")
    experiment = prepare(config, progress=False)
    pre, net = experiment.model.preprocessor, experiment.model.net
    rows = experiment.train.take(np.arange(min(options.rows, experiment.train.n_samples)))
    X, y = pre.transform(rows, "float64"), pre.encode_target(rows, "float64")
    r = config.regularization
    settings = {"l1": r.l1, "l2": r.l2, "penalty_over": r.penalty_over, **config.ledger()}
    report = gradcheck(net, X, y, **settings)
    title = f"Gradient of {config.name} on {net.backend.name} against the complex step, {rows.n_samples} rows"
    terminal.console().print(terminal.gradients(report, title))
    print(report.summary())
    return 0 if report.ok else 1


def _devices(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from .backends.device_report import device_report
    from .report import terminal

    if options.plan is not None:
        return _plan(options)
    if options.set:
        raise ConfigError("--set belongs to a configuration; name it: backprop-gpu devices --plan CONFIG --set ...")
    found = device_report(options.device)
    if options.json:
        print(json.dumps([asdict(section) for section in found], indent=2))
    else:
        terminal.console().print(terminal.sections(found))
    return 0


def _plan(options: argparse.Namespace) -> int:
    from .config_reading import load_config
    from .planning import plan
    from .report import terminal

    found = plan(load_config(options.plan, options.set, device=options.device))
    if options.json:
        print(json.dumps(found.data(), indent=2))
    else:
        terminal.console().print(terminal.sections(found.sections()))
    return 0


def _config_validate(options: argparse.Namespace) -> int:
    config = _load_config(options)
    print(f"{options.config or config.name}: valid")
    return 0


def _config_show(options: argparse.Namespace) -> int:
    print(_load_config(options).to_yaml(), end="")
    return 0


def _config_schema(options: argparse.Namespace) -> int:
    from .config import Config

    print(json.dumps(Config.model_json_schema(), indent=2))
    return 0


def _config_list(options: argparse.Namespace) -> int:
    from .config_reading import carried

    for name, path in carried().items():
        first = path.read_text(encoding="utf-8").split("\n", 1)[0]
        print(f"{name:16} {first.lstrip('# ')}")
    return 0
