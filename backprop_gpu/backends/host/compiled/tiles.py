"""How a product is cut to a processor's registers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tiles:
    """What a processor's registers hold.

    Attributes
    ----------
    vector : int
        Bytes of a vector.
    rows, vectors : int
        Of a tile of C, the largest: ``rows`` is a power of two.
    """

    vector: int
    rows: int
    vectors: int
