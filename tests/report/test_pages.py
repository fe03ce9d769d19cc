"""The pages of runs in a real browser: nothing sticks out, everything can be read, numbers under pointer and keys."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.browser import chromium, opened
from support.pages import CONTRAST, OVERFLOWING
from support.runs import quick, run

from backprop_gpu.report.comparison import sections
from backprop_gpu.report.run_data import read_run
from backprop_gpu.report.run_report import write_page, write_report

TEXTS = "p, td, th, h1, h2, h3, dt, dd, li, figcaption, pre, .chart text"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of two columns; of ten classes, with long names; of values; and of all three beside each other."""
    folder = tmp_path_factory.mktemp("pages")
    rng = np.random.default_rng(0)
    names = np.array([f"a class with the long name {k}" for k in range(10)])
    columns = [f"a_column_whose_name_has_no_gap_in_it_{k}" for k in range(6)]
    np.savez(
        folder / "classes.npz", X=rng.normal(size=(300, 6)), y=names[rng.integers(0, 10, 300)], feature_names=columns
    )
    data: dict[str, dict[str, Any]] = {
        "two": {"source": "moons"},
        "ten": {"source": str(folder / "classes.npz")},
        "values": {"source": "regression"},
    }
    for name, section in data.items():
        run(str(folder / name), quick(data=section, training={"epochs": 40}, device="cpu"))
    made = [write_report(folder / name) for name in data]
    compared = [read_run(folder / name, "cpu") for name in data]
    return [*made, write_page(folder / "comparison.html", "3 runs", sections(compared))]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


def test_nothing_overflows_and_everything_can_be_read(browser: Any, pages: list[Path]) -> None:
    grounds = {"light": "rgb(251, 250, 247)", "dark": "rgb(22, 23, 26)"}
    for file in pages:
        for scheme, width in (("light", 390), ("dark", 1280)):
            with opened(browser, file, viewport={"width": width, "height": 844}, color_scheme=scheme) as page:
                assert page.evaluate("document.documentElement.scrollWidth") == width, file
                assert page.evaluate(OVERFLOWING) == [], file
                assert page.evaluate("getComputedStyle(document.body).backgroundColor") == grounds[scheme]
                for colours in (scheme, "light" if scheme == "dark" else "dark"):
                    page.emulate_media(color_scheme=colours)
                    assert page.evaluate(CONTRAST, TEXTS) >= 4.5, (file, colours)
    with opened(browser, pages[1], viewport={"width": 794, "height": 1123}, color_scheme="dark") as page:
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert not page.locator("nav").is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == 794


def test_the_numbers_of_a_curve_are_shown_at_the_pointer_and_by_keys(browser: Any, pages: list[Path]) -> None:
    lines = (pages[0].parent / "history.jsonl").read_text(encoding="utf-8").splitlines()
    epochs = [json.loads(line) for line in lines]
    with opened(browser, pages[0], viewport={"width": 390, "height": 844}) as page:
        figure = page.locator("figure", has_text="mean loss").first
        chart, said = figure.locator("svg.chart"), figure.locator(".readout")

        def at(k: int) -> None:
            found = re.fullmatch(r"epoch (\d+): training ([\d.]+), validation ([\d.]+)", said.inner_text())
            assert found, said.inner_text()
            want = [k, *(epochs[k - 1][kind]["cost"] for kind in ("training", "validation"))]
            assert [float(x) for x in found.groups()] == pytest.approx(want, rel=6e-4)

        chart.focus()
        page.keyboard.press("ArrowLeft")
        at(len(epochs) - 1)
        page.keyboard.press("Home")
        at(1)
        box = chart.bounding_box()
        chart.hover(position={"x": box["width"] * (50 + 300 * 9 / (len(epochs) - 1)) / 360, "y": box["height"] / 2})
        at(10)
        # Without colour: each curve of a chart has dashes of its own.
        dashes = "e => [...e.querySelectorAll('path.curve')].map(p => getComputedStyle(p).strokeDasharray)"
        found = page.locator("figure", has_text="norm of dJ/dW").locator("svg.chart").evaluate(dashes)
        assert len(set(found)) == len(found) >= 2
