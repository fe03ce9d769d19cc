"""Batch normalization from the configuration to the predictions of a run that was read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.runs import quick, run

from backprop_gpu.build import load
from backprop_gpu.config import validate
from backprop_gpu.errors import ConfigError


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BACKPROP_GPU_DEVICE", raising=False)


@pytest.mark.parametrize("kernels", ["auto", "reference"])
def test_a_run_with_normalized_layers_and_averaged_weights_is_read_back(kernels: str) -> None:
    outcome = run(
        "r",
        quick(
            kernels=kernels,
            verify=True,
            model={"hidden": [8, 6], "batch_norm": [True, False]},
            optimizer={"name": "adam", "learning_rate": 0.01, "average": 0.9},
            training={"epochs": 15},
        ),
    )
    net = outcome.model.net
    assert net.batch_norm == [False, True, False, False]
    assert outcome.metrics["parameters"] == 30 * 8 + 8 + 8 + 8 * 6 + 6 + 6 + 1
    assert outcome.metrics["test"]["accuracy"] > 0.9
    again = load("r", "array_api_strict:device1")
    assert again.net.spec() == net.spec()
    table = again.read("breast_cancer")
    np.testing.assert_allclose(again.predict_proba(table), outcome.model.predict_proba(table), rtol=1e-4, atol=1e-6)
    assert net.parameters()["variance1"].std() > 0.0


def test_settings_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"model.batch_norm lists 1, model.hidden has 2 layers"):
        validate({"model": {"hidden": [4, 3], "batch_norm": [True]}})
    with pytest.raises(ConfigError, match=r"model.batch_norm"):
        validate({"model": {"batch_norm": 1}})
