"""YAML that must not be taken at its word."""

from __future__ import annotations

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)
"""A billion laughs: 9 to the 9th texts for whoever follows the aliases."""
