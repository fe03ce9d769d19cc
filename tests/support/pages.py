"""What a page holds, read from its HTML: tables, what a chart embeds, what would be loaded from elsewhere."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser
from typing import Any

# Elements that stick out of the window, but for those that scroll by themselves.
OVERFLOWING = """
() => [...document.querySelectorAll("body *")]
  .filter(e => e.checkVisibility() && !e.closest(".scroll, .skip, pre"))
  .filter(e => e.getBoundingClientRect().right > innerWidth + 1 || e.getBoundingClientRect().left < -1)
  .map(e => e.outerHTML.slice(0, 80))
"""

# The least contrast of a text with what is behind it; 4.5 is what the WCAG ask for.
CONTRAST = """
(texts) => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgb = c => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = c;
    canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const channel = v => v / 255 <= .03928 ? v / 255 / 12.92 : ((v / 255 + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
  const ground = e => {
    const c = rgb(getComputedStyle(e).backgroundColor);
    return c[3] === 0 ? ground(e.parentElement) : c;
  };
  const colour = e => rgb(getComputedStyle(e)[e.tagName === "text" ? "fill" : "color"]);
  const contrast = e => {
    const [dim, bright] = [light(colour(e)), light(ground(e))].sort((a, b) => a - b);
    return (bright + .05) / (dim + .05);
  };
  return Math.min(...[...document.querySelectorAll(texts)].filter(e => e.textContent.trim()).map(contrast));
}
"""


def tables(page: str) -> list[list[list[str]]]:
    """Each table as rows of texts."""
    return [
        [
            [html.unescape(re.sub(r"<[^>]*>", "", cell)) for cell in re.findall(r"<t[hd]\b[^>]*>(.*?)</t[hd]>", row)]
            for row in re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
        ]
        for table in re.findall(r"<table\b.*?</table>", page, re.DOTALL)
    ]


def table_under(page: str, corner: str) -> list[list[str]]:
    """The rows of the table whose first cell is this one, without its header."""
    return next(table[1:] for table in tables(page) if table[0][0] == corner)


def charts(page: str) -> dict[str, dict[str, Any]]:
    """What the charts embed for the pointer, by their titles: ``{"mean loss": {"training": [[1, 0.7], ...]}}``."""
    found = re.findall(r'<figcaption>(.*?)</figcaption><svg [^>]*?data-values="(.*?)">', page)
    return {html.unescape(title): dict(json.loads(html.unescape(text))["curves"]) for title, text in found}


class _Outside(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found += [
            f"{tag} {k}={v}" for k, v in attrs if k in ("src", "href", "srcset") and not str(v).startswith("#")
        ]


def loaded_from_elsewhere(page: str) -> list[str]:
    """Addresses of other files, and what a script or a style could load them with."""
    outside = _Outside()
    outside.feed(page)
    return outside.found + re.findall(r"@import|url\((?!#)|fetch\(|XMLHttp|importScripts", page)
