"""The package's own exceptions. Each message says what is wrong and what to change."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import islice
from typing import Any, Self

_LONGEST_MESSAGE = 2000  # letters
_LONGEST = 80  # letters of a word that is compared with others


class BackpropError(Exception):
    """Base of every error this package raises on purpose; the command line prints it as one line and exits with 2.

    Attributes
    ----------
    option : (str, value) or None
        A setting of ``data`` that would do as the message says; the command line shows how it is written there.
    """

    option: tuple[str, Any] | None = None

    def __init__(self, message: object = "", *more: object) -> None:
        """A message that something in a file makes longer than a page is cut in its middle: advice comes last."""
        if isinstance(message, str) and len(message) > _LONGEST_MESSAGE:
            half = _LONGEST_MESSAGE // 2
            message = f"{message[: half - 5]} ... {message[-half:]}"
        super().__init__(message, *more)

    def with_option(self, key: str, value: Any) -> Self:
        """The same error, with its ``option``."""
        self.option = key, value
        return self


class ConfigError(BackpropError, ValueError):
    """A setting is unknown, of the wrong type or out of its range."""


class DataError(BackpropError, ValueError):
    """The data cannot be used as given: a missing file, a wrong shape, a NaN, a label out of range."""


class ShapeError(BackpropError, ValueError):
    """Arrays that must fit together do not."""


class DeviceError(BackpropError, RuntimeError):
    """The device that was asked for cannot be used; the message says why and what would help."""


class CheckpointError(BackpropError, ValueError):
    """A model file or run folder is missing, damaged or of another kind."""


class ParityError(BackpropError, ArithmeticError):
    """A device computed something that its precision does not allow."""


class NonFiniteError(BackpropError, FloatingPointError, ValueError):
    """Training produced NaN or infinity; a ValueError too, which is what scikit-learn's estimators raise then."""


class DivergedError(NonFiniteError):
    """A step that left NaN or infinity; the parameters are those of before it.

    Attributes
    ----------
    from_start : bool
        Whether that was before any step had been taken.
    found : NonFinite or None
        The first number that was not finite (``network.non_finite``), where it was found.
    fix : str
        What to change, where that is known; else empty.
    net : DenseNet or None
        Whose step it was, of several that advance together.
    """

    net: Any = None

    def __init__(self, message: str, from_start: bool, found: Any = None, fix: str = "") -> None:
        super().__init__(message)
        self.from_start, self.found, self.fix = from_start, found, fix


class Stopped(KeyboardInterrupt):
    """A signal asks the process to end; not an error, and not caught as one.

    Attributes
    ----------
    exit_code : int
        128 and the number of the signal, as shells have it: 130 for SIGINT, 143 for SIGTERM.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


class MissingDependencyError(BackpropError, ImportError):
    """An optional package is needed; the message names the command that installs it."""


def shown(value: Any, most: int = 100, *, quoted: bool = True) -> str:
    """A value for an error message: on one line, and cut short."""
    text = repr(value) if quoted else " ".join(str(value).split())
    return text if len(text) <= most else text[: most - 4] + " ..."


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the nearest known word, or an empty string.

    Comparing takes time: only among the first thousand words, and only those that a person may have mistyped.
    """
    if len(word) > _LONGEST:
        return ""
    near = difflib.get_close_matches(word, (w for w in islice(known, 1000) if len(w) <= _LONGEST), n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""
