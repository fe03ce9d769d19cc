"""What a configuration may hold: closed models, with errors that say what was meant.

Every section mirrors one constructor; optimizers, schedules and losses are generated from the dataclasses of ``maths``,
so that a parameter exists in one place.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from .config_errors import CHOICES, explain
from .data.sources import TASK_OF_BUILTIN
from .data.targets import TASKS
from .devices import KERNEL_SETS, RENAMED_KERNEL_SETS
from .devices import parse as parse_device
from .errors import BackpropError, ConfigError
from .maths.activations import ACTIVATIONS, get_activation
from .maths.initializers import INITIALIZERS
from .maths.losses import LOSSES, get_loss
from .maths.optimizers import OPTIMIZERS, get_optimizer
from .maths.schedules import SCHEDULES, get_schedule
from .safe_yaml import to_yaml
from .training.metrics import METRICS, check_metrics

DEFAULT = "breast_cancer"


class _Section(BaseModel):
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
                __base__=_Section,
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
    __base__=_Section,
    __doc__="An activation with its parameter.",
    name=(_ActivationName, ...),
    **_activation_parameters(),
)


class DataConfig(_Section):
    """Where rows come from, how they are encoded and how they are divided."""

    source: str = Field("breast_cancer", description="a built-in set, or a .npz, .npy, .csv or .tsv file")
    task: Literal["auto", "binary", "multiclass", "multilabel", "regression", "count"] = Field(
        "auto", description="auto: as the target suggests, which is said when it is read"
    )
    target: str | int | list[str | int] | None = Field(
        None, description="CSV: column name(s) or position(s); .npy: file"
    )
    columns: list[str] | None = Field(None, description="CSV: feature columns; default all but the target")
    ignore: list[str] = Field([], description="CSV: columns to leave out")
    categorical: Literal["auto"] | list[str] = Field("auto", description="CSV: columns that hold categories")
    delimiter: str | None = Field(
        None, min_length=1, max_length=1, description="CSV: what separates cells; default: as the file suggests"
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
    standardize: bool = Field(True, description="numeric inputs: mean 0 and deviation 1 on the training rows")
    standardize_target: bool | None = Field(None, description="regression only; default there: true")
    validation: float = Field(0.15, ge=0.0, lt=1.0, description="share of rows to choose the best epoch by")
    test: float = Field(0.15, ge=0.0, lt=1.0, description="share of rows that only the last score sees")


class ModelConfig(_Section):
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
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] | list[Annotated[float, Field(ge=0.0, lt=1.0)]] = Field(
        0.0, description="share of each hidden layer's units set to 0 in training; a list has one for each"
    )
    batch_norm: bool | list[bool] = Field(False, description="normalize hidden layers before their activation")

    def activation_spec(self) -> Any:
        """What DenseNet takes."""
        return self.model_dump(exclude_none=True)["activation"]


class RegularizationConfig(_Section):
    """Penalties on the weights; biases are spared."""

    l1: float = Field(0.0, ge=0.0, description="times the sum of |W|")
    l2: float = Field(0.0, ge=0.0, description="times half the sum of W squared")
    penalty_over: Literal["examples", "none"] = Field(
        "examples", description="divide the penalty by the batch's m, or not"
    )
    clip_norm: float | None = Field(None, gt=0.0, description="upper limit of the gradient's global norm")


class EarlyStoppingConfig(_Section):
    """When to stop."""

    metric: Literal[("cost", *METRICS)] = Field(  # type: ignore[valid-type]
        "cost", description="what is followed on the validation rows"
    )
    patience: int = Field(20, ge=1, description="epochs without an improvement before training stops")
    min_delta: float = Field(0.0, ge=0.0, description="what counts as an improvement is more than this")


class TrainingConfig(_Section):
    """The loop."""

    epochs: int = Field(100, ge=1, description="passes over the training rows")
    batch_size: int = Field(32, ge=1, description="examples per optimizer step")
    micro_batch: int | None = Field(
        None, ge=1, description="examples per pass; without batch_norm the gradient does not depend on it"
    )
    data_on: Literal["auto", "device", "host"] = Field(
        "auto", description="where the data set is stored; host: each batch is copied while the device computes"
    )
    shuffle: bool = Field(True, description="a new order of the rows each epoch")
    restore_best: bool = Field(True, description="end with the weights that were best on the validation set")
    skip_non_finite: int = Field(
        0, ge=0, description="batches that may be left out because their step would leave NaN or infinity"
    )
    early_stopping: EarlyStoppingConfig | None = Field(None, description="null: all epochs are trained")
    metrics: list[Literal[tuple(METRICS)]] | None = Field(None, description="default: those of the task")  # type: ignore[valid-type]


class CheckpointConfig(_Section):
    """When the state of the run is written to its folder, from where ``train --resume`` goes on."""

    every_steps: int | None = Field(None, ge=1, description="write after so many optimizer steps")
    every_epochs: int | None = Field(None, ge=1, description="write after so many epochs")
    every_seconds: float | None = Field(
        None, gt=0.0, description="write after so many seconds; default: 60, if neither steps nor epochs are given"
    )
    keep: int = Field(2, ge=1, description="how many of the newest are kept")
    keep_best: bool = Field(False, description="keep the state after the epoch that was best on validation rows too")


_LEDGER = {
    "delta": (Literal["fused", "literal"], "fused"),
    "one_over_m": (Literal["early", "late"], "early"),
    "reduction": (Literal["mean", "sum"], "mean"),
}
_Factor = Annotated[float, Field(ge=0.0)]
_GROUPS = {
    "learning_rate_factors": (
        dict[str, _Factor],
        Field({}, description="of tensors, by name or kind: {b: 0.1, W1: 2.0}; 0: not trained"),
    ),
    "parametrization": (
        Literal["standard", "ntk"],
        Field("standard", description="ntk: the optimizer moves V of W = V / sqrt(inputs)"),
    ),
}
_ADDED: dict[str, dict[str, Any]] = {"loss": _LEDGER, "optimizer": _GROUPS}
_OF_TASK = {
    "auto": "auto",
    "binary": "binary_cross_entropy",
    "multilabel": "binary_cross_entropy",
    "multiclass": "categorical_cross_entropy",
    "regression": "squared_error",
    "count": "poisson",
}


_LossChoice: Any = _chosen(CHOICES["loss"], "", _LEDGER)
_OptimizerChoice: Any = _chosen(OPTIMIZERS, "adam", _GROUPS)
_ScheduleChoice: Any = _chosen(SCHEDULES, "constant")


class Config(_Section):
    """A whole run."""

    name: str = Field(
        "run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="of the run folder; default: that of the data"
    )
    seed: int = Field(0, ge=0, lt=2**64, description="of initial weights, split, shuffles and dropout")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:1, or another array library such as torch:cpu")
    dtype: Literal["float32", "float64"] = Field("float32", description="of weights, inputs and every product")
    kernels: Literal[("auto", *KERNEL_SETS, *RENAMED_KERNEL_SETS)] = Field(  # type: ignore[valid-type]
        "auto", description="who computes a step; host, compiled and fused are old names"
    )
    verify: bool = Field(
        False, description="check a step of this network, data and device by parity before and after training"
    )
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    loss: _LossChoice = Field(None, description="default: that of the task")
    regularization: RegularizationConfig = RegularizationConfig()
    optimizer: _OptimizerChoice = Field("adam", validate_default=True)
    schedule: _ScheduleChoice = Field("constant", validate_default=True)
    training: TrainingConfig = TrainingConfig()
    checkpoint: CheckpointConfig | None = Field(CheckpointConfig(), description="null: none are written")

    def loss_spec(self) -> dict[str, Any]:
        """The loss alone, as ``maths.losses.get_loss`` takes it."""
        return {k: v for k, v in self.loss.model_dump().items() if k not in _LEDGER}

    def optimizer_spec(self) -> dict[str, Any]:
        """The optimizer alone, as ``maths.optimizers.get_optimizer`` takes it."""
        return {k: v for k, v in self.optimizer.model_dump().items() if k not in _GROUPS}

    def parameter_groups(self) -> dict[str, Any]:
        """``learning_rate_factors`` and ``parametrization``, as ``TrainingStep`` takes them."""
        return {k: getattr(self.optimizer, k) for k in _GROUPS}

    def ledger(self) -> dict[str, str]:
        """``delta``, ``one_over_m`` and ``reduction``, as ``TrainingStep`` takes them."""
        return {k: getattr(self.loss, k) for k in _LEDGER}

    def with_task(self, task: str) -> Config:
        """The same configuration where ``data.task`` was ``auto`` and turned out to be this.

        Raises
        ------
        ConfigError
            If the loss or a metric is not one of that task.
        """
        data = self.model_dump()
        return check(data | {"data": data["data"] | {"task": task}})

    def to_yaml(self) -> str:
        """The whole configuration, defaults included."""
        return to_yaml(self.model_dump())


def validate(data: dict[str, Any], source: str = "configuration") -> Config:
    """Check plain data against the schema, filling in what the task and the data imply.

    Raises
    ------
    ConfigError
        One line for the first thing that is wrong.
    """
    try:
        return check(data)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


def check(data: dict[str, Any]) -> Config:
    """:func:`validate`, with messages that do not say where the data come from."""
    data = dict(data)
    given = data.get("data", {})
    section = given if isinstance(given, dict) else {}
    source = section.get("source", DEFAULT)
    data.setdefault("name", _named_after(source))
    task = section.get("task", "auto")
    if task == "auto" and isinstance(source, str):
        task = TASK_OF_BUILTIN.get(source, "auto")
    if section is given and task in TASKS:
        data["data"] = section | {"task": task}
        if section.get("standardize_target") is None:
            data["data"]["standardize_target"] = task == "regression"
    loss = data.get("loss")
    implied = _OF_TASK.get(task if isinstance(task, str) else "", "squared_error")
    if loss is None:
        data["loss"] = {"name": implied}
    elif isinstance(loss, dict) and "name" not in loss:
        data["loss"] = {"name": implied} | loss
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(explain(error.errors(include_url=False), data, Config, _ADDED)) from None
    if config.loss.name == "auto" and task != "auto":
        config = Config.model_validate(config.model_dump() | {"loss": {"name": implied, **config.ledger()}})
    _check_together(config)
    return config


def _named_after(source: Any) -> str:
    """A name for a run: that of its file or set, with a dash for what a folder's name had better not hold."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(str(source)).stem).strip("._-")[:100] or "run"


def _check_together(config: Config) -> None:
    """What the sections say of each other, and the values that the maths itself checks."""
    try:
        get_optimizer(config.optimizer_spec())
        get_schedule(config.schedule.model_dump())
        specs = config.model.activation_spec()
        for spec in specs if isinstance(specs, list) else [specs]:
            get_activation(spec)
        parse_device(config.device)
        stopping = config.training.early_stopping
        names = [*(config.training.metrics or []), *([stopping.metric] if stopping else [])]
        if config.data.task != "auto":
            check_metrics([name for name in names if name != "cost"], config.data.task)
    except BackpropError as error:
        raise ConfigError(str(error)) from None
    try:
        if config.loss.name != "auto":
            get_loss(config.loss_spec())
    except ConfigError as error:
        raise ConfigError(f"loss: {error}") from None
    for problem in (_loss_problem(config), _shape_problem(config), _data_problem(config)):
        if problem:
            raise ConfigError(problem)


def _loss_problem(config: Config) -> str:
    if "auto" in (config.loss.name, config.data.task):
        return ""
    labels, task = LOSSES[config.loss.name].labels, config.data.task
    wanted = {"binary": "binary", "multilabel": "binary", "multiclass": "classes"}.get(task, "values")
    if labels == wanted:
        return ""
    fitting = [name for name, cls in LOSSES.items() if cls.labels == wanted]
    return f"loss {config.loss.name!r} does not fit task {task!r}; use {' or '.join(fitting)}"


def _shape_problem(config: Config) -> str:
    layers = len(config.model.hidden)
    for key in ("activation", "dropout", "batch_norm"):
        value = getattr(config.model, key)
        if isinstance(value, list) and len(value) != layers:
            return f"model.{key} lists {len(value)}, model.hidden has {layers} layers; list one for each, or give one"
    return ""


def _data_problem(config: Config) -> str:
    d = config.data
    if config.training.early_stopping is not None and d.validation == 0.0:
        return "early_stopping needs data.validation above 0"
    if config.training.metrics and d.validation == 0.0:
        return "training.metrics are computed on validation rows; set data.validation above 0, or leave them out"
    if config.checkpoint is not None and config.checkpoint.keep_best and d.validation == 0.0:
        return (
            "checkpoint.keep_best keeps what is best on validation rows; set data.validation above 0, or leave it out"
        )
    if d.validation + d.test >= 1.0:
        return f"data.validation + data.test is {d.validation + d.test:g}; it must be below 1, to leave training rows"
    if d.standardize_target and d.task not in ("auto", "regression"):
        return f"data.standardize_target is for task regression, the task is {d.task}"
    return ""
