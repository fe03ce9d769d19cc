"""The command line of the benchmarks. Importing this loads nothing but argparse: workers set variables first.

Exit codes: 0 done; 1 a peer's work was not equal; 2 the input is not usable, in one line; 130 interrupted.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

KINDS = (
    *("step", "epoch", "fit", "inference", "parity", "startup"),
    *("scaling", "products", "estimators", "tabular", "stream", "reading"),
)
_WITHOUT_NAMES = ("startup", "parity", "scaling", "products")
_TEXT = """what to measure:
  step        a training step: batch gathered, loss, gradient, Adam
  epoch       an epoch, the drawing of its order included
  fit         a whole fit: digits to 97% test accuracy; 20 epochs of 100,000
              rows
  inference   100,000 rows
  parity      parity.check beside the step that it checks: time and memory
  startup     imports, first step, whole processes
  scaling     step time against width, depth, batch and rows
  products    matrix products of networks' sizes on one core: native kernels
              beside NumPy's BLAS
  estimators  fits of MLPClassifier and MLPRegressor beside scikit-learn's,
              on 12 datasets
  tabular     scores by 5-fold cross-validation on 27 tables, and CPU time:
              preset="tabular", RealMLP, TabM, boosted trees, plain MLPs;
              workloads "tuning" and "apart" are the two parts of the tables;
              peers preset-without-ple, preset+scaling, ... change one thing
              of the preset (benchmarks/preset_variants.py)
  stream      training on generated rows in files beside rows in memory:
              rows per second and memory; workloads "small", "11M", "2GB",
              "20GB", "20GB-wide"
  reading     a CSV of 30 columns read: ours, polars, pandas, pyarrow; workloads
              "50k", "200k", "1M" rows

Each peer is measured in a process of its own, one repeat at a time,
alternating with the others. Equal work is verified first: from the same
weights, in the same order, its losses must agree with a float64 run; a peer
whose losses do not is left out, and the command ends with 1. (estimators:
scores on test rows, within 0.01 and two rows of scikit-learn's.)

commit:REVISION is a peer too (step, epoch, fit, inference, estimators): this
package as it was at that commit. --peers ours,commit:1464508 compares the two.

ratio: a peer's time over that of the first (ours) in the same repeat, the
median over the repeats. roofline: the least possible time (products at NumPy's
GEMM rate, bytes at its bandwidth, measured in the same repeats) over a peer's.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; errors of the package are one line."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(words)
    from backprop_gpu.errors import BackpropError

    try:
        return run(options, words)
    except KeyboardInterrupt:
        print("benchmarks: interrupted", file=sys.stderr)
        return 130
    except BackpropError as error:
        print(f"benchmarks: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    found = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure backprop_gpu beside other libraries, equal work verified first.",
        epilog=_TEXT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = found.add_argument
    add("what", choices=KINDS, metavar="WHAT", help="see below")
    add("--workloads", type=_names, default=[], metavar="W1,W2", help="default: all of them")
    add("--peers", type=_names, default=[], metavar="NAME,NAME", help="default: all that are installed")
    add("--quick", action="store_true", help="estimators, tabular: few small datasets, 20 epochs, one repeat")
    add("--repeats", type=int, default=7, metavar="N", help="default: 7")
    add("--min-time", type=float, default=0.2, metavar="SECONDS", help="least time of a repeat (default: 0.2)")
    unset = "remove OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE, which may slow NumPy down, for all alike"
    add("--unset-openblas", action="store_true", help=unset)
    kept = "tabular: write each peer's results there, and run only those not there yet; stream: keep the tables there"
    add("--kept", metavar="FOLDER", help=kept)
    add("--folds", type=int, choices=range(1, 6), default=5, metavar="N", help="tabular: the first N of five folds")
    add("--json", metavar="FILE", help="write everything, each repeat included")
    add("--plot", metavar="FILE", help="draw a picture (needs matplotlib)")
    add("--markdown", action="store_true", help="print a section for BENCHMARKS.md instead of a table")
    return found


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def run(options: argparse.Namespace, words: Sequence[str] = ()) -> int:
    """Measure, print and write; 1 if a peer's work was not equal. ``words``: the command line, for the report.

    Raises
    ------
    ConfigError, DataError, MissingDependencyError
        For unknown names, numbers out of range, files that cannot be written.
    """
    from backprop_gpu.errors import ConfigError

    from . import output
    from .measure import UNSET

    if options.repeats < 1 or not 0.0 <= options.min_time <= 600.0:
        raise ConfigError("--repeats must be at least 1 and --min-time from 0 to 600 seconds")
    output.check_files(options.json, options.plot)
    kind, rows = options.what, []
    command = shlex.join(["python", "-m", "benchmarks", *words])
    context = output.context(command, [*UNSET] if options.unset_openblas else [])
    for row in _rows(options, context):
        rows.append(row)
        print("  ".join(filter(None, output.cells(kind, row))), file=sys.stderr, flush=True)
    print(output.markdown(kind, rows, context) if options.markdown else output.table(kind, rows))
    if options.json:
        output.write_json(kind, rows, context, options.json)
    if options.plot:
        output.draw(kind, rows, options.plot)
    return int(any(row.get("note", "").startswith("not equal work") for row in rows))


def _rows(options: argparse.Namespace, context: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of a measurement as they become known; what the thread pools were goes into the context."""
    from backprop_gpu.errors import ConfigError

    from . import parity_cost, products, reading, scaling, startup, stream
    from .measure import UNSET

    kind, variables = options.what, UNSET if options.unset_openblas else {}
    repeats, min_time = options.repeats, options.min_time
    if kind in _WITHOUT_NAMES and (options.workloads or options.peers):
        raise ConfigError(f"{kind} measures all it has; leave --workloads and --peers out")
    if kind == "startup":
        yield from startup.rows(repeats, variables)
    elif kind == "parity":
        yield from parity_cost.rows(repeats, min_time, variables)
    elif kind == "products":
        yield from products.rows_of(repeats, min_time, variables)
    elif kind == "scaling":
        yield from scaling.rows(repeats, min_time, variables=variables)
    elif kind == "estimators":
        yield from _estimator_rows(options, variables)
    elif kind == "tabular":
        yield from _tabular_rows(options, variables)
    elif kind == "stream":
        yield from stream.rows_of(options.workloads, options.peers, repeats, min_time, variables, options.kept)
    elif kind == "reading":
        yield from reading.rows_of(options.workloads, options.peers, repeats, variables)
    else:
        yield from _workload_rows(options, context)


def _workload_rows(options: argparse.Namespace, context: dict[str, Any]) -> Iterator[dict[str, Any]]:
    from .measure import Measurement, chosen
    from .peers import check_names
    from .workloads import WORKLOADS

    kind = options.what
    known = {work.name: work for work in WORKLOADS[kind]}
    check_names(options.workloads, known, f"workload of {kind}")
    min_time = 0.0 if kind == "fit" else options.min_time
    with Measurement(chosen(options.peers, kind), unset_openblas=options.unset_openblas) as measurement:
        for name in options.workloads or known:
            yield from measurement.rows(known[name], kind, options.repeats, min_time)
        context["pools"] = measurement.pools()


def _estimator_rows(options: argparse.Namespace, variables: Mapping[str, str | None]) -> Iterator[dict[str, Any]]:
    from . import estimators
    from .datasets import QUICK, chosen_datasets

    datasets = chosen_datasets(options.workloads or (QUICK if options.quick else ()))
    repeats, min_time, epochs = (1, 0.0, 20) if options.quick else (options.repeats, options.min_time, None)
    yield from estimators.rows(datasets, options.peers, repeats, min_time, epochs, variables)


def _tabular_rows(options: argparse.Namespace, variables: Mapping[str, str | None]) -> Iterator[dict[str, Any]]:
    from . import tabular
    from .tables import chosen_tables

    tables = chosen_tables(options.workloads or (("diabetes",) if options.quick else ()))
    epochs = 20 if options.quick else None
    yield from tabular.rows(tables, options.peers, epochs, variables, options.kept, options.folds)
