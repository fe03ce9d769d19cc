"""The page of ``explain`` in a real browser: its numbers at every position of its sliders, its layouts, its size."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import loops
from support.browser import chromium, opened

from backprop_gpu import explain
from backprop_gpu.explain import Explanation
from backprop_gpu.explain.chain import places

SMALLEST = 1e-4  # half of the last of four decimals, and a little


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "one over m.html"
    explain().to_html(path)
    return path


@pytest.fixture
def page(browser: Any, file: Path) -> Iterator[Any]:
    with opened(browser, file) as page:
        yield page


def floats(rows: Any) -> list[Any]:
    """Numbers as the page writes them, with a minus sign of its own."""
    return [floats(r) if isinstance(r, list) else float(r.replace("−", "-")) for r in rows]


def shown(rows: Any) -> np.ndarray:
    return np.array(floats(rows))


READ = """
() => Object.fromEntries([...document.querySelectorAll("#graph .node")].map(g => {
  g.dispatchEvent(new Event("focus"));
  const detail = document.querySelector("#detail");
  const rows = [...detail.querySelectorAll(".matrix tr")].map(r => [...r.cells].map(c => c.textContent));
  return [g.dataset.node, {rows, label: g.getAttribute("aria-label"), says: detail.textContent}];
}))
"""
CHIPS = "() => document.querySelectorAll('#graph .enter').length"


def reference(m: int, place: str) -> dict[str, Any]:
    explanation = explain()
    X, Y = explanation.X.T[:m].tolist(), explanation.Y.T[:m].tolist()
    return loops.tensors(explanation.net.parameters, X, Y, place)


@pytest.mark.parametrize("m", [1, 4, 7])
def test_the_graph_has_the_right_numbers_at_every_place_of_the_1_over_m(page: Any, m: int) -> None:
    page.locator("#m").fill(str(m))
    entered = []
    for at, place in enumerate(places(2)):
        page.locator("#place").fill(str(at))
        want, nodes = reference(m, place), page.evaluate(READ)
        assert set(nodes) == set(want)
        for name, node in nodes.items():
            np.testing.assert_allclose(shown(node["rows"]), np.array(want[name]), atol=SMALLEST / 1.9)
            if name in places(2):
                has = places(2).index(name) >= at
                assert node["label"].endswith(", has 1/m" if has else ", no 1/m")
            if name in ("dW1", "db2"):
                assert node["label"].endswith("has 1/m")
        assert re.search(r"losses\.py:\d+return -\(T / ", nodes["dA2"]["says"])
        entered.append(page.evaluate(CHIPS))
    assert entered == [1, 1, 3, 3, 4]  # once on every way from J to a parameter


def test_what_changes_and_what_does_not_is_said(page: Any) -> None:
    said = []
    for at in range(5):
        page.locator("#place").fill(str(at))
        said.append(page.locator("#changes").inner_text())
        assert page.locator("#apart").inner_text() == "nothing but roundings"
    assert "all are derivatives of J" in said[0]
    assert "dA1, dZ1 have it (derivatives of J); dAL, dZ2 do not (derivatives of L, 4 times as large)" in said[2]
    assert "no dA and no dZ has it" in said[4]


def test_late_stands_beside_early_and_the_batch_has_its_losses(page: Any) -> None:
    read = """() => [...document.querySelectorAll("#steps [data-step]")].map(s => [
      s.dataset.step, s.querySelector("h3").textContent,
      Object.fromEntries([...s.querySelectorAll("[data-ledger]")].map(d => [d.dataset.ledger,
        [...d.querySelectorAll("tr")].map(r => [...r.cells].map(c => c.textContent))]))])"""
    for m in (2, 4, 8):
        page.locator("#m").fill(str(m))
        for name, heading, ledgers in page.evaluate(read):
            for ledger, rows in ledgers.items():
                want = reference(m, "late" if ledger == "forward" else ledger)[name]
                np.testing.assert_allclose(shown(rows), np.array(want), atol=SMALLEST / 1.9)
            if name[0] == "d":
                assert set(ledgers) == {"late", "early"}
                assert heading.endswith("late / early = 1" if name[1] in "Wb" else f"late / early = m = {m}")
        losses = page.locator("#batch-table tr.strong td").all_inner_texts()
        np.testing.assert_allclose(shown(losses), np.array(reference(m, "late")["L"])[0], atol=SMALLEST / 1.9)
        assert shown([page.locator("#J").inner_text()])[0] == pytest.approx(
            reference(m, "late")["J"][0][0], abs=SMALLEST / 1.9
        )


def test_the_mean_of_the_gradients_is_listed_for_each_m(page: Any) -> None:
    explanation = explain()
    read = """() => [...document.querySelectorAll("#mean-table [data-parameter]")].map(r =>
      [r.dataset.parameter, [...r.querySelectorAll("td")].map(c => c.textContent)])"""
    for m in (1, 4, 8):
        page.locator("#m").fill(str(m))
        X, Y = explanation.X.T[:m].tolist(), explanation.Y.T[:m].tolist()
        examples = [loops.of_example(explanation.net.parameters, x, y) for x, y in zip(X, Y, strict=True)]
        mean = loops.weighted(examples, [1.0 / m] * m)
        rows = page.evaluate(read)
        assert len(rows) == 13
        for label, cells in rows:
            name, at = label.rstrip("]").split("[")
            j, k = (int(n) - 1 for n in (at if "," in at else f"{at},1").split(","))
            want = [*(g[name][j][k] for g in examples), *[mean[name][j][k]] * 4]
            np.testing.assert_allclose(shown(cells), want, atol=SMALLEST / 1.9)
        assert page.locator("#check").inner_text() == "✓ right"


def test_the_parts_of_the_batch_follow_their_slider(page: Any) -> None:
    explanation = explain()
    read = """() => [...document.querySelectorAll("#ways [data-way]")].map(w => [w.querySelector(".got").textContent,
      w.querySelector(".verdict").textContent, [...w.querySelectorAll(".weight b")].map(b => b.textContent)])"""
    for m, k in ((4, 3), (4, 2), (8, 5), (2, 1)):
        page.locator("#m").fill(str(m))
        if m > 2:
            page.locator("#cut").fill(str(k))
        X, Y = explanation.X.T[:m].tolist(), explanation.Y.T[:m].tolist()
        examples = [loops.of_example(explanation.net.parameters, x, y) for x, y in zip(X, Y, strict=True)]
        own = [1 / k] * k + [1 / (m - k)] * (m - k)
        even = "✓ right here, as the parts are even" if 2 * k == m else "✗ wrong"
        expected = [([1 / m] * m, "✓ right"), ([1 / m] * m, "✓ right"), ([w / 2 for w in own], even), (own, "✗ wrong")]
        for (got, verdict, counts), (weights, says) in zip(page.evaluate(read), expected, strict=True):
            assert verdict == says
            want = loops.weighted(examples, weights)["db2"][0][0]
            assert shown([got])[0] == pytest.approx(want, abs=SMALLEST / 1.9)
            fractions = [int(c.partition("/")[0]) / int(c.partition("/")[2] or 1) for c in counts]
            np.testing.assert_allclose(fractions, weights, rtol=1e-12)
    page.locator("#m").fill("1")
    assert page.locator("#cut-none").is_visible()


def test_it_is_used_by_keyboard(page: Any) -> None:
    page.locator("#place").focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#place-out").inner_text() == "dZ1"
    page.keyboard.press("Home")
    assert page.locator("#place-out").inner_text() == "dAL (early)"
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert page.locator("#m-out").inner_text() == "m = 5"
    for _ in range(3):  # the batch's table, then the graph
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.node") == "Z1"
    assert page.locator("#detail h3").inner_text().startswith("Z1")
    page.locator('[data-node="dW1"]').hover()
    assert "dW1 = dZ1 · A0ᵀ" in page.locator("#detail").inner_text()


OVERFLOWING = """
() => [...document.querySelectorAll("body *")]
  .filter(e => e.checkVisibility() && !e.closest(".scroll, .skip"))
  .filter(e => e.getBoundingClientRect().right > innerWidth + 1 || e.getBoundingClientRect().left < -1)
  .map(e => e.outerHTML.slice(0, 80))
"""
CONTRAST = """
() => {
  const channel = v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = c => {
    const [r, g, b] = c.match(/[\\d.]+/g).map(v => channel(v / 255));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const ground = e => {
    const c = getComputedStyle(e).backgroundColor;
    return /, 0\\)$/.test(c) ? ground(e.parentElement) : c;
  };
  const contrast = e => {
    const [dim, bright] = [light(getComputedStyle(e).color), light(ground(e))].sort((a, b) => a - b);
    return (bright + .05) / (dim + .05);
  };
  const texts = "p, td, th, h1, h2, h3, dt, dd, label, output, code, figcaption, .verdict, .chip, .ratio, .shape";
  return Math.min(...[...document.querySelectorAll(texts)].filter(e => e.textContent.trim()).map(contrast));
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_overflows_and_everything_can_be_read(browser: Any, file: Path, width: int, scheme: str) -> None:
    with opened(browser, file, viewport={"width": width, "height": 844}, color_scheme=scheme) as page:
        page.locator("#m").fill("8")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate(OVERFLOWING) == []
        assert page.evaluate(CONTRAST) >= 4.5
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == {"light": "rgb(251, 250, 247)", "dark": "rgb(22, 23, 26)"}[scheme]


def test_printed_it_is_without_sliders_and_on_white(browser: Any, file: Path) -> None:
    with opened(browser, file, viewport={"width": 794, "height": 1123}, color_scheme="dark") as page:
        page.locator("#m").fill("8")
        page.emulate_media(media="print")
        assert page.evaluate("document.documentElement.scrollWidth") == 794
        assert not page.locator("#place").is_visible()
        assert page.locator("#place-out").is_visible()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.evaluate(OVERFLOWING) == []


def test_an_outsiders_names_and_a_large_network_do_not_break_it(browser: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 20)), rng.integers(0, 5, 20)
    title = '<script>alert(1)</script> & "quotes" {{data}} /* STYLE */'
    names = [f"<b>{'long name ' * 5}{i}" for i in range(20)]
    net = explain([20, 30, 20, 5], X, y, loss="categorical_cross_entropy", activation="gelu", feature_names=names)
    explanation = replace(net, title=title)
    explanation.to_html(tmp_path / "large.html")
    assert (tmp_path / "large.html").stat().st_size <= 300_000
    with opened(browser, tmp_path / "large.html", viewport={"width": 390, "height": 844}) as page:
        assert title in page.locator(".sub").inner_text()
        assert names[0] in page.locator("#batch-table").inner_text()
        assert "more parameters are not listed" in page.locator("#check-line").inner_text()
        assert "more rows" in page.locator("#steps").inner_text()
        assert page.locator("#check").inner_text() == "✓ right"
        page.locator("#m").fill("8")
        page.locator("#place").fill("3")
        assert page.evaluate("document.documentElement.scrollWidth") == 390


# -- without a browser ------------------------------------------------------------------------------------------------


class _Outside(HTMLParser):
    """Collects what a page would load from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found += [
            f"{tag} {k}={v}" for k, v in attrs if k in ("src", "href", "srcset") and not str(v).startswith("#")
        ]


@pytest.mark.parametrize("sizes", [[2, 1], [4, 5, 5, 5, 5, 5, 2], [40, 30, 20, 10, 5, 1]], ids=str)
def test_it_is_one_small_file_that_asks_for_nothing(sizes: list[int]) -> None:
    rng = np.random.default_rng(1)
    explanation = explain(sizes, rng.normal(size=(30, sizes[0])), rng.integers(0, 2, (30, sizes[-1])))
    text = explanation.to_html()
    assert len(text.encode()) <= 300_000
    outside = _Outside()
    outside.feed(text)
    assert outside.found == []
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttp|importScripts", text)
    assert isinstance(explanation, Explanation)
    assert "srcdoc=" in explanation._repr_html_()
