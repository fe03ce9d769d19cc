"""``backprop-gpu bench``. Importing this loads nothing but argparse."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Mapping
from typing import Any

KINDS = ("step", "epoch", "fit", "inference", "parity", "startup", "growth", "products", "estimators", "tabular")
_WHOLE = ("startup", "parity", "growth", "products")
_TEXT = """what to measure:
  step       a training step: batch gathered, loss, gradient, Adam
  epoch      an epoch, the drawing of its order included
  fit        a whole fit: digits to 97% test accuracy; 20 epochs of 100,000 rows
  inference  100,000 rows
  parity     parity.check beside the step that it checks: time and memory
  startup    imports, first step, whole processes
  growth     step time against width, depth, batch and rows
  products   matrix products of networks' sizes on one core: the native kernels' own beside NumPy's BLAS
  estimators fits of MLPClassifier and MLPRegressor beside scikit-learn's, on 12 tables
  tabular    scores by 5-fold cross-validation: preset="tabular", plain MLPs, gradient boosting, random forest

Each peer works in a process of its own and is asked for one round at a time, in turn. Equal work is verified first:
from the same weights, in the same order, its losses must agree with a float64 run; a peer whose losses do not is left
out, and the command ends with 1. (estimators: the scores on test rows, within 0.01 and two rows of scikit-learn's.)
The ratio is a peer's time over that of the first (ours), "% of floor" the least time (products at NumPy's GEMM
rate, bytes at its bandwidth, measured in the same rounds) over a peer's time.
"""


def add_bench(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, _TEXT
    add = parser.add_argument
    add("what", choices=KINDS, metavar="WHAT", help="see below")
    add("--workloads", type=_names, default=[], metavar="W1,W2", help="default: all of them")
    add("--peers", type=_names, default=[], metavar="NAME,NAME", help="default: all that are installed")
    add("--quick", action="store_true", help="estimators, tabular: few small tables, 20 epochs, one round")
    add("--rounds", type=int, default=7, help="default: 7")
    add("--slice", type=float, default=0.2, metavar="SECONDS", help="least time of a turn (default: 0.2)")
    unset = "remove OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE, which may slow NumPy down, for all alike"
    add("--unset-openblas", action="store_true", help=unset)
    add("--json", metavar="FILE", help="write everything, each round included")
    add("--plot", metavar="FILE", help="draw a picture (needs matplotlib)")
    add("--markdown", action="store_true", help="print a section for BENCHMARKS.md instead of a table")


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def run_bench(options: argparse.Namespace) -> int:
    """Measure, print and write; 1 if a peer's work was not equal.

    Raises
    ------
    ConfigError, DataError, MissingDependencyError
        For unknown names, numbers out of range, files that cannot be written.
    """
    from rich.console import Console

    from ..errors import ConfigError
    from . import output
    from .measure import UNSET

    if options.rounds < 1 or not 0.0 <= options.slice <= 600.0:
        raise ConfigError("--rounds must be at least 1 and --slice from 0 to 600 seconds")
    output.check_files(options.json, options.plot)
    kind, rows = options.what, []
    context = output.context(shlex.join(["backprop-gpu", *sys.argv[1:]]), [*UNSET] if options.unset_openblas else [])
    for row in _rows(options, context):
        rows.append(row)
        print("  ".join(filter(None, output.cells(kind, row))), file=sys.stderr, flush=True)
    if options.markdown:
        print(output.markdown(kind, rows, context))
    else:
        Console(highlight=False).print(output.table(kind, rows))
    if options.json:
        output.write_json(kind, rows, context, options.json)
    if options.plot:
        output.draw(kind, rows, options.plot)
    return int(any(row.get("note", "").startswith("not equal work") for row in rows))


def _rows(options: argparse.Namespace, context: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of a measurement as they become known; what the thread pools were goes into the context."""
    from ..errors import ConfigError, did_you_mean
    from . import growth, parity_cost, products, startup
    from .measure import UNSET, Measurement
    from .peers import chosen
    from .workloads import WORKLOADS

    kind, variables = options.what, UNSET if options.unset_openblas else {}
    if kind in _WHOLE and (options.workloads or options.peers):
        raise ConfigError(f"bench {kind} measures all it has; leave --workloads and --peers out")
    if kind == "startup":
        yield from startup.rows(options.rounds, variables)
        return
    if kind == "parity":
        yield from parity_cost.rows(options.rounds, options.slice, variables)
        return
    if kind == "products":
        yield from products.rows_of(options.rounds, options.slice, variables)
        return
    if kind == "growth":
        yield from growth.rows(options.rounds, options.slice, variables=variables)
        return
    if kind == "estimators":
        yield from _estimator_rows(options, variables)
        return
    if kind == "tabular":
        yield from _tabular_rows(options, variables)
        return
    known = {work.name: work for work in WORKLOADS[kind]}
    for name in options.workloads:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ConfigError(f"bench {kind} has no workload {name!r}{hint}; it has {', '.join(known)}")
    at_least = 0.0 if kind == "fit" else options.slice
    with Measurement(chosen(options.peers, kind), unset_openblas=options.unset_openblas) as measurement:
        for name in options.workloads or known:
            yield from measurement.rows(known[name], kind, options.rounds, at_least)
        context["pools"] = measurement.pools()


def _estimator_rows(options: argparse.Namespace, variables: Mapping[str, str | None]) -> Iterator[dict[str, Any]]:
    from . import estimators
    from .tables import QUICK, chosen_tables

    tables = chosen_tables(options.workloads or (QUICK if options.quick else ()), options.what)
    rounds, at_least, epochs = (1, 0.0, 20) if options.quick else (options.rounds, options.slice, None)
    yield from estimators.rows(tables, options.peers, rounds, at_least, epochs, variables)


def _tabular_rows(options: argparse.Namespace, variables: Mapping[str, str | None]) -> Iterator[dict[str, Any]]:
    from . import tabular
    from .tables import chosen_tables

    tables = chosen_tables(options.workloads or (("iris",) if options.quick else tabular.NAMES), options.what)
    yield from tabular.rows(tables, options.peers, 20 if options.quick else None, variables)
