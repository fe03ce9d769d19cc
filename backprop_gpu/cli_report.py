"""``backprop-gpu report``: the page of a run, or of several beside each other."""

from __future__ import annotations

import argparse
from pathlib import Path

from .cli_models import add_device
from .errors import ConfigError

COMPARISON_FILE = "comparison.html"

REPORT = f"""\
examples:
  backprop-gpu report runs/flats                      write runs/flats/report.html again, say after an interrupted run
  backprop-gpu report runs/flats --html flats.html    the same elsewhere
  backprop-gpu report runs/*                          compare runs: a table here, and {COMPARISON_FILE}
"""


def add_report(parser: argparse.ArgumentParser) -> None:
    """Give the parser of ``report`` its options."""
    parser.epilog, parser.formatter_class = REPORT, argparse.RawDescriptionHelpFormatter
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder; several are compared")
    text = f"where the page goes (default: report.html in the run folder; of several runs {COMPARISON_FILE} here)"
    parser.add_argument("--html", metavar="FILE", help=text)
    add_device(parser)
    parser.set_defaults(command=_report)


def _report(options: argparse.Namespace) -> int:
    from .report import terminal
    from .report.comparison import remarks, sections, terminal_table
    from .report.run_data import read_run
    from .report.run_report import write_page, write_report

    if options.html is not None and Path(options.html).is_dir():
        raise ConfigError(f"--html {options.html} is a folder; name a file in it")
    runs = [read_run(folder, options.device) for folder in options.runs]
    if len(runs) == 1:
        written = write_report(runs[0], options.html)
        for line in runs[0].missing:
            print(f"note: {line}")
    else:
        terminal.print_whole(terminal.console(), terminal_table(runs))
        for line in remarks(runs):
            print(f"note: {line}")
        written = write_page(options.html or COMPARISON_FILE, f"{len(runs)} runs", sections(runs))
    print(f"{written}: open it in a browser")
    return 0
