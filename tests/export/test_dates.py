"""Dates in exported models: read from their texts by the ONNX graph, and by the file that needs NumPy alone."""

from __future__ import annotations

import datetime
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from support.exported import bound_of, imported, run_onnx

from backprop_gpu import DenseNet, Model, Preprocessor, read_table
from backprop_gpu.data.date_text import PARTS, expand
from backprop_gpu.data.dates import DateForm
from backprop_gpu.export import to_numpy_file, to_onnx
from backprop_gpu.export.onnx_dates import days_of, parts_of
from backprop_gpu.export.onnx_graph import Graph
from backprop_gpu.export.portable import portable

DATES = {
    DateForm("ymd", "date"): ["2024-02-29", "1969/7/20", "1999.12.31", "9999-12-31"],
    DateForm("dmy", "date"): ["29.02.2024", "1/3/1968", "05-11-68", "5.11.69"],
    DateForm("mdy", "date"): ["2/29/2024", "12-31-00"],
    DateForm("ym", "date"): ["2024-02", "1969/11"],
    DateForm("compact", "date"): ["20240229", "19001231"],
    DateForm("time", "time"): ["23:59:59,5", "0:00", "12:30 am", "12:30:01PM"],
    DateForm("time", "time", True): ["23:59Z", "0:00 +05:30", "12:30-0800"],
    DateForm("ymd", "datetime"): ["2024-02-29", "2024-02-29T23:59:60", "1969-07-20 20:17:40.123456"],
    DateForm("dmy", "datetime"): ["29.02.2024, 24:00", "1/3/68 1:05 pm"],
    DateForm("ymd", "datetime", True): ["2024-02-29T01:00:00+0200", "1969-07-20 20:17 UTC", "2024-01-01t00:00:00.5-11"],
    DateForm("name", "date"): ["2024-02-29"],
}
NO_DATES = {
    DateForm("ymd", "date"): ["2023-02-29", "2024-13-01", "2024-01-32", "29.02.2024", "2024-01-01 12:00", "soon"],
    DateForm("dmy", "date"): ["31.04.2024", "2024-01-01", "1/2.2024"],
    DateForm("time", "time"): ["24:60", "13:00 pm", "12:00Z"],
    DateForm("ymd", "datetime", True): ["2024-01-01 12:00", "2024-01-01 12:00 CET"],
    DateForm("compact", "date"): ["20240230", "2024013"],
}


def graph_of_dates(form: DateForm) -> onnxruntime.InferenceSession:
    """A graph that makes days since 1970 and the parts of a date of texts."""
    g = Graph()
    days = days_of(g, g.input("when", "STRING", 1), form, "when")
    found = g.join([days, *parts_of(g, days, form.parts)])
    g.output("found", found, "DOUBLE", 1 + len(PARTS[form.parts]))
    onnx.checker.check_model(g.model(), full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(g.model().SerializeToString(), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("form", DATES, ids=str)
def test_dates_are_read_by_the_graph_as_by_this_package(form: DateForm) -> None:
    session, texts = graph_of_dates(form), DATES[form]
    (got,) = session.run(None, {"when": np.array([[text] for text in [*texts, "", "NaT"]], object)})
    read = form if form.order != "name" else DateForm("ymd", "date")  # names of months are written as numbers there
    days = np.array([*map(read.parse, texts), math.nan, math.nan])
    np.testing.assert_allclose(got, np.column_stack([days, expand(days, form.parts)]), rtol=1e-15, atol=1e-12)
    for text in NO_DATES.get(form, []):
        with pytest.raises(ValueError, match=r"."):
            form.parse(text)
        with pytest.raises(
            onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException, match="'when': a text that is"
        ):
            session.run(None, {"when": np.array([["soon" if text == "" else text]], object)})


@pytest.mark.parametrize("scaling", [{}, {"standardize": "robust", "piecewise_linear": 4}], ids=["plain", "preset"])
def test_a_model_of_a_csv_with_dates_predicts_from_its_texts(scaling: dict[str, Any], tmp_path: Path) -> None:
    when = [f"{1 + i % 28}.{1 + i % 12}.{1960 + i}, {i % 24}:30" if i % 9 else "" for i in range(90)]
    y = np.arange(90) % 4
    (tmp_path / "rows.csv").write_text("when;y\n" + "".join(f"{w};{v}\n" for w, v in zip(when, y, strict=True)))
    table = read_table(str(tmp_path / "rows.csv"), target="y")
    p = Preprocessor.fit(table, task="regression", missing="indicator", **scaling)
    made = Model(DenseNet([len(p.feature_names), 4, 1], loss="squared_error", device="cpu"), p)
    to_onnx(made, tmp_path / "model.onnx")
    to_numpy_file(made, tmp_path / "model.py")
    want, bound = bound_of(portable(made), p.transform(table, "float64"))
    found = run_onnx(tmp_path / "model.onnx", {"when": np.array(when, object)[:, None]})["value"]
    for got in (found, imported(tmp_path / "model.py").outputs({"when": when}), made.predict_proba({"when": when})):
        assert np.all(np.abs(got - want) <= bound)
    moment = {"when": [datetime.datetime(2024, 2, 29, 12, 30), np.datetime64("1969-07-20T20:17"), None]}
    np.testing.assert_allclose(imported(tmp_path / "model.py").predict(moment), made.predict(moment), rtol=1e-5)
