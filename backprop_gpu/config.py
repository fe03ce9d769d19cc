"""The configuration of a whole run: closed models, with errors that say what was meant.

Its sections are in :mod:`backprop_gpu.config_sections`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from .config_errors import explain
from .config_sections import (
    ADDED,
    GROUPS,
    LEDGER,
    CheckpointConfig,
    DataConfig,
    LossChoice,
    ModelConfig,
    OptimizerChoice,
    RegularizationConfig,
    ScheduleChoice,
    Section,
    TrainingConfig,
)
from .data.divisions import only_one
from .data.sources import TASK_OF_BUILTIN
from .data.targets import TASKS
from .devices import KERNEL_SETS, RENAMED_KERNEL_SETS
from .devices import parse as parse_device
from .errors import BackpropError, ConfigError
from .maths.activations import get_activation
from .maths.losses import LOSSES, get_loss
from .maths.optimizers import get_optimizer
from .maths.schedules import get_schedule
from .presets import PRESETS, for_rows, with_preset
from .safe_yaml import to_yaml
from .training.metrics import check_metrics
from .training.trackers import TRACKERS

DEFAULT = "breast_cancer"

_OF_TASK = {
    "auto": "auto",
    "binary": "binary_cross_entropy",
    "multilabel": "binary_cross_entropy",
    "multiclass": "categorical_cross_entropy",
    "regression": "squared_error",
    "count": "poisson",
}


class Config(Section):
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
    preset: Literal[tuple(PRESETS)] | None = Field(  # type: ignore[valid-type]
        None, description="settings that suit tables, in the place of the defaults below"
    )
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    loss: LossChoice = Field(None, description="default: that of the task")
    regularization: RegularizationConfig = RegularizationConfig()
    optimizer: OptimizerChoice = Field("adam", validate_default=True)
    schedule: ScheduleChoice = Field("constant", validate_default=True)
    training: TrainingConfig = TrainingConfig()
    checkpoint: CheckpointConfig | None = Field(CheckpointConfig(), description="null: none are written")
    track: list[Literal[TRACKERS]] = Field(  # type: ignore[valid-type]
        [], description="where each epoch's numbers go too; tensorboard: an event file in the run folder"
    )

    def loss_spec(self) -> dict[str, Any]:
        """The loss alone, as ``maths.losses.get_loss`` takes it."""
        return {k: v for k, v in self.loss.model_dump().items() if k not in LEDGER}

    def optimizer_spec(self) -> dict[str, Any]:
        """The optimizer alone, as ``maths.optimizers.get_optimizer`` takes it."""
        return {k: v for k, v in self.optimizer.model_dump().items() if k not in GROUPS}

    def parameter_groups(self) -> dict[str, Any]:
        """``learning_rate_factors`` and ``parametrization``, as ``TrainingStep`` takes them."""
        return {k: getattr(self.optimizer, k) for k in GROUPS}

    def ledger(self) -> dict[str, str]:
        """``delta``, ``one_over_m`` and ``reduction``, as ``TrainingStep`` takes them."""
        return {k: getattr(self.loss, k) for k in LEDGER}

    def with_task(self, task: str) -> Config:
        """The same configuration where ``data.task`` was ``auto`` and turned out to be this.

        Raises
        ------
        ConfigError
            If the loss or a metric is not one of that task.
        """
        data = self.model_dump()
        return check(data | {"data": data["data"] | {"task": task}})

    def for_rows(self, n: int) -> Config:
        """The same configuration where epochs, batch size, patience or members were ``auto``, for a table of n rows."""
        data = self.model_dump()
        return check(found) if (found := for_rows(data, n)) != data else self

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
    data = with_preset(data)
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
        raise ConfigError(explain(error.errors(include_url=False), data, Config, ADDED)) from None
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
        config.data.reading()
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
    for problem in (_loss_problem(config), _shape_problem(config), _data_problem(config), _class_problem(config)):
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
    for key in ("activation", "dropout", "batch_norm", "parametric_activation"):
        value = getattr(config.model, key)
        if isinstance(value, list) and len(value) != layers:
            return f"model.{key} lists {len(value)}, model.hidden has {layers} layers; list one for each, or give one"
    return _member_problem(config)


def _member_problem(config: Config) -> str:
    m = config.model
    ensemble = m.members != "auto" and m.members > 1
    normalized = any(m.batch_norm) if isinstance(m.batch_norm, list) else m.batch_norm
    if ensemble and not m.hidden:
        return "model.members share hidden layers; list one in model.hidden, or set model.members to 1"
    if ensemble and normalized:
        return "model.members cannot share a normalized layer's statistics; leave it out, or set members to 1"
    if m.initialize_on_data and normalized:
        return "model.initialize_on_data is of no use before batch_norm, which scales by itself; leave one of them out"
    if m.initialize_on_data and m.members != 1 and m.adapters != "none":
        return "model.initialize_on_data needs members that share no weights; set model.adapters: none, or leave it out"
    return ""


def _data_problem(config: Config) -> str:
    d = config.data
    if config.training.early_stopping is not None and d.validation == 0.0:
        return "early_stopping needs data.validation above 0; or set training.early_stopping: null"
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


def _class_problem(config: Config) -> str:
    d, t = config.data, config.training
    try:
        only_one(group_column=d.group_column, time_column=d.time_column, split_column=d.split_column)
    except ConfigError as error:
        return str(error)
    if d.positive is not None and d.task not in ("auto", "binary"):
        return f"data.positive names one of two classes; the task is {d.task}: leave it out"
    if t.class_weight is not None and d.task not in ("auto", "binary", "multiclass"):
        return f"training.class_weight is for classes; the task is {d.task}: leave it out"
    if t.threshold == 0.5:
        return ""
    if d.task not in ("auto", "binary") and not (d.task == "multilabel" and isinstance(t.threshold, float)):
        return f"training.threshold is for two classes; the task is {d.task}: leave it out"
    if not isinstance(t.threshold, float) and d.validation == 0.0 and d.split_column is None:
        return "training.threshold is chosen on validation rows; set data.validation above 0, or give a number"
    return ""
