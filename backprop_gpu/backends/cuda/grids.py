"""How work is divided among blocks of threads: by its shape alone, so that every card adds in the same order."""

from __future__ import annotations

from .compile import THREADS

BLOCKS = 1024  # at most, in one grid: a few for every multiprocessor of the largest card, the same on every card
PASSES = 8  # numbers that a thread takes before another block is worth its while
WARP = 32


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least n."""
    return 1 << (n - 1).bit_length()


def tiles(n: int, m: int) -> tuple[tuple[int, int], int]:
    """The grid over (n, m), and how many units lie side by side in a block: set by the shape alone, so that sums are
    added in the same order on every card.
    """
    width = min(power_of_two(n), WARP)
    across = -(-n // width)
    down = -(-m // (THREADS // width * PASSES))
    return (across, min(down, max(BLOCKS // across, 1))), width


def line(n: int) -> tuple[int, int]:
    """The grid over a vector."""
    return min(-(-n // (THREADS * PASSES)), BLOCKS), 1
