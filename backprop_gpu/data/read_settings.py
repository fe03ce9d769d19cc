"""What may be set about how a file of text is read; what is not set is found out from the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import ConfigError, did_you_mean
from .column_types import TYPES
from .number_forms import THOUSANDS


@dataclass(frozen=True)
class ReadSettings:
    """How a file of text is read; None: as the file suggests.

    Parameters
    ----------
    delimiter, quote : str
        One character each; a quote of "" means that there are none.
    encoding : str
        As Python names it: utf-8, utf-16, cp1252, ...
    decimal, thousands : str
        ``.`` or ``,``; one of ``, . ' _`` or a blank. They decide where a number such as 1,234 may mean two.
    comment : str
        Lines that begin with this character are left out.
    day_first : bool
        Whether 03/04/2024 is in April.
    header : bool
        False: the file has no header, and its columns are called column 1, column 2, ...
    na_values : sequence of str
        Cells that count as missing beside the usual ones.
    types : mapping of str to str
        What columns are read as: number, category, date or boolean.
    """

    delimiter: str | None = None
    quote: str | None = None
    encoding: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    comment: str | None = None
    day_first: bool | None = None
    header: bool | None = None
    na_values: Sequence[str] = ()
    types: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, ends in (("delimiter", '\r\n"'), ("quote", "\r\n"), ("comment", "\r\n")):
            value = getattr(self, name)
            if value is not None and (len(value) > 1 or value in ends) and not (name == "quote" and value in ("", '"')):
                raise ConfigError(f"{name} must be one character and no quote or line end, got {value!r}")
        _one_of("decimal", self.decimal, (".", ","))
        _one_of("thousands", self.thousands, THOUSANDS)
        if self.decimal is not None and self.decimal == self.thousands:
            raise ConfigError(f"decimal and thousands are both {self.decimal!r}; they must differ")
        for column, kind in self.types.items():
            if kind not in TYPES:
                hint = did_you_mean(str(kind), TYPES)
                raise ConfigError(f"types: column {column!r} is {kind!r}{hint}; write one of {', '.join(TYPES)}")

    def given(self) -> dict[str, Any]:
        """What is set, as plain data."""
        return {key: value for key, value in asdict(self).items() if value not in (None, (), {}, [])}


def _one_of(name: str, value: str | None, choices: Sequence[str]) -> None:
    if value is not None and value not in choices:
        raise ConfigError(f"{name}: {value!r} is not one of {' '.join(map(repr, choices))}")


AS_FOUND = ReadSettings()
