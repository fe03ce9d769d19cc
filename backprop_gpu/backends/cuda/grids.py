"""How work is divided among blocks of threads: by its shape alone, so that every card adds in the same order."""

from __future__ import annotations

from .compile import THREADS

BLOCK = 256  # examples of a block of a sum; PARAMETERS: numbers of one over the flat vector (native/cuda)
PARAMETERS = 4096

BLOCKS = 1024  # at most, in one grid: a few for every multiprocessor of the largest card, the same on every card
PASSES = 8  # numbers that a thread takes before another block is worth its while
WARP = 32


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least n."""
    return 1 << (n - 1).bit_length()


def tiles(n: int, m: int) -> tuple[tuple[int, int], int]:
    """The grid over (n, m), and how many units lie side by side in a block."""
    width = min(power_of_two(n), WARP)
    across = -(-n // width)
    down = -(-m // (THREADS // width * PASSES))
    return (across, min(down, max(BLOCKS // across, 1))), width


def line(n: int) -> tuple[int, int]:
    """The grid over a vector."""
    return min(-(-n // (THREADS * PASSES)), BLOCKS), 1


def sum_tiles(n: int, m: int) -> tuple[tuple[int, int], int]:
    """The grid of a sum over m examples for each of n units, and how many units lie side by side in a block: 8 at most,
    which are a sector of memory in float32, since each takes 32 threads.
    """
    width = min(power_of_two(n), THREADS // WARP)
    across, groups = -(-n // width), THREADS // WARP // width
    return (across, min(-(-blocks(m) // groups), max(BLOCKS // across, 1))), width


def blocks(terms: int) -> int:
    """How many blocks a sum over examples has."""
    return -(-terms // BLOCK)


def parameter_blocks(n: int) -> tuple[int, int]:
    """How many blocks a sum over the flat vector has; and numbers of scratch: theirs, and for adding them."""
    count = -(-n // PARAMETERS)
    return count, count + blocks(count)
