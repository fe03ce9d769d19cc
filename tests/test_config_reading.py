"""Which file is read, what overrides it, and who chooses the device."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from backprop_gpu.config import Config
from backprop_gpu.config_reading import load_config
from backprop_gpu.errors import BackpropError, ConfigError


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BACKPROP_GPU_DEVICE", raising=False)


# -- overrides -------------------------------------------------------------------------------------------------------


def set_on(name: str | None, *overrides: str) -> Config:
    return load_config(name, list(overrides))


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("seed=7", "seed", 7),
        ("optimizer.learning_rate=1e-3", "optimizer.learning_rate", 1e-3),
        ("optimizer.learning_rate=5E-2", "optimizer.learning_rate", 0.05),
        (" optimizer.learning_rate = 2 ", "optimizer.learning_rate", 2.0),
        ("model.hidden=[64, 32]", "model.hidden", [64, 32]),
        ("model.hidden=[]", "model.hidden", []),
        ("model.dropout=0.5", "model.dropout", 0.5),
        ("training.early_stopping.patience=3", "training.early_stopping.patience", 3),
        ("training.early_stopping={patience: 4}", "training.early_stopping.patience", 4),
        ("training.micro_batch=null", "training.micro_batch", None),
        ("training.shuffle=false", "training.shuffle", False),
        ("schedule=constant", "schedule.name", "constant"),
        ("schedule.floor=0.1", "schedule.floor", 0.1),
        ("optimizer.name=lion", "optimizer.name", "lion"),
        ("optimizer=sgd", "optimizer.learning_rate", 1e-2),
        ("data.delimiter=';'", "data.delimiter", ";"),
        ("data.source=größe=1.csv", "data.source", "größe=1.csv"),
        ("device=array_api_strict:device1", "device", "array_api_strict:device1"),
    ],
)
def test_an_override_replaces_one_value(override: str, path: str, value: Any) -> None:
    found: Any = set_on(None, override)
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value
    assert type(found) is type(value)


def test_overrides_leave_the_rest_as_it_was() -> None:
    before, after = load_config("digits").model_dump(), set_on("digits", "optimizer.learning_rate=1").model_dump()
    assert after.pop("optimizer") == before.pop("optimizer") | {"learning_rate": 1.0}
    assert after == before


def test_later_overrides_win_and_build_on_earlier_ones() -> None:
    assert set_on(None, "seed=1", "seed=2").seed == 2
    config = set_on(None, "optimizer=momentum", "optimizer.momentum=0.5", "optimizer.variant=average")
    assert config.optimizer_spec() == {
        "name": "momentum", "learning_rate": 0.01, "average": 0.0, "momentum": 0.5, "variant": "average",
    }  # fmt: skip


def test_a_word_that_names_a_choice_can_be_gone_into(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("optimizer: adam\nschedule: cosine\n")
    config = set_on(str(tmp_path / "a.yaml"), "optimizer.learning_rate=1e-3", "schedule.floor=0.5")
    assert (config.optimizer.name, config.optimizer.learning_rate) == ("adam", 1e-3)
    assert (config.schedule.name, config.schedule.floor) == ("cosine", 0.5)


@pytest.mark.parametrize("override", ["", "seed", "=3", ".=3", "a..b=3", "optimizer.=3", "seed 3"])
def test_an_override_without_key_and_value_says_how_one_looks(override: str) -> None:
    with pytest.raises(ConfigError, match=r"--set takes section\.key=value, such as optimizer\.learning_rate=1e-3"):
        set_on(None, override)


def test_an_override_that_is_no_yaml_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^--set seed=\[1"):
        set_on(None, "seed=[1")


def test_a_wrong_override_is_blamed_and_not_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("seed: 3\n")
    path, rate = str(tmp_path / "a.yaml"), "optimizer.learning_rate=0.1"
    for wrong in ("model.hiden=[4]", "seed=x", "data.task=regresion", "training.metrics=[rmse]", "loss=squared_error"):
        with pytest.raises(ConfigError, match=rf"^--set {re.escape(wrong)}: (?!.*a\.yaml)"):
            load_config(path, [rate, wrong, "model.hidden=[3]"])
    (tmp_path / "a.yaml").write_text("model: {hiden: [4]}\n")
    with pytest.raises(ConfigError, match=r"a\.yaml: unknown key 'model.hiden'"):
        load_config(path, [rate])


# -- the name of the run ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["data.source=deep/My shop (2).csv"], "My-shop-2"),
        (["data={source: moons}"], "moons"),
        (["data.source=größe.npz"], "gr-e"),
        (["data.source=日本.csv"], "run"),
        (["name=mine", "data.source=shop.csv"], "mine"),
        (["data.source=shop.csv", "name=mine"], "mine"),
        (["data.test=0.1"], "breast_cancer"),
    ],
)
def test_a_run_on_other_data_is_named_after_them(overrides: list[str], name: str) -> None:
    assert set_on(None, *overrides).name == name


def test_a_file_that_gives_no_name_is_that_of_its_data(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("data: {source: shop.csv, target: y}\n")
    assert load_config(str(tmp_path / "a.yaml")).name == "shop"


# -- finding the file ------------------------------------------------------------------------------------------------


def test_a_file_wins_over_a_carried_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config("digits").data.source == "digits"
    Path("digits").write_text("name: mine\n")
    assert load_config("digits").name == "mine"


def test_what_is_not_there_is_told_with_what_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"digit.*did you mean 'digits'.*breast_cancer"):
        load_config("digit")
    with pytest.raises(ConfigError, match=r"did you mean 'moons'"):
        load_config(str(tmp_path / "mons.yaml"))
    with pytest.raises(ConfigError, match=r"is a folder"):
        load_config(str(tmp_path))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", "größe: 1".encode("latin-1"), b"name: \x80", bytes(range(256))])
def test_a_file_that_is_not_utf_8_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "junk.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(str(path))
    assert "junk.yaml" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


# -- the device ------------------------------------------------------------------------------------------------------


def test_who_chooses_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--device, then --set device, then the variable, then the file."""
    (tmp_path / "a.yaml").write_text("device: torch:cpu\n")
    path = str(tmp_path / "a.yaml")
    assert load_config(path).device == "torch:cpu"
    monkeypatch.setenv("BACKPROP_GPU_DEVICE", "array_api_strict")
    assert load_config(path).device == "array_api_strict"
    assert load_config(path, ["device=cpu"]).device == "cpu"
    assert load_config(path, ["device=cpu"], device="numpy").device == "numpy"


def test_a_wrong_device_is_blamed_on_where_it_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.yaml").write_text("device: gpu\n")
    with pytest.raises(ConfigError, match=r"a\.yaml: there is no device 'gpu': write 'cuda'"):
        load_config(str(tmp_path / "a.yaml"))
    with pytest.raises(BackpropError, match=r"^there is no device 'nump'"):
        load_config(None, device="nump")
    monkeypatch.setenv("BACKPROP_GPU_DEVICE", "nump")
    with pytest.raises(BackpropError, match=r"^environment variable BACKPROP_GPU_DEVICE: there is no device 'nump'"):
        load_config(None)
