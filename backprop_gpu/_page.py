"""HTML pages that are one file: a template with marks, and what stands in their places."""

from __future__ import annotations

import re
from collections.abc import Mapping


def filled(template: str, parts: Mapping[str, str]) -> str:
    """The template with each mark, a key of ``parts``, replaced, all at once: a part may hold what looks like one."""
    marks = re.compile("|".join(map(re.escape, parts)))
    return marks.sub(lambda found: parts[found[0]], template)
