"""Built-in sets, .npz and memory-mapped .npy, and the choice between the kinds of source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backprop_gpu.data import BUILTIN, load_builtin, read_table
from backprop_gpu.errors import BackpropError, ConfigError, DataError


def refusal(*args: object, error: type[Exception] = DataError, **settings: object) -> str:
    with pytest.raises(error) as caught:
        read_table(*args, **settings)  # type: ignore[arg-type]
    assert isinstance(caught.value, BackpropError)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_breast_cancer() -> None:
    table = load_builtin("breast_cancer")
    assert table.numeric.shape == (569, 30)
    assert table.numeric.dtype == np.float64
    assert table.target is not None
    assert np.bincount(table.target).tolist() == [212, 357]
    assert table.class_names == ("malignant", "benign")
    assert table.columns[0] == "mean radius"
    assert table.columns[-1] == "worst fractal dimension"
    assert table.numeric[0, :3].tolist() == [17.99, 10.38, 122.8]  # first line of wdbc.data
    assert table.target[0] == 0


def test_digits() -> None:
    table = load_builtin("digits")
    assert table.numeric.shape == (1797, 64)
    assert table.numeric.dtype == np.uint8
    assert (table.numeric.min(), table.numeric.max()) == (0, 16)
    assert table.target is not None
    assert np.bincount(table.target).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # optdigits.names
    assert table.class_names == tuple("0123456789")


def test_shipped_sets_are_those_of_scikit_learn() -> None:
    datasets = pytest.importorskip("sklearn.datasets", reason="compares the shipped sets with scikit-learn's copies")
    for name in ("breast_cancer", "digits"):
        table, theirs = load_builtin(name), getattr(datasets, f"load_{name}")()
        np.testing.assert_array_equal(table.numeric, theirs.data)
        np.testing.assert_array_equal(table.target, theirs.target)
        assert table.columns == tuple(map(str, theirs.feature_names))
        assert table.class_names == tuple(map(str, theirs.target_names))


def test_attribution_names_every_shipped_file() -> None:
    import backprop_gpu.data as data

    folder = Path(data.__file__).parent / "builtin"
    text = (folder / "ATTRIBUTION.md").read_text(encoding="utf-8")
    files = sorted(path.name for path in folder.glob("*.npz"))
    assert files == ["breast_cancer.npz", "digits.npz"]
    for word in (*files, "CC BY 4.0", "Wolberg", "Mangasarian", "Street", "Alpaydin", "Kaynak"):
        assert word in text


@pytest.mark.parametrize("name", BUILTIN)
def test_builtin_names_are_sources(name: str) -> None:
    table = read_table(name)
    assert table.source == name
    assert table.target is not None
    assert len(table.target) == table.n_samples
    assert table.named


def test_options_of_generated_sets() -> None:
    assert read_table("moons", options={"n": 11, "noise": 0.0, "seed": 3}).numeric.shape == (11, 2)
    assert load_builtin("regression", n=7, features=6).numeric.shape == (7, 6)
    assert "no option 'nois' (did you mean 'noise'?)" in refusal("moons", options={"nois": 1}, error=ConfigError)
    assert "takes no options" in refusal("digits", options={"n": 5}, error=ConfigError)


def test_npz(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    X = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.savez(path, X=X, y=np.array(["a", "b", "a"]))
    table = read_table(path)
    assert table.numeric.dtype == np.float32
    assert table.numeric.tolist() == X.tolist()
    assert (table.columns, table.named) == (("x0", "x1"), False)
    assert table.target is not None
    assert table.target.tolist() == ["a", "b", "a"]
    assert table.where(1) == f"{path}, row 1"
    np.savez(path, X=X, feature_names=np.array(["u", "v"]))
    unlabelled = read_table(path, labelled=False)
    assert (unlabelled.columns, unlabelled.named, unlabelled.target) == (("u", "v"), True, None)
    assert "no array 'y'; it holds X, feature_names" in refusal(path)


def test_npy_stays_memory_mapped(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", np.arange(50))
    table = read_table(tmp_path / "X.npy", target=str(tmp_path / "y.npy"))
    rows = np.array([7, 3, 40])
    taken = table.take(rows).take(np.array([2, 0]))
    for part in (table, taken):
        assert isinstance(part.stored, np.memmap)
    assert taken.numeric.tolist() == X[[40, 7]].tolist()
    assert taken.target is not None
    assert taken.target.tolist() == [40, 7]
    assert taken.where(0).endswith("row 40")
    assert read_table(tmp_path / "X.npy", labelled=False).target is None
    assert "target: y.npy" in refusal(tmp_path / "X.npy", error=ConfigError)
    assert "no such file" in refusal(tmp_path / "X.npy", target="absent.npy")


@pytest.mark.parametrize(
    ("arrays", "part"),
    [
        ({"X": np.zeros((3, 2))}, "no array 'y'; it holds X"),
        ({"a": np.zeros(3)}, "no array 'X'; it holds a"),
        ({"X": np.zeros(3), "y": np.zeros(3)}, "X.reshape(-1, 1)"),
        ({"X": np.zeros((3, 2, 2)), "y": np.zeros(3)}, "X.reshape(len(X), -1)"),
        ({"X": np.zeros((0, 2)), "y": np.zeros(0)}, "nothing in it"),
        ({"X": np.zeros((3, 0)), "y": np.zeros(3)}, "nothing in it"),
        ({"X": np.zeros((3, 2)), "y": np.zeros(4)}, "X has 3 rows and y has 4"),
        ({"X": np.zeros((3, 2)), "y": np.zeros((3, 1, 1))}, "y has shape (3, 1, 1)"),
        ({"X": np.zeros((3, 2)), "y": np.zeros((3, 0))}, "y has shape (3, 0)"),
        ({"X": np.zeros((3, 2), dtype=complex), "y": np.zeros(3)}, "dtype complex128"),
        ({"X": np.array([["a", "b"]] * 3), "y": np.zeros(3)}, "must hold real numbers"),
        ({"X": np.zeros((3, 2)), "y": np.zeros(3, dtype=complex)}, "y has dtype complex128"),
        ({"X": np.zeros((3, 2)), "y": np.array([None, 1, 2])}, "never unpickled"),
        ({"X": np.zeros((3, 2)), "y": np.zeros(3), "feature_names": np.array(["a"])}, "1 feature names for 2 columns"),
        ({"X": np.zeros((3, 2)), "y": np.zeros(3), "feature_names": np.array(["a", "a"])}, "must differ"),
        ({"X": np.zeros((3, 2)), "y": np.array([0, 1, 2]), "classes": np.array(["a", "b"])}, "integers from 0 to 1"),
        ({"X": np.zeros((3, 2)), "y": np.array([0, 1, -1]), "classes": np.array(["a", "b"])}, "integers from 0 to 1"),
        ({"X": np.zeros((3, 2)), "y": np.array([0.0, 1, 1]), "classes": np.array(["a", "b"])}, "integers from 0 to 1"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, arrays: dict, part: str) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    message = refusal(tmp_path / "d.npz")
    assert part in message
    assert "d.npz" in message


@pytest.mark.parametrize("name", ["d.npz", "d.npy"])
def test_damaged_files_are_refused(tmp_path: Path, name: str) -> None:
    path, whole = tmp_path / name, tmp_path / f"whole{name[1:]}"
    X = np.random.default_rng(1).normal(size=(40, 4))
    np.savez_compressed(whole, X=X, y=X[:, 0]) if name.endswith("npz") else np.save(whole, X)
    good = whole.read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2 - 200 : len(good) // 2] = b"\x55" * 200
    faults = [b"", b"no such format", good[: len(good) // 2]]
    for content in [*faults, bytes(flipped)] if name.endswith("npz") else faults:  # a bare .npy has no checksum
        path.write_bytes(content)
        assert name in refusal(path, labelled=False)
    assert "no such file" in refusal(tmp_path / f"absent{name}", labelled=False)
    assert name in refusal(_folder(tmp_path / f"folder{name}"), labelled=False)


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_one_kind_of_file_under_the_name_of_another(tmp_path: Path) -> None:
    with (tmp_path / "d.npz").open("wb") as file:
        np.save(file, np.zeros((3, 2)))
    assert "not a whole .npz file" in refusal(tmp_path / "d.npz")
    with (tmp_path / "d.npy").open("wb") as file:
        np.savez(file, X=np.zeros((3, 2)))
    assert "not a whole .npy file" in refusal(tmp_path / "d.npy", labelled=False)


def test_unknown_sources_and_settings_that_do_not_apply() -> None:
    assert "did you mean 'digits'?" in refusal("digts", error=ConfigError)
    assert ".npz, .npy, .csv, .tsv" in refusal("table.dat", error=ConfigError)
    for setting in ({"target": -1}, {"columns": ["a"]}, {"ignore": ["a"]}, {"categorical": ["a"]}, {"delimiter": ";"}):
        assert f"{next(iter(setting))} does not apply to 'digits'" in refusal("digits", error=ConfigError, **setting)
    assert "options does not apply" in refusal("d.npz", options={"n": 1}, error=ConfigError)
    assert "options does not apply" in refusal("d.npy", options={"n": 1}, error=ConfigError)
