"""The configuration file: found, read as safe YAML, overridden from the command line, checked."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Any

from .config import DEFAULT, Config, check
from .data.sources import SUFFIXES, check_readable
from .data.text_files import STANDARD_INPUT
from .devices import ENVIRONMENT_VARIABLE, requested
from .devices import parse as parse_device
from .errors import ConfigError, did_you_mean
from .safe_files import is_absent, read_text
from .safe_yaml import MAX_BYTES, parse_yaml


def carried() -> dict[str, Path]:
    """The configurations that come with the package, by name."""
    package = Path(str(resources.files("backprop_gpu")))
    folder = package / "configs"
    if not folder.is_dir():  # a checkout: the files have one home, the folder configs/ beside the package
        folder = package.parent / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find(name_or_path: str | None) -> Path:
    """The file that a command line means: a path, or the name of a carried configuration; None is the default one.

    The path may be that of a data file.

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
    if path == STANDARD_INPUT:
        return path
    check_readable(name_or_path)
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; give a .yaml file, or one of: {', '.join(known)}")
    if is_absent(path):
        raise ConfigError(
            f"no configuration at {path}{did_you_mean(path.stem, known)}; check the path,"
            f" or give one of: {', '.join(known)}"
        )
    return path


def load_config(
    name_or_path: str | None = None, overrides: list[str] | None = None, *, device: str | None = None
) -> Config:
    """Read and check a configuration.

    Parameters
    ----------
    name_or_path : str, optional
        See :func:`find`. A data file stands for a configuration of nothing but its ``data.source``.
    overrides : list of str, optional
        ``section.key=value``, the value in YAML. One of ``data.source`` makes the run's name that of the data, unless
        another gives a ``name``, and takes the place of the whole default configuration, if no other is named; so does
        one of ``preset``.
    device : str, optional
        In place of the file's. None: that of ``overrides``, else BACKPROP_GPU_DEVICE if it is set, else the file's.

    Raises
    ------
    ConfigError, DeviceError
        One line for the first thing that is wrong.
    """
    path = find(name_or_path)
    overrides = overrides or []
    keys = {override.partition("=")[0].strip() for override in overrides}
    stages = [_read(path)]  # the file, and what each override makes of it
    if name_or_path is None and keys & {"data", "data.source", "preset"}:
        stages[0] = {}  # the default configuration suits its own data, and would win over a preset
    if keys & {"data", "data.source"}:
        stages[0].pop("name", None)  # which was that of the file's own data
    for override in overrides:
        stages.append(_overridden(stages[-1], override))
    if device is None and "device" not in keys:
        device = os.environ.get(ENVIRONMENT_VARIABLE, "").strip() or None
        requested()  # blames the variable
    if device is not None:
        parse_device(device)
        stages = [stage | {"device": device} for stage in stages]
    config, problem = _attempt(stages[-1])
    if config is None:
        blamed = next(n for n, stage in enumerate(stages) if _attempt(stage)[1] == problem)
        raise ConfigError(f"{f'--set {overrides[blamed - 1]}' if blamed else path}: {problem}")
    return config


def _read(path: Path) -> dict[str, Any]:
    if path == STANDARD_INPUT or path.suffix.lower() in SUFFIXES:
        return {"data": {"source": str(path)}}
    settings = parse_yaml(read_text(path, ConfigError, MAX_BYTES), str(path))
    if not settings:  # else the default data set would be trained on
        raise ConfigError(f"{path} is empty; name the data at least, such as data: {{source: breast_cancer}}")
    return settings


def _overridden(data: dict[str, Any], text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set takes section.key=value, such as optimizer.learning_rate=1e-3; got {text!r}")
    mark = len(value) == 1 and not value.isalnum() and value != "~"  # data.delimiter=|, which is no text in YAML
    parsed = value if mark else parse_yaml(f"value: {value}", f"--set {text}")["value"]
    whole = data = dict(data)
    for part in parts[:-1]:
        inner = data.get(part)
        if isinstance(inner, str):  # optimizer: adam, then --set optimizer.learning_rate=...
            inner = {"name": inner}
        data[part] = dict(inner) if isinstance(inner, dict) else {}
        data = data[part]
    data[parts[-1]] = parsed
    return whole


def _attempt(data: dict[str, Any]) -> tuple[Config | None, str]:
    try:
        return check(data), ""
    except ConfigError as error:
        return None, str(error)
