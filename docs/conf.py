"""Settings of the documentation site: ``scripts/docs`` builds it, strictly and without the network.

Sources are read from the top of the checkout, so that the README, the changelog and the pages of docs/ link to one
another as they do in a code host's viewer.
"""

from __future__ import annotations

from typing import Any

from pygments.lexers.special import TextLexer
from sphinx.highlighting import lexers

import backprop_gpu

project = "backprop_gpu"
author = "the backprop_gpu developers"
version = release = backprop_gpu.__version__

root_doc = "docs/index"
include_patterns = [
    "docs/**",
    "README.md",
    "CHANGELOG.md",
    "BENCHMARKS.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "NOTICES.md",
]
exclude_patterns = ["docs/conf.py", "build", "runs", ".*", "tests", "backprop_gpu", "benchmarks"]

lexers["csv"] = TextLexer()

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_heading_anchors = 4

# Notebooks are executed by the build, and a cell that raises ends it.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 60

napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}

html_theme = "furo"
html_title = "backprop_gpu"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_additional_pages = {"index": "redirect.html"}
templates_path = ["_templates"]


def _list_the_decisions(app: Any, name: str, source: list[str]) -> None:
    """The decisions belong to their page of contents, which names them in words; the site needs a toctree as well."""
    if name == "docs/decisions/README":
        source[0] += "\n```{toctree}\n:glob:\n:hidden:\n\n0*\n```\n"


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _list_the_decisions)
