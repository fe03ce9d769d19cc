"""What a release is made of: the notes of its section, a citation of its version, workflows and forms that are YAML."""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable

import pytest
import yaml
from support.command import ROOT

import backprop_gpu

NOTES: Callable[[str, str], str] = runpy.run_path(str(ROOT / "scripts" / "release_notes"))["notes"]
CHANGELOG = """\
# Changes

## 1.1.0, unreleased

* new

## 1.0.0, 2027-01-31

* **a**: first
  line

## 0.1.0, 2026-12-01

* b
"""


def test_the_notes_are_the_section_of_the_version() -> None:
    assert NOTES(CHANGELOG, "1.0.0") == "* **a**: first\n  line\n"
    assert NOTES(CHANGELOG, "0.1.0") == "* b\n"
    for version, why in (("1.1.0", "write the date"), ("2.0.0", "no section"), ("1.0", "no section")):
        with pytest.raises(ValueError, match=why):
            NOTES(CHANGELOG, version)


def test_the_changelog_has_a_section_of_this_version_and_so_has_the_citation() -> None:
    version = backprop_gpu.__version__
    assert re.search(rf"^## {re.escape(version)}, ", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == version
    assert {"cff-version", "message", "title", "authors"} <= set(citation)


@pytest.mark.skipif(not (ROOT / ".github").is_dir(), reason="an unpacked source distribution has no .github")
def test_forms_and_workflows_are_yaml_without_secrets() -> None:
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("w*.yml"))
    assert len(forms) == 2
    for form in forms:
        found = yaml.safe_load(form.read_text(encoding="utf-8"))
        assert {"name", "description", "body"} <= set(found)
        assert all(part["type"] == "textarea" and part["attributes"]["label"] for part in found["body"])
    for workflow in (ROOT / ".github" / "workflows").glob("*.yml"):
        text = workflow.read_text(encoding="utf-8")
        assert yaml.safe_load(text)["jobs"]
        assert "secrets." not in text
