"""The grammar of device names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backprop_gpu.devices import ENVIRONMENT_VARIABLE, DeviceSpec, one_line, parse, requested
from backprop_gpu.errors import DeviceError

CANONICAL = {
    "auto": "auto",
    "cpu": "numpy",
    "numpy": "numpy",
    "cuda": "cupy:0",
    "cuda:1": "cupy:1",
    "cuda:01": "cupy:1",
    "cupy": "cupy:0",
    "cupy:12": "cupy:12",
    "torch": "torch:cpu",
    "torch:cpu": "torch:cpu",
    "torch:cuda": "torch:cuda:0",
    "torch:cuda:1": "torch:cuda:1",
    "torch:mps": "torch:mps",
    "array_api_strict": "array_api_strict:CPU_DEVICE",
    "array_api_strict:device1": "array_api_strict:device1",
    " cpu ": "numpy",
}


@pytest.mark.parametrize(("text", "canonical"), CANONICAL.items())
def test_names_have_one_canonical_form(text, canonical):
    assert str(parse(text)) == canonical
    assert parse(canonical) == parse(text)


def test_spec_parts():
    assert parse("cuda:3") == DeviceSpec("cupy", "3")
    assert parse("cpu") == DeviceSpec("numpy", None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gpu", "write 'cuda'"),
        ("GPU:1", "write 'cuda:1'"),
        ("numpi", "did you mean 'numpy'?"),
        ("CUDA", "did you mean 'cuda'?"),
        ("tourch:cpu", "did you mean 'torch'?"),
        ("jax", "use one of auto, cpu, cuda"),
        ("", "use one of auto, cpu, cuda"),
        (":1", "use one of auto, cpu, cuda"),
        ("cuda:", "write cuda:0"),
        ("cuda:x", "write cuda:0"),
        ("cuda:-1", "write cuda:0"),
        ("cuda:1:2", "write cuda:0"),
        ("cuda:²", "write cuda:0"),
        ("cuda:" + "9" * 5000, "write cuda:0"),
        ("cpu:0", "write cpu"),
        ("numpy:cpu", "write numpy"),
        ("auto:0", "write auto"),
        ("torch:", "write torch:cpu"),
        ("torch:CPU", "write torch:cpu"),
        ("array_api_strict:a b", "array_api_strict:device1"),
        (0, "named by a text"),
        (None, "named by a text"),
    ],
)
def test_anything_else_is_one_clear_line(text, says):
    with pytest.raises(DeviceError) as caught:
        parse(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(alphabet=":0123456789acdegioptruy_ \n", max_size=20) | st.text(max_size=20))
def test_any_text_is_read_or_refused(text):
    try:
        spec = parse(text)
    except DeviceError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert parse(str(spec)) == spec


def test_requested_prefers_the_argument(monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "cuda:1")
    assert str(requested("cpu")) == "numpy"
    assert requested(DeviceSpec("torch", "cpu")) == DeviceSpec("torch", "cpu")
    assert str(requested()) == "cupy:1"


@pytest.mark.parametrize("value", [None, "", "  "])
def test_requested_is_auto_without_the_variable(monkeypatch, value):
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, value)
    assert str(requested()) == "auto"


def test_a_wrong_variable_is_named(monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "gpu")
    with pytest.raises(DeviceError, match=r"environment variable BACKPROP_GPU_DEVICE: .*write 'cuda'"):
        requested()


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("short"), "ValueError: short"),
        (ValueError(), "ValueError"),
        (RuntimeError("\n====\n  first words\nmore\n"), "RuntimeError: first words"),
        (ImportError("=====\nFailed.\n\nOriginal error:\n  ImportError: libx.so.1: no such file\n====="),
         "ImportError: libx.so.1: no such file"),
        (RuntimeError("cudaErrorUnknown: unknown error"), "RuntimeError: cudaErrorUnknown: unknown error"),
    ],
)  # fmt: skip
def test_one_line(error, line):
    assert one_line(error) == line


def test_one_line_is_cut():
    assert one_line(ValueError("x" * 1000), limit=50) == "ValueError: " + "x" * 47 + "..."
