"""The configuration file: safe YAML into closed models, with errors that say what was meant.

Every section mirrors one constructor; optimizers, schedules and losses are generated from the dataclasses of ``maths``,
so that a parameter exists in one place.
"""

from __future__ import annotations

import functools
import operator
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from .devices import ENVIRONMENT_VARIABLE
from .devices import parse as parse_device
from .errors import BackpropError, ConfigError, did_you_mean
from .maths.activations import ACTIVATIONS, get_activation
from .maths.initializers import INITIALIZERS
from .maths.losses import LOSSES, get_loss
from .maths.optimizers import OPTIMIZERS, get_optimizer
from .maths.schedules import SCHEDULES, get_schedule
from .safe_yaml import parse_yaml
from .training.metrics import METRICS

DEFAULT = "breast_cancer"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _chosen(registry: Mapping[str, type], default: str, extra: dict[str, Any] | None = None) -> Any:
    """A union of models, one per entry of a registry, told apart by ``name``; a bare string names one."""
    models = []
    for name, cls in registry.items():
        hints = get_type_hints(cls)
        own: dict[str, Any] = {"name": (Literal[name], name)}
        own |= {f.name: (hints[f.name], f.default) for f in fields(cls)}
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
    return Annotated[Annotated[union, Field(discriminator="name")], BeforeValidator(named)]


_HIDDEN = tuple(name for name, a in ACTIVATIONS.items() if not a.output_only)
_ActivationName = Literal[_HIDDEN]  # type: ignore[valid-type]


class ActivationConfig(_Section):
    """An activation with its parameter."""

    name: _ActivationName
    slope: float | None = Field(None, description="leaky_relu only")
    alpha: float | None = Field(None, description="elu only")

    def spec(self) -> dict[str, Any]:
        """What ``maths.activations.get_activation`` takes."""
        return self.model_dump(exclude_none=True)


class DataConfig(_Section):
    """Where rows come from, how they are encoded and how they are divided."""

    source: str = Field("breast_cancer", description="a built-in set, or a .npz, .npy, .csv or .tsv file")
    task: Literal["binary", "multiclass", "multilabel", "regression", "count"] = "binary"
    target: str | int | list[str | int] | None = Field(
        None, description="CSV: column name(s) or position(s); .npy: file"
    )
    columns: list[str] | None = Field(None, description="CSV: feature columns; default all but the target")
    ignore: list[str] = Field([], description="CSV: columns to leave out")
    categorical: Literal["auto"] | list[str] = Field("auto", description="CSV: columns that hold categories")
    delimiter: str | None = Field(None, min_length=1, max_length=1)
    options: dict[str, int | float] = Field({}, description="parameters of the generated sets moons and regression")
    missing: Literal["mean", "median", "indicator"] | None = Field(
        None, description="how gaps are filled; none: an error"
    )
    unknown: Literal["error", "ignore"] = Field("error", description="a category that training did not see")
    standardize: bool = True
    standardize_target: bool = Field(False, description="regression only")
    validation: float = Field(0.15, ge=0.0, lt=1.0)
    test: float = Field(0.15, ge=0.0, lt=1.0)


class ModelConfig(_Section):
    """The network between the inputs and outputs that the data gives it."""

    hidden: list[Annotated[int, Field(ge=1, le=2**20)]] = Field([16, 8], max_length=1000)
    activation: _ActivationName | ActivationConfig | list[_ActivationName | ActivationConfig] = "relu"
    initializer: Literal[("auto", *INITIALIZERS)] = "auto"  # type: ignore[valid-type]
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] | list[Annotated[float, Field(ge=0.0, lt=1.0)]] = 0.0

    def activation_spec(self) -> Any:
        """What DenseNet takes."""
        plain = [a.spec() if isinstance(a, ActivationConfig) else a for a in self._activations()]
        return plain if isinstance(self.activation, list) else plain[0]

    def _activations(self) -> list[Any]:
        return self.activation if isinstance(self.activation, list) else [self.activation]


class RegularizationConfig(_Section):
    """Penalties on the weights; biases are spared."""

    l1: float = Field(0.0, ge=0.0)
    l2: float = Field(0.0, ge=0.0)
    penalty_over: Literal["examples", "none"] = Field(
        "examples", description="divide the penalty by the batch's m, or not"
    )
    clip_norm: float | None = Field(None, gt=0.0, description="upper limit of the gradient's global norm")


class EarlyStoppingConfig(_Section):
    """When to stop."""

    metric: Literal[("cost", *METRICS)] = "cost"  # type: ignore[valid-type]
    patience: int = Field(20, ge=1)
    min_delta: float = Field(0.0, ge=0.0)


class TrainingConfig(_Section):
    """The loop."""

    epochs: int = Field(100, ge=1)
    batch_size: int = Field(32, ge=1)
    micro_batch: int | None = Field(None, ge=1, description="examples per pass; the gradient does not depend on it")
    shuffle: bool = True
    restore_best: bool = Field(True, description="end with the weights that were best on the validation set")
    early_stopping: EarlyStoppingConfig | None = None
    metrics: list[Literal[tuple(METRICS)]] | None = Field(None, description="default: those of the task")  # type: ignore[valid-type]


_LEDGER = {
    "delta": (Literal["fused", "literal"], "fused"),
    "one_over_m": (Literal["early", "late"], "early"),
    "reduction": (Literal["mean", "sum"], "mean"),
}
_OF_TASK = {
    "binary": "binary_cross_entropy",
    "multilabel": "binary_cross_entropy",
    "multiclass": "categorical_cross_entropy",
    "regression": "squared_error",
    "count": "poisson",
}


_LossChoice: Any = _chosen(LOSSES, "", _LEDGER)
_OptimizerChoice: Any = _chosen(OPTIMIZERS, "adam")
_ScheduleChoice: Any = _chosen(SCHEDULES, "constant")


class Config(_Section):
    """A whole run."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="of the run folder")
    seed: int = Field(0, ge=0, lt=2**64, description="of initial weights, split, shuffles and dropout")
    device: str = "auto"
    dtype: Literal["float32", "float64"] = "float32"
    kernels: Literal["auto", "reference", "host", "compiled"] = "auto"
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    loss: _LossChoice = Field(None, description="default: that of the task")
    regularization: RegularizationConfig = RegularizationConfig()
    optimizer: _OptimizerChoice = Field("adam", validate_default=True)
    schedule: _ScheduleChoice = Field("constant", validate_default=True)
    training: TrainingConfig = TrainingConfig()

    def loss_spec(self) -> dict[str, Any]:
        """The loss alone, as ``maths.losses.get_loss`` takes it."""
        return {k: v for k, v in self.loss.model_dump().items() if k not in _LEDGER}

    def ledger(self) -> dict[str, str]:
        """``delta``, ``one_over_m`` and ``reduction``, as ``TrainingStep`` takes them."""
        return {k: getattr(self.loss, k) for k in _LEDGER}

    def to_yaml(self) -> str:
        """The whole configuration, defaults included."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True)


# -- reading ---------------------------------------------------------------------------------------------------------


def carried() -> dict[str, Path]:
    """The configurations that come with the package, by name."""
    package = Path(str(resources.files("backprop_gpu")))
    folder = package / "configs"
    if not folder.is_dir():  # a checkout: the files have one home, the folder configs/ beside the package
        folder = package.parent / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find(name_or_path: str | None) -> Path:
    """The file that a command line means: a path, or the name of a carried configuration; None is the default one.

    Raises
    ------
    ConfigError
        If there is neither.
    """
    known = carried()
    if name_or_path is None:
        return known[DEFAULT]
    if name_or_path in known and not Path(name_or_path).is_file():
        return known[name_or_path]
    path = Path(name_or_path)
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; give a .yaml file, or one of: {', '.join(known)}")
    if not path.is_file():
        raise ConfigError(f"no configuration at {path}{did_you_mean(path.stem, known)}; carried: {', '.join(known)}")
    return path


def load_config(
    name_or_path: str | None = None, overrides: list[str] | None = None, *, device: str | None = None
) -> Config:
    """Read and check a configuration.

    Parameters
    ----------
    name_or_path : str, optional
        See :func:`find`.
    overrides : list of str, optional
        ``section.key=value``, the value in YAML.
    device : str, optional
        In place of the file's; None: BACKPROP_GPU_DEVICE if it is set.

    Raises
    ------
    ConfigError
        One line for the first thing that is wrong.
    """
    path = find(name_or_path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    data = parse_yaml(text, str(path))
    for override in overrides or []:
        _override(data, override)
    device = device or os.environ.get(ENVIRONMENT_VARIABLE, "").strip()
    if device:
        data["device"] = device
    return validate(data, str(path))


def _override(data: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set takes section.key=value, such as optimizer.learning_rate=1e-3; got {text!r}")
    parsed = parse_yaml(f"value: {value}", f"--set {text}")["value"]
    for part in parts[:-1]:
        inner = data.get(part)
        if isinstance(inner, str):  # optimizer: adam, then --set optimizer.learning_rate=...
            inner = {"name": inner}
        data[part] = dict(inner) if isinstance(inner, dict) else {}
        data = data[part]
    data[parts[-1]] = parsed


def validate(data: dict[str, Any], source: str = "configuration") -> Config:
    """Check plain data against the schema, filling in what the task implies.

    Raises
    ------
    ConfigError
        One line for the first thing that is wrong.
    """
    data = dict(data)
    section = data.get("data")
    task = section.get("task", "binary") if isinstance(section, dict) else "binary"
    loss = data.get("loss")
    implied = _OF_TASK.get(task if isinstance(task, str) else "", "squared_error")
    if loss is None:
        data["loss"] = {"name": implied}
    elif isinstance(loss, dict) and "name" not in loss:
        data["loss"] = {"name": implied} | loss
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_explain(error)}") from None
    _check_together(config, source)
    return config


def _check_together(config: Config, source: str) -> None:
    """What the sections say of each other, and the values that the maths itself checks."""
    try:
        get_optimizer(config.optimizer.model_dump())
        get_schedule(config.schedule.model_dump())
        get_loss(config.loss_spec())
        specs = config.model.activation_spec()
        for spec in specs if isinstance(specs, list) else [specs]:
            get_activation(spec)
        parse_device(config.device)
    except BackpropError as error:
        raise ConfigError(f"{source}: {error}") from None
    labels, task = LOSSES[config.loss.name].labels, config.data.task
    wanted = {"binary": "binary", "multilabel": "binary", "multiclass": "classes"}.get(task, "values")
    if labels != wanted:
        fitting = [name for name, cls in LOSSES.items() if cls.labels == wanted]
        raise ConfigError(f"{source}: loss {config.loss.name!r} does not fit task {task!r}; use {' or '.join(fitting)}")
    if config.training.early_stopping is not None and config.data.validation == 0.0:
        raise ConfigError(f"{source}: early_stopping needs data.validation above 0")


def _explain(error: ValidationError) -> str:
    """The first problem, as one line with the path to it and, for an unknown key, what was probably meant."""

    def rank(problem: Any) -> tuple[bool, int, bool]:
        # Of a union every branch complains; the one that got furthest is the one that was meant.
        depth = sum(not _is_tag(str(part)) for part in problem["loc"])
        return problem["type"] != "extra_forbidden", -depth, problem["type"] != "literal_error"

    first = min(error.errors(include_url=False), key=rank)
    known = sorted(_keys_at(first["loc"][:-1]))
    where = ".".join(str(part) for part in first["loc"] if not _is_tag(str(part)))
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        return f"unknown key {where!r}{did_you_mean(key, known)}; known here: {', '.join(known)}"
    if first["type"] == "union_tag_invalid":
        given, expected = str(first["ctx"]["tag"]), first["ctx"]["expected_tags"].replace("'", "")
        return f"{where}: unknown name {given!r}{did_you_mean(given, expected.split(', '))}; known: {expected}"
    if first["type"] == "literal_error":
        expected = str(first["ctx"]["expected"]).replace("'", "")
        options = expected.replace(" or ", ", ").split(", ")
        return f"{where}: must be {expected}, got {first['input']!r}{did_you_mean(str(first['input']), options)}"
    if first["type"] == "model_type":
        return f"{where or 'the file'}: must be a section of keys and values, got {first['input']!r}"
    message = first["msg"][0].lower() + first["msg"][1:]
    return f"{where}: {message}, got {first['input']!r}"


_TAG = re.compile(r"^(?:Literal|literal|list|constrained|float|function|ActivationConfig|str$|int$)")


def _is_tag(part: str) -> bool:
    """Whether a part of an error's path is the name of a union's branch and not a key."""
    return bool(_TAG.match(part)) or part in (*OPTIMIZERS, *SCHEDULES, *LOSSES)


def _keys_at(path: tuple[int | str, ...]) -> Iterator[str]:
    """The keys that the schema knows at a path."""
    registries: dict[str, Mapping[str, type]] = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "loss": LOSSES}
    model: Any = Config
    for part in path:
        if part in registries:
            name = str(path[-1])
            yield "name"
            yield from (
                f.name for f in fields(registries[str(part)].get(name, object)) if name in registries[str(part)]
            )
            yield from _LEDGER if part == "loss" else ()
            return
        inner = model.model_fields.get(part) if isinstance(part, str) and hasattr(model, "model_fields") else None
        annotation = getattr(inner, "annotation", None)
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), model)
    yield from model.model_fields
