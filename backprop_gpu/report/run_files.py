"""The shapes of what a report shows of a run's files, which may be of anyone; what is not shown may be as it likes."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

_Count = Annotated[int, Field(ge=0, lt=1 << 53)]
_Value = float | None
_NOT_CHECKED = ConfigDict(extra="allow", strict=True)


class _EpochLine(BaseModel):
    model_config = _NOT_CHECKED
    epoch: _Count
    step: _Count
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    cost: _Value = None
    learning_rate: _Value = None
    validation: dict[str, _Value] = {}
    training: dict[str, _Value] = {}
    layers: dict[Annotated[str, Field(pattern=r"^[a-z]+ [0-9]{1,6}$")], _Value] = {}


class _Matrix(BaseModel):
    model_config = _NOT_CHECKED
    classes: list[str]
    rows_true: list[list[_Count]]

    @model_validator(mode="after")
    def _square(self) -> _Matrix:
        if {len(self.classes)} != {len(self.rows_true), *map(len, self.rows_true)}:
            raise ValueError("a row and a column for each class")
        return self


class _Part(BaseModel):
    model_config = _NOT_CHECKED
    rows: _Count = 0
    confusion_matrix: _Matrix | None = None
    __pydantic_extra__: dict[str, float | str | list[Any] | dict[str, Any] | None]


class _Metrics(BaseModel):
    model_config = _NOT_CHECKED
    sizes: list[_Count] = []
    parameters: _Count = 0
    best_epoch: _Count | None = None
    notes: list[str] = []
    parity: list[str] | None = None
    train: _Part | None = None
    validation: _Part | None = None
    test: _Part | None = None


EPOCH, METRICS = TypeAdapter(_EpochLine), TypeAdapter(_Metrics)


def fits(shape: TypeAdapter[Any], found: Any) -> bool:
    """Whether what a file holds has a shape."""
    try:
        shape.validate_python(found)
    except ValidationError:
        return False
    return True
