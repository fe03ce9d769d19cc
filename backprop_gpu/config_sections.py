"""What each section of a configuration may hold.

Every section mirrors one constructor; optimizers, schedules and losses are generated from the dataclasses of ``maths``,
so that a parameter exists in one place.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

from .config_errors import CHOICES
from .data.column_types import TYPES
from .data.number_forms import THOUSANDS
from .data.read_settings import ReadSettings
from .maths.activations import ACTIVATIONS
from .maths.initializers import INITIALIZERS
from .maths.optimizers import OPTIMIZERS
from .maths.schedules import SCHEDULES
from .training.metrics import METRICS


class Section(BaseModel):
    """A part of a configuration: unknown keys are refused, values are not converted, and it does not change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class _ShortForms:
    """Shows in the JSON Schema that a bare name will do and, where the task implies one, that nothing will."""

    def __init__(self, names: list[str], optional: bool) -> None:
        self.short = [{"enum": names, "type": "string"}, *([{"type": "null"}] if optional else [])]

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        return {"anyOf": [*self.short, *handler(core_schema)["oneOf"]]}


def _chosen(registry: Mapping[str, type], default: str, extra: dict[str, Any] | None = None) -> Any:
    """A union of models, one per entry of a registry, told apart by ``name``; a bare string names one.

    ``default``: the name that may be left out; empty: any, since another section implies it.
    """
    models = []
    for name, cls in registry.items():
        hints = get_type_hints(cls)
        own: dict[str, Any] = {"name": (Literal[name], name if default in (name, "") else ...)}
        for f in fields(cls):  # YAML has lists where a frozen dataclass has tuples
            own[f.name] = hints[f.name], list(f.default) if isinstance(f.default, tuple) else f.default
        models.append(
            create_model(
                f"{cls.__name__}Config",
                __base__=Section,
                __doc__=(cls.__doc__ or "").split("\n")[0],
                **own,
                **(extra or {}),
            )
        )

    def named(value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        return {"name": default} | value if isinstance(value, dict) else value

    union: Any = functools.reduce(operator.or_, models)
    short = _ShortForms(list(registry), optional=not default)
    return Annotated[Annotated[union, Field(discriminator="name")], BeforeValidator(named), short]


_HIDDEN = tuple(name for name, a in ACTIVATIONS.items() if not a.output_only)
_ActivationName = Literal[_HIDDEN]  # type: ignore[valid-type]


def _activation_parameters() -> dict[str, Any]:
    """A field for each parameter of an activation of hidden layers, which says whose it is."""
    owners: dict[str, list[str]] = {}
    for name in _HIDDEN:
        for parameter, _ in ACTIVATIONS[name].parameters:
            owners.setdefault(parameter, []).append(name)
    return {
        parameter: (float | None, Field(None, description=f"{' and '.join(names)} only"))
        for parameter, names in owners.items()
    }


_ActivationChoice: Any = create_model(
    "ActivationConfig",
    __base__=Section,
    __doc__="An activation with its parameter.",
    name=(_ActivationName, ...),
    **_activation_parameters(),
)


class DataConfig(Section):
    """Where rows come from, how they are encoded and how they are divided."""

    source: str = Field("breast_cancer", description="a built-in set, a file by its suffix, or - for standard input")
    task: Literal["auto", "binary", "multiclass", "multilabel", "regression", "count"] = Field(
        "auto", description="auto: as the target suggests, which is said when it is read"
    )
    target: str | int | list[str | int] | None = Field(
        None, description="CSV: column name(s) or position(s); .npy: file"
    )
    columns: list[str] | None = Field(None, description="CSV: feature columns; default all but the target")
    ignore: list[str] = Field([], description="CSV: columns to leave out")
    categorical: Literal["auto"] | list[str] = Field(
        "auto", description="CSV: columns that hold categories; a list: the others must be numbers or dates"
    )
    types: dict[str, Literal[TYPES]] = Field(  # type: ignore[valid-type]
        {}, description="CSV: what columns are read as; others as their cells suggest"
    )
    max_categories: int = Field(100, ge=1, description="a column with more different texts is an error")
    delimiter: str | None = Field(
        None, min_length=1, max_length=1, description="CSV: what separates cells; default: as the file suggests"
    )
    quote: str | None = Field(None, max_length=1, description='CSV: default: as the file suggests; "": none')
    encoding: str | None = Field(None, description="CSV: default: UTF-8, or as the file suggests")
    decimal: Literal[".", ","] | None = Field(None, description="CSV: the mark, where a cell may mean two numbers")
    thousands: Literal[THOUSANDS] | None = Field(  # type: ignore[valid-type]
        None, description="CSV: the mark between thousands, where a cell may mean two numbers"
    )
    comment: str | None = Field(None, min_length=1, max_length=1, description="CSV: lines that begin so are left out")
    day_first: bool | None = Field(None, description="CSV: whether 03/04/2024 is in April")
    header: bool | None = Field(None, description="CSV: false: there is none")
    na_values: list[str] = Field([], description="CSV: cells that stand for no value, beside NA, null, -, ...")
    in_memory: bool | None = Field(
        None,
        description=".npy, Parquet, Arrow: false: batches are read from files, or a folder of them, as they are used;"
        " default: if the rows of a .npy would take more than half of the available memory",
    )
    options: dict[str, int | float] = Field({}, description="parameters of the generated sets moons and regression")
    missing: Literal["mean", "median", "indicator"] | None = Field(
        None, description="how gaps are filled; none: an error"
    )
    unknown: Literal["error", "ignore", "missing"] = Field(
        "error", description="a category that training did not see; ignore: all zeros; missing: as a gap"
    )
    missing_columns: Literal["error", "fill"] = Field(
        "error", description="a file to predict that lacks a column; fill: its cells are gaps"
    )
    extra_columns: Literal["ignore", "error"] = Field(
        "ignore", description="a file to predict that has columns which the training file did not have"
    )
    positive: str | int | None = Field(
        None, description="of two classes, the one that f1, thresholds and costs are about; default: the second"
    )
    weight_column: str | None = Field(None, description="CSV: how much each row counts; .npz: an array")
    standardize: bool | Literal["robust"] = Field(
        True, description="numeric inputs: mean 0 and deviation 1; robust: median, quartiles, clipped at 3"
    )
    piecewise_linear: int = Field(
        0, ge=0, le=1024, description="bins of each number's piecewise-linear encoding beside it; 0: none"
    )
    standardize_target: bool | None = Field(None, description="regression only; default there: true")
    group_column: str | None = Field(
        None, description="rows of a group are in one part: train, validation or test (CSV; .npz: an array)"
    )
    time_column: str | None = Field(
        None, description="the last rows by this column are tested on, those before chosen by"
    )
    split_column: str | None = Field(
        None, description="a column that says train, validation or test, or names the folds"
    )
    folds: int | None = Field(
        None, ge=2, description="cross-validate: train so many times more, each row tested on once"
    )
    validation: float = Field(0.15, ge=0.0, lt=1.0, description="share of rows to choose the best epoch by")
    test: float = Field(0.15, ge=0.0, lt=1.0, description="share of rows that only the last score sees")

    def reading(self) -> ReadSettings:
        """How a file of text is read."""
        return ReadSettings(**{field.name: getattr(self, field.name) for field in fields(ReadSettings)})


class PeriodicConfig(Section):
    """Periodic embeddings of numeric columns: [x, V cos(2 pi w x + b) + c]."""

    frequencies: int = Field(16, ge=1, description="waves of each column")
    outputs: int = Field(3, ge=1, description="numbers that they are mixed to")
    sigma: float = Field(0.1, gt=0.0, description="standard deviation of the initial frequencies")


_Members: Any = Annotated[int, Field(ge=1, le=2**15)] | Literal["auto"]


class ModelConfig(Section):
    """The network between the inputs and outputs that the data gives it."""

    hidden: list[Annotated[int, Field(ge=1, le=2**20)]] = Field(
        [16, 8], max_length=1000, description="units of each hidden layer"
    )
    activation: _ActivationName | _ActivationChoice | list[_ActivationName | _ActivationChoice] = Field(
        "relu", description="of hidden layers; a list has one for each"
    )
    initializer: Literal[("auto", *INITIALIZERS)] = Field(  # type: ignore[valid-type]
        "auto", description="of the weights; auto: the one that suits the activation"
    )
    initialize_on_data: bool = Field(
        False, description="weights and biases from training rows, in the place of initializer (RealMLP)"
    )
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] | list[Annotated[float, Field(ge=0.0, lt=1.0)]] = Field(
        0.0, description="share of each hidden layer's units set to 0 in training; a list has one for each"
    )
    batch_norm: bool | list[bool] = Field(False, description="normalize hidden layers before their activation")
    parametric_activation: bool | list[bool] = Field(
        False, description="units learn how much of the activation they take: z + alpha (g(z) - z)"
    )
    input_scaling: bool = Field(False, description="multiply each input by a learnable number of its own")
    periodic_embedding: PeriodicConfig | None = Field(None, description="mixed waves of each numeric column beside it")
    members: _Members = Field(
        1, description="networks of an ensemble, trained in one step; auto: 8, of fewer than 500 rows 4"
    )
    adapters: Literal["first", "all", "none", "auto"] = Field(
        "first",
        description="layers in which members have factors of their own; none: they share no weights;"
        " auto: first, of fewer than 500 rows none",
    )

    def activation_spec(self) -> Any:
        """What DenseNet takes."""
        return self.model_dump(exclude_none=True)["activation"]


class RegularizationConfig(Section):
    """Penalties on the weights; biases are spared."""

    l1: float = Field(0.0, ge=0.0, description="times the sum of |W|")
    l2: float = Field(0.0, ge=0.0, description="times half the sum of W squared")
    penalty_over: Literal["examples", "none"] = Field(
        "examples", description="divide the penalty by the batch's m, or not"
    )
    clip_norm: float | None = Field(None, gt=0.0, description="upper limit of the gradient's global norm")


_ByRows: Any = Annotated[int, Field(ge=1)] | Literal["auto"]  # by the number of rows: ``presets.for_rows``


class EarlyStoppingConfig(Section):
    """When to stop."""

    metric: Literal[("cost", *METRICS)] = Field(  # type: ignore[valid-type]
        "cost", description="what is followed on the validation rows"
    )
    patience: _ByRows = Field(
        20, description="epochs without an improvement before training stops; auto: 20, of fewer than 500 rows 40"
    )
    min_delta: float = Field(0.0, ge=0.0, description="what counts as an improvement is more than this")


class CostConfig(Section):
    """What mistakes cost, for the threshold of two classes."""

    false_positive: float = Field(1.0, ge=0.0, description="predicting the positive class where it is not")
    false_negative: float = Field(1.0, ge=0.0, description="missing the positive class")


class TrainingConfig(Section):
    """The loop."""

    epochs: _ByRows = Field(100, description="passes over the training rows; auto: 200 to 20, fewer the more rows")
    batch_size: _ByRows = Field(32, description="examples per optimizer step; auto: 32 to 256, more the more rows")
    micro_batch: int | None = Field(
        None, ge=1, description="examples per pass; without batch_norm the gradient does not depend on it"
    )
    exact_ranks: bool = Field(
        False, description="several ranks: cut batches where native kernels give the bits of one process"
    )
    data_on: Literal["auto", "device", "host"] = Field(
        "auto", description="where the data set is stored; host: each batch is copied while the device computes"
    )
    shuffle: bool = Field(True, description="a new order of the rows each epoch")
    restore_best: bool = Field(True, description="end with the weights that were best on the validation set")
    skip_non_finite: int = Field(
        0, ge=0, description="batches that may be left out because their step would leave NaN or infinity"
    )
    layer_statistics: bool = Field(
        True, description="norms of each layer and dead units for the report, on a sample of training rows"
    )
    early_stopping: EarlyStoppingConfig | None = Field(None, description="null: all epochs are trained")
    class_weight: Literal["balanced"] | dict[str, Annotated[float, Field(ge=0.0)]] | None = Field(
        None, description="how much a row of each class counts, by its name; balanced: rare classes as much as others"
    )
    threshold: Annotated[float, Field(ge=0.0, lt=1.0)] | Literal["f1", "balanced_accuracy", "mcc"] | CostConfig = Field(
        0.5,
        description="two classes: the probability above which the positive one is predicted; a metric, or costs: the"
        " best one on validation rows",
    )
    metrics: list[Literal[tuple(METRICS)]] | None = Field(None, description="default: those of the task")  # type: ignore[valid-type]


class CheckpointConfig(Section):
    """When the state of the run is written to its folder, from where ``train --resume`` goes on."""

    every_steps: int | None = Field(None, ge=1, description="write after so many optimizer steps")
    every_epochs: int | None = Field(None, ge=1, description="write after so many epochs")
    every_seconds: float | None = Field(
        None, gt=0.0, description="write after so many seconds; default: 60, if neither steps nor epochs are given"
    )
    keep: int = Field(2, ge=1, description="how many of the newest are kept")
    keep_best: bool = Field(False, description="keep the state after the epoch that was best on validation rows too")


LEDGER = {
    "delta": (Literal["fused", "literal"], "fused"),
    "one_over_m": (Literal["early", "late"], "early"),
    "reduction": (Literal["mean", "sum"], "mean"),
}
_Factor = Annotated[float, Field(ge=0.0)]
GROUPS = {
    "learning_rate_factors": (
        dict[str, _Factor],
        Field({}, description="of tensors, by name or kind: {b: 0.1, W1: 2.0}; 0: not trained"),
    ),
    "parametrization": (
        Literal["standard", "ntk"],
        Field("standard", description="ntk: the optimizer moves V of W = V / sqrt(inputs)"),
    ),
}
ADDED: dict[str, dict[str, Any]] = {"loss": LEDGER, "optimizer": GROUPS}


LossChoice: Any = _chosen(CHOICES["loss"], "", LEDGER)
OptimizerChoice: Any = _chosen(OPTIMIZERS, "adam", GROUPS)
ScheduleChoice: Any = _chosen(SCHEDULES, "constant")
