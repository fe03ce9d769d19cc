"""``backprop-gpu parity``: did a device compute what its precision allows?

Exit codes: 0 passed; 1 diverged; 2 cannot be checked, with one line that says why.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ConfigError

if TYPE_CHECKING:
    from .build import Experiment

MODEL = "run folder, .yaml file or a name of `config list` (default: breast_cancer)"


def add_parity(parser: argparse.ArgumentParser) -> None:
    """Add the verbs run, probe, exact, diff and replay."""
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    for verb, command, text in (
        ("run", _run, "check every tensor of training steps, and epochs, of this model, on its own rows"),
        ("probe", _probe, "ask the device questions with one right answer, at the model's own shapes"),
        ("exact", _exact, "two steps on whole numbers, right to the last bit, and recorded epochs"),
    ):
        sub = verbs.add_parser(verb, help=text)
        _add_model(sub)
        sub.add_argument("--device", help="auto | cpu | cuda[:i] | NAMESPACE[:DEVICE]")
        sub.set_defaults(command=command)
        if verb == "run":
            _add_precision(sub)
            sub.add_argument("--steps", type=int, default=1, help="steps, each checked from the device's own state")
            sub.add_argument("--plot", metavar="FILE", help="draw the ratios and the worst tensor")
            sub.add_argument("--save", metavar="CASE", help="write the recorded step, for `parity replay` elsewhere")
    diff = verbs.add_parser("diff", help="one step on two devices: the gap, and which of them is wrong, if one is")
    _add_model(diff)
    diff.add_argument("--devices", required=True, metavar="A,B", help="such as numpy,cupy:0")
    _add_precision(diff)
    diff.set_defaults(command=_diff)
    replay = verbs.add_parser("replay", help="check a saved case again, without the device")
    replay.add_argument("case", help="what `parity run --save` wrote")
    replay.add_argument("--json", action="store_true", help="print JSON")
    replay.set_defaults(command=_replay)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", help=MODEL)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override the configuration")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_precision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dtype", help="float32 or float64 (default: that of the configuration)")
    parser.add_argument("--claim", help="fp32 | tf32 | bf16 | fp16 | fp64: the precision to hold the device to")
    parser.add_argument("--rows", type=int, help="training rows (default: two batches and a tail)")


def _experiment(options: argparse.Namespace) -> Experiment:
    """A model with its training rows: of a run folder as trained, of a configuration as initialized."""
    from .build import load, prepare
    from .config_reading import load_config
    from .run_folder import CONFIG_FILE

    device = getattr(options, "device", None)
    folder = Path(options.model) if options.model else None
    if folder is not None and folder.is_dir():
        experiment = prepare(load_config(str(folder / CONFIG_FILE), options.set, device=device), progress=False)
        net = experiment.model.net
        experiment.model = load(folder, net.backend, net.kernels_kind)
        return experiment
    return prepare(load_config(options.model, options.set, device=device or "cpu"), progress=False)


def _rows(options: argparse.Namespace, experiment: Experiment) -> tuple[Any, Any, int]:
    """The rows to check on, their targets, and the batch size of epochs over them."""
    import numpy as np

    from .parity.recorded_epochs import rows_and_batch

    if options.rows is not None and options.rows < 1:
        raise ConfigError(f"--rows must be at least 1, got {options.rows}")
    model, table = experiment.model.preprocessor, experiment.train
    there = min(options.rows or table.n_samples, table.n_samples)
    count, batch = rows_and_batch(there, experiment.config.training.batch_size)
    rows = table.take(np.arange(there if options.rows else count))
    return model.transform(rows), model.encode_target(rows), batch


def _show(report: Any, options: argparse.Namespace) -> int:
    """Print a report and turn it into an exit code."""
    from .report import terminal

    if options.json:
        print(report.to_json())
    else:
        terminal.print_whole(terminal.console(), report.table())
        print("\n".join(report.lines()))
        for drift in report.drift:
            print(
                f"step {drift.step}: drift {drift.theta:.2g} from float64, {drift.flips} of {drift.units} masks flipped"
            )
    return 0 if report.ok else 1


def _run(options: argparse.Namespace) -> int:
    from .build import check_settings
    from .parity.checking import check

    experiment = _experiment(options)
    X, y, batch = _rows(options, experiment)
    report = check(
        experiment.model.net,
        X,
        y,
        batch_size=batch,
        dtype=options.dtype or experiment.model.net.dtype,
        claim=options.claim,
        steps=options.steps,
        **check_settings(experiment),
    )
    code = _show(report, options)
    if options.plot:
        report.plot(options.plot)
    if options.save:
        report.save(options.save)
    return code


def _probe(options: argparse.Namespace) -> int:
    from .parity.claims import claim_of
    from .parity.probes import probe, shapes_of
    from .parity.report import Report

    experiment = _experiment(options)
    net = experiment.model.net
    found = probe(net.backend, net.kernels, shapes_of(net, experiment.config.training.batch_size), net.dtype)
    claim = {"dtype": net.dtype, "claim": claim_of(net.dtype)}
    about = {"device": net.backend.name, "kernels": type(net.kernels).__name__, **claim}
    return _show(Report([found], {}, about), options)


def _exact(options: argparse.Namespace) -> int:
    from .parity.exact_step import exact

    experiment = _experiment(options)
    net = experiment.model.net
    return _show(exact(net, dtype=net.dtype, one_over_m=experiment.config.ledger()["one_over_m"]), options)


def _diff(options: argparse.Namespace) -> int:
    from .build import check_settings
    from .parity.compare import diff

    experiment = _experiment(options)
    devices = [name.strip() for name in options.devices.split(",")]
    if len(devices) != 2:
        raise ConfigError(f"--devices takes two names with a comma between them, got {options.devices!r}")
    settings = check_settings(experiment)
    X, y, batch = _rows(options, experiment)
    net = experiment.model.net
    report = diff(
        net, X, y, devices, batch_size=batch, dtype=options.dtype or net.dtype, claim=options.claim, **settings
    )
    if options.json:
        import json

        reports = [json.loads(r.to_json()) for r in report.reports]
        print(json.dumps({"ok": report.ok, "gaps": [vars(g) for g in report.gaps], "reports": reports}))
    else:
        for gap in report.gaps:
            print(f"{gap.tensor:>8}  largest gap {gap.largest:.3g}  relative {gap.relative:.3g}")
        print(report.summary())
    return 0 if report.ok else 1


def _replay(options: argparse.Namespace) -> int:
    from .parity.checking import replay

    return _show(replay(options.case), options)
