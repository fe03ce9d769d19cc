"""Settings of the documentation site: ``scripts/docs`` builds it, strictly and without the network.

Sources are read from the top of the checkout, so that the README, the changelog and the pages of docs/ link to one
another as they do in a code host's viewer.
"""

from __future__ import annotations

import backprop_gpu

project = "backprop_gpu"
author = "the backprop_gpu developers"
version = release = backprop_gpu.__version__

root_doc = "docs/index"
include_patterns = ["docs/**", "README.md", "CHANGELOG.md", "BENCHMARKS.md", "CONTRIBUTING.md", "SECURITY.md", "NOTICES.md"]
exclude_patterns = ["docs/conf.py", "build", "runs", ".*", "tests", "backprop_gpu", "benchmarks"]

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

# Notebooks are executed by the build, and a cell that raises ends it.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 60

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}

html_theme = "furo"
html_title = "backprop_gpu"
html_copy_source = False
html_show_sphinx = False
html_additional_pages = {"index": "redirect.html"}
templates_path = ["_templates"]
