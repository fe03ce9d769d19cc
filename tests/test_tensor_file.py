"""A file of tensors comes back bit for bit, or is refused in one line."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from backprop_gpu.errors import CheckpointError
from backprop_gpu.tensor_file import digest, read_tensors, write_tensors

TENSORS = {"scalar": np.array(-0.0), "Ünïcode": np.array([np.nan, np.inf]), "empty": np.zeros((0, 3), np.int8)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_tensors(tmp_path / "a.safetensors", TENSORS, '{"b": "größe"}', "form/1")
    return tmp_path / "a.safetensors"


def test_it_comes_back(path: Path) -> None:
    found, description = read_tensors(path, "form/1", "thing")
    assert description == '{"b": "größe"}'
    assert digest(found, description) == digest(TENSORS, description)
    for name, value in TENSORS.items():
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)
        np.testing.assert_array_equal(found[name], value)


def test_equal_contents_are_equal_files_and_nothing_else_is_left(path: Path) -> None:
    before = path.read_bytes()
    write_tensors(path, dict(reversed(TENSORS.items())), '{"b": "größe"}', "form/1")
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_the_safetensors_library_reads_every_type_of_number(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    kinds = [np.dtype(f"{kind}{size}") for kind in "fiu" for size in (1, 2, 4, 8) if kind + str(size) != "f1"]
    tensors = {f"x{kind}": np.arange(3).astype(kind) for kind in [*kinds, np.dtype(bool)]}
    tensors |= {"turned": np.arange(6.0).reshape(2, 3).T, "none": np.zeros((0, 2)), "one": np.array(2.5)}
    write_tensors(tmp_path / "a", tensors, "", "form/1")
    found = load_file(tmp_path / "a")
    assert found.keys() == tensors.keys()
    for name, x in tensors.items():
        assert (found[name].dtype, found[name].shape) == (x.dtype, x.shape)
        np.testing.assert_array_equal(found[name], x)


def test_the_digest_sees_names_types_shapes_values_and_the_description() -> None:
    x = np.arange(6.0)
    others = ({"y": x}, {"x": x.astype("float32")}, {"x": x.reshape(2, 3)}, {"x": -x})
    assert len({digest(tensors, "") for tensors in ({"x": x}, *others)} | {digest({"x": x}, "d")}) == 6


def test_what_cannot_be_read_is_refused(path: Path) -> None:
    for wrong, message in (
        (path.parent, "no thing file at"),
        (path.parent / "gone", "no thing file at"),
    ):
        with pytest.raises(CheckpointError, match=message):
            read_tensors(wrong, "form/1", "thing")
    with pytest.raises(CheckpointError, match=r"not a backprop_gpu thing \(format 'form/1', want 'shape/1'\)"):
        read_tensors(path, "shape/1", "thing")
    with pytest.raises(
        CheckpointError, match=r"a thing in format 'form/1', which this .* cannot read; it reads 'form/2'"
    ):
        read_tensors(path, "form/2", "thing")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="damaged"):
        read_tensors(path, "form/1", "thing")
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        read_tensors(path, "form/1", "thing")


@pytest.mark.skipif(os.name == "nt", reason="permissions as POSIX has them")
def test_others_may_read_what_the_mask_allows(path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_tensors(path, TENSORS, "", "form/1")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for target in (tmp_path / "no" / "a", tmp_path / "folder"):
        with pytest.raises(CheckpointError, match=f"cannot write {target}"):
            write_tensors(target, TENSORS, "", "form/1")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]
