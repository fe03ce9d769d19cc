"""The configuration: those that are carried, what is filled in, and the schema that editors use."""

from __future__ import annotations

import inspect
import json
import math
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.json_schema import Schema

from backprop_gpu.config import DEFAULT, Config, validate
from backprop_gpu.config_reading import carried, find, load_config
from backprop_gpu.errors import ConfigError
from backprop_gpu.maths.losses import LOSSES, get_loss
from backprop_gpu.maths.optimizers import OPTIMIZERS
from backprop_gpu.maths.schedules import SCHEDULES
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.step import TrainingStep
from backprop_gpu.safe_yaml import parse_yaml
from backprop_gpu.training.early_stopping import EarlyStopping
from backprop_gpu.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[1]
CARRIED = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BACKPROP_GPU_DEVICE", raising=False)


def written(name: str) -> dict[str, Any]:
    """A carried configuration as it stands in its file."""
    return parse_yaml((ROOT / "configs" / f"{name}.yaml").read_text(encoding="utf-8"), name)


# -- the carried configurations --------------------------------------------------------------------------------------


def test_all_of_configs_is_carried() -> None:
    assert list(carried()) == CARRIED
    assert {"breast_cancer", "digits", "moons", "regression"} < set(CARRIED)
    assert find(None).stem == DEFAULT == "breast_cancer"


@pytest.mark.parametrize("name", CARRIED)
def test_a_carried_configuration_is_valid_and_says_what_it_is(name: str) -> None:
    config = load_config(name)
    assert config.name == name
    text = carried()[name].read_text(encoding="utf-8")
    assert text.startswith("# ")
    for key, value in written(name)["data"].items():
        assert getattr(config.data, key) == value


@pytest.mark.parametrize("name", CARRIED)
def test_what_is_shown_is_read_back_as_the_same(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    (tmp_path / "shown.yaml").write_text(config.to_yaml(), encoding="utf-8")
    again = load_config(str(tmp_path / "shown.yaml"))
    assert again == config
    assert again.to_yaml() == config.to_yaml()


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
TEXTS |= st.sampled_from(
    ["1e3", "010", "0o7", "1:30", "yes", "null", "~", "", "=", "<<", "2024-01-01", ".inf", "- a", "a: b"]
)


@settings(deadline=None)
@given(st.lists(TEXTS, max_size=4), TEXTS)
def test_any_column_name_survives_being_written(columns: list[str], target: str) -> None:
    config = validate({"data": {"columns": columns, "ignore": columns[:1], "target": target}})
    assert validate(parse_yaml(config.to_yaml(), "shown")) == config


@settings(deadline=None)
@given(st.floats(1e-300, 1e300), st.integers(0, 2**64 - 1))
def test_any_number_survives_being_written(rate: float, seed: int) -> None:
    config = validate({"optimizer": {"learning_rate": rate}, "seed": seed})
    again = validate(parse_yaml(config.to_yaml(), "shown"))
    assert (again.optimizer.learning_rate, again.seed) == (rate, seed)


# -- defaults --------------------------------------------------------------------------------------------------------


def test_nothing_is_a_whole_run() -> None:
    config = validate({})
    assert (config.data.source, config.data.task, config.loss.name) == (
        "breast_cancer",
        "binary",
        "binary_cross_entropy",
    )
    assert (config.optimizer.name, config.schedule.name, config.dtype, config.device) == (
        "adam", "constant", "float32", "auto",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("task", "loss"),
    [
        ("binary", "binary_cross_entropy"),
        ("multilabel", "binary_cross_entropy"),
        ("multiclass", "categorical_cross_entropy"),
        ("regression", "squared_error"),
        ("count", "poisson"),
    ],
)
@pytest.mark.parametrize("given_loss", [..., None, {"one_over_m": "late"}])
def test_the_loss_follows_from_the_task(task: str, loss: str, given_loss: Any) -> None:
    data: dict[str, Any] = {"data": {"task": task}}
    config = validate(data if given_loss is ... else data | {"loss": given_loss})
    assert config.loss.name == loss
    assert config.ledger()["one_over_m"] == ("late" if given_loss == {"one_over_m": "late"} else "early")


@pytest.mark.parametrize(
    ("section", "name", "formula"),
    [
        *(("optimizer", name, cls()) for name, cls in OPTIMIZERS.items()),
        *(("schedule", name, cls()) for name, cls in SCHEDULES.items()),
    ],
)
def test_a_choice_has_the_defaults_of_its_formula(section: str, name: str, formula: Any) -> None:
    of_groups = {"learning_rate_factors": {}, "parametrization": "standard"} if section == "optimizer" else {}
    for spec in (name, {"name": name}):
        filled = getattr(validate({section: spec}), section).model_dump()
        assert filled == {"name": name} | of_groups | {f.name: getattr(formula, f.name) for f in fields(formula)}


@pytest.mark.parametrize(("name", "cls"), LOSSES.items())
def test_a_loss_has_the_defaults_of_its_formula_and_of_the_step(name: str, cls: Any) -> None:
    task = {"binary": "binary", "classes": "multiclass", "values": "regression"}[cls.labels]
    config = validate({"data": {"task": task}, "loss": name})
    assert get_loss(config.loss_spec()) == cls()
    assert set(config.loss_spec()) == {"name", *(f.name for f in fields(cls))}
    for key, value in config.ledger().items():
        assert value == inspect.signature(TrainingStep).parameters[key].default


@pytest.mark.parametrize(
    ("section", "constructor"),
    [
        ("training", Trainer),
        ("regularization", TrainingStep),
        ("model", DenseNet),
        (None, DenseNet),
    ],
)
def test_a_section_has_the_defaults_of_its_constructor(section: str | None, constructor: Any) -> None:
    config = validate({})
    values = config.model_dump() if section is None else config.model_dump()[section]
    parameters = inspect.signature(constructor).parameters
    shared = [key for key in values if key in parameters and key not in ("loss", "device", "metrics")]
    assert len(shared) >= 3
    assert {key: values[key] for key in shared} == {key: parameters[key].default for key in shared}


def test_early_stopping_has_the_defaults_of_its_class() -> None:
    config = validate({"training": {"early_stopping": {}}})
    assert config.training.early_stopping is not None
    assert config.training.early_stopping.model_dump() == {f.name: f.default for f in fields(EarlyStopping)}
    assert all(f.default is not MISSING for f in fields(EarlyStopping))


# -- the schema for editors ------------------------------------------------------------------------------------------

SCHEMA = Schema(Config.model_json_schema())


def test_the_schema_is_a_schema() -> None:
    assert SCHEMA.faults() == []
    assert json.loads(json.dumps(SCHEMA.root)) == SCHEMA.root


@pytest.mark.parametrize("name", CARRIED)
def test_the_schema_accepts_a_carried_configuration(name: str) -> None:
    for data in (written(name), load_config(name).model_dump()):
        assert SCHEMA.accepts(data)
        for section, content in data.items():
            assert SCHEMA.accepts({section: content})
            assert not SCHEMA.accepts({section + "s": content})
            for key in content if isinstance(content, dict) else ():
                wrong = content | {key + "s": content[key]}
                assert not SCHEMA.accepts({section: wrong}) or (section, key) == ("data", "options")


SHORT_FORMS: list[dict[str, Any]] = [
    {},
    {"optimizer": "lion", "schedule": "step", "loss": None},
    {"optimizer": {"learning_rate": 0.1}},
    {"loss": {"delta": "literal"}},
    {"loss": "binary_cross_entropy"},
    {"model": {"activation": [{"name": "elu", "alpha": 0.5}, "relu"], "dropout": [0.1, 0]}},
    {"data": {"source": "a.csv", "target": ["a", 3], "categorical": ["b"]}},
    {"training": {"early_stopping": None, "metrics": ["f1"]}},
]


@pytest.mark.parametrize("data", SHORT_FORMS)
def test_the_schema_accepts_every_way_of_writing(data: dict[str, Any]) -> None:
    assert isinstance(validate(data), Config)
    assert SCHEMA.accepts(data)


def test_every_key_is_described_to_editors() -> None:
    named = {key for node in SCHEMA.nodes() for key in node.get("properties", {})}
    assert named > {"learning_rate", "weight_decay", "floor", "threshold", "one_over_m", "hidden", "patience", "slope"}


# -- what the sections say of each other -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"loss": "squared_error"}, ("squared_error", "binary", "binary_cross_entropy")),
        ({"data": {"task": "count"}, "loss": "huber", "training": {"metrics": ["f1"]}}, ("f1", "rmse")),
        ({"data": {"task": "multiclass"}, "loss": "binary_cross_entropy"}, ("categorical_cross_entropy",)),
        ({"training": {"early_stopping": {}}, "data": {"validation": 0}}, ("early_stopping", "data.validation")),
        ({"training": {"metrics": ["accuracy", "rmse"]}}, ("rmse", "binary", "accuracy")),
        ({"data": {"task": "multiclass"}, "training": {"metrics": ["f1"]}}, ("f1", "multiclass", "f1_macro")),
        ({"training": {"early_stopping": {"metric": "r2"}}}, ("r2", "binary")),
        ({"model": {"hidden": [4, 4, 4], "activation": ["relu"]}}, ("model.activation", "3")),
        ({"model": {"hidden": [4], "dropout": [0.1, 0.1]}}, ("model.dropout", "1")),
        ({"data": {"validation": 0.5, "test": 0.5}}, ("validation", "test", "below 1")),
        ({"data": {"standardize_target": True}}, ("standardize_target", "regression")),
        ({"model": {"activation": {"name": "relu", "slope": 0.1}}}, ("relu", "slope")),
    ],
)
def test_sections_that_do_not_fit_are_found_before_any_data_is_read(
    data: dict[str, Any], words: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(data, "a.yaml")
    message = str(caught.value)
    assert message.startswith("a.yaml: ")
    assert not [word for word in words if word not in message], message


def test_infinity_is_no_number_of_anything() -> None:
    for data in ({"regularization": {"l2": math.inf}}, {"regularization": {"clip_norm": math.inf}}):
        with pytest.raises(ConfigError, match="regularization"):
            validate(data)
