"""The pages of docs/reference say what the parser and the configuration's schema say."""

from __future__ import annotations

import runpy

import pytest
from support.command import ROOT

PAGES = runpy.run_path(str(ROOT / "scripts" / "reference"))["PAGES"]


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_the_code_s(name: str) -> None:
    page = ROOT / "docs" / "reference" / name
    assert page.read_text(encoding="utf-8") == PAGES[name](), "run: .venv/bin/python scripts/reference"
