"""Model files: nothing is lost, nothing damaged is taken, a crash leaves the old file or the new one."""

from __future__ import annotations

import json
import os
import random
import signal
import stat
import struct
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_nets import rows, small_net

from backprop_gpu.errors import BackpropError, CheckpointError, ConfigError
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.model_file import FORMAT, Extras, load_model, save_model

ROOT = Path(__file__).resolve().parents[2]


def tiny() -> DenseNet:
    """Three parameters."""
    return small_net([2, 1], dtype="float32")


def assert_same_parameters(one: DenseNet, other: DenseNet) -> None:
    """Equal to the last bit, NaN and the sign of zero included."""
    for name, value in one.parameters().items():
        found = other.parameters()[name]
        assert (found.dtype, found.shape, found.tobytes()) == (value.dtype, value.shape, value.tobytes())


# --- round trips ---------------------------------------------------------------------------------------------------

NETS: dict[str, dict[str, Any]] = {
    "plain": {"sizes": [4, 5, 1]},
    "no hidden layer": {"sizes": [4, 2], "loss": "squared_error"},
    "float64": {"sizes": [3, 4, 3], "dtype": "float64", "loss": "categorical_cross_entropy"},
    "every setting": {
        "sizes": [3, 4, 5, 2],
        "activation": [{"name": "leaky_relu", "slope": 0.2}, {"name": "elu", "alpha": 0.1}],
        "loss": {"name": "huber", "threshold": 0.1},
        "dropout": [0.25, 0.1],
        "initializer": "orthogonal",
        "seed": 2**64 - 1,
    },
    "smoothed": {"sizes": [2, 3], "loss": {"name": "categorical_cross_entropy", "label_smoothing": 1.0 / 3.0}},
}


@pytest.mark.parametrize("settings", NETS.values(), ids=NETS)
@pytest.mark.parametrize(
    ("here", "there"), [("cpu", "cpu"), ("cpu", "array_api_strict:device1"), ("array_api_strict", "cpu")]
)
def test_a_network_comes_back_bit_for_bit_on_any_device(
    settings: dict[str, Any], here: str, there: str, tmp_path: Path
) -> None:
    net = small_net(**({"dtype": "float32"} | settings), device=here)
    save_model(tmp_path / "m.safetensors", net)
    loaded, extras = load_model(DenseNet, tmp_path / "m.safetensors", device=there)
    assert loaded.spec() == net.spec()
    for name in ("sizes", "activations", "loss", "dropout", "initializer", "dtype", "seed"):
        assert getattr(loaded, name) == getattr(net, name)
    assert loaded.backend.name.partition(":")[0] == {"cpu": "numpy"}.get(there, "array_api_strict")
    assert_same_parameters(net, loaded)
    assert (extras.tensors, extras.meta) == ({}, {})
    X = rows(net.sizes[0])
    np.testing.assert_allclose(loaded.predict_proba(X), net.predict_proba(X), rtol=1e-5)
    if here == there:
        np.testing.assert_array_equal(loaded.predict_proba(X), net.predict_proba(X))


def test_special_numbers_come_back(tmp_path: Path) -> None:
    net = tiny()
    special = np.array([[-0.0, np.nan]], dtype=np.float32)
    net.set_parameters({"W1": special, "b1": np.array([[np.float32(1e-45)]])})
    save_model(tmp_path / "m", net)
    assert_same_parameters(net, load_model(DenseNet, tmp_path / "m", device="cpu")[0])


TENSORS = {
    "scalar": np.array(3.25),
    "empty": np.zeros((0, 3)),
    "bool": np.array([True, False]),
    "int8": np.arange(-3, 3, dtype=np.int8),
    "uint64": np.array([2**64 - 1], dtype=np.uint64),
    "float16": np.linspace(0.0, 1.0, 5, dtype=np.float16),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(12.0)[::-3],
    "big endian": np.arange(3, dtype=">f8"),
    "Ünïcode/名": np.array([1, 2, 3]),
}


@pytest.mark.parametrize("name", TENSORS)
def test_extra_tensors_and_meta_come_back(name: str, tmp_path: Path) -> None:
    value = TENSORS[name]
    meta = {"columns": ["größe", "名"], "scale": [0.1, 1e-300, 3], "nested": {"yes": True, "nothing": None}}
    save_model(tmp_path / "m", tiny(), Extras({name: value, "other": np.ones(2)}, meta))
    _, extras = load_model(DenseNet, tmp_path / "m", device="cpu")
    assert list(extras.tensors) == sorted([name, "other"])
    found = extras.tensors[name]
    assert (found.dtype, found.shape) == (value.dtype.newbyteorder("="), value.shape)
    np.testing.assert_array_equal(found, value)
    assert extras.meta == meta


def test_another_safetensors_reader_reads_it(tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.numpy import load_file

    net = small_net([4, 5, 3], dtype="float32")
    save_model(tmp_path / "m.safetensors", net, Extras({"mean": np.arange(4.0)}))
    found = load_file(tmp_path / "m.safetensors")
    assert set(found) == {"W1", "b1", "W2", "b2", "mean"}
    for name, value in net.parameters().items():
        np.testing.assert_array_equal(found[name], value)
    with safe_open(tmp_path / "m.safetensors", framework="numpy") as file:
        metadata = file.metadata()
    assert metadata["format"] == FORMAT
    assert json.loads(metadata["description"])["network"] == net.spec()


def test_a_name_that_the_network_uses_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises((CheckpointError, ConfigError), match="W1"):
        save_model(tmp_path / "m", tiny(), Extras({"W1": np.ones((1, 2), np.float32)}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "value", [np.array(["text"]), np.array([1j]), np.array([None])], ids=["text", "complex", "object"]
)
def test_a_tensor_that_the_format_cannot_hold_is_one_line(value: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="columns") as caught:
        save_model(tmp_path / "m", tiny(), Extras({"columns": value}))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


# --- damage --------------------------------------------------------------------------------------------------------


def assert_rejected(path: Path, message: str = ".") -> None:
    """One line that names the file."""
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(DenseNet, path, device="cpu")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_any_flipped_byte_is_noticed(tmp_path: Path) -> None:
    save_model(tmp_path / "m", tiny(), Extras({"mean": np.arange(3.0)}, {"columns": ["größe"]}))
    whole = (tmp_path / "m").read_bytes()
    assert len(whole) < 1000  # so that every byte can be tried
    damaged = tmp_path / "damaged"
    for at in range(len(whole)):
        for flip in (0x01, 0x20, 0x80):
            damaged.write_bytes(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
            assert_rejected(damaged)


def test_damage_to_numbers_and_to_the_description_is_called_damage(tmp_path: Path) -> None:
    save_model(tmp_path / "m", tiny(), Extras({"mean": np.arange(3.0)}, {"columns": ["age"]}))
    whole = (tmp_path / "m").read_bytes()
    last_number = whole[:-1] + bytes([whole[-1] ^ 1])
    for damaged in (last_number, whole.replace(b"age", b"agf"), whole.replace(b"binary_cross", b"BINARY_cross")):
        assert damaged != whole
        (tmp_path / "damaged").write_bytes(damaged)
        assert_rejected(tmp_path / "damaged", "is damaged: its contents do not match its SHA-256 digest")


def test_a_file_cut_short_anywhere_or_with_something_behind_it_is_rejected(tmp_path: Path) -> None:
    save_model(tmp_path / "m", tiny())
    whole = (tmp_path / "m").read_bytes()
    for end in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:end])
        assert_rejected(tmp_path / "cut", "is not a readable safetensors file")
    (tmp_path / "cut").write_bytes(whole + b"\0")
    assert_rejected(tmp_path / "cut")


def test_files_of_other_kinds(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    assert_rejected(tmp_path / "absent.safetensors", "no model file at")
    assert_rejected(tmp_path, "no model file at")
    (tmp_path / "text").write_text("epochs: 10\n" * 100, encoding="utf-8")
    assert_rejected(tmp_path / "text", "is not a readable safetensors file")
    save_file({"W1": np.ones((1, 2), np.float32)}, tmp_path / "foreign", {"format": "pt"})
    assert_rejected(tmp_path / "foreign", r"is not a backprop_gpu model \(format 'pt', want 'backprop_gpu/1'\)")
    save_file({"W1": np.ones((1, 2), np.float32)}, tmp_path / "bare")
    assert_rejected(tmp_path / "bare", "is not a backprop_gpu model")


@pytest.mark.parametrize(("dtype", "size"), [("BF16", 2), ("F8_E4M3", 1)])
def test_a_foreign_file_with_numbers_that_numpy_does_not_have(dtype: str, size: int, tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": dtype, "shape": [4], "data_offsets": [0, 4 * size]}}).encode()
    (tmp_path / "m").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4 * size))
    assert_rejected(tmp_path / "m")


def whole_but_different(path: Path, description: Any, tensors: dict[str, np.ndarray]) -> None:
    """A file with a right digest whose contents another version might have written."""
    from safetensors.numpy import save_file

    from backprop_gpu.tensor_file import digest

    text = json.dumps(description)
    save_file(tensors, path, {"format": FORMAT, "description": text, "sha256": digest(tensors, text)})


def test_a_file_of_another_version_is_named_as_such(tmp_path: Path) -> None:
    net = tiny()
    tensors = {k: np.ascontiguousarray(v) for k, v in net.parameters().items()}
    right = {"network": net.spec(), "extras": {}}
    whole_but_different(tmp_path / "m", right, tensors)
    assert_same_parameters(
        net, load_model(DenseNet, tmp_path / "m", device="cpu")[0]
    )  # the helper writes what is readable
    different: list[tuple[Any, dict[str, np.ndarray]]] = [
        ([1, 2], tensors),
        ({"network": net.spec()}, tensors),
        ({"extras": {}}, tensors),
        ({"network": net.spec() | {"layer_norm": True}, "extras": {}}, tensors),
        ({"network": net.spec() | {"loss": "hinge"}, "extras": {}}, tensors),
        ({"network": net.spec() | {"sizes": [2, 0]}, "extras": {}}, tensors),
        (right, {"W1": tensors["W1"]}),
        (right, tensors | {"W1": np.ones((3, 3), np.float32)}),
    ]
    for description, other in different:
        whole_but_different(tmp_path / "m", description, other)
        assert_rejected(tmp_path / "m", "was written by another version of backprop_gpu")


def test_an_unknown_device_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    save_model(tmp_path / "m", tiny())
    with pytest.raises(BackpropError, match="there is no device 'gpu9'") as caught:
        load_model(DenseNet, tmp_path / "m", device="gpu9")
    assert not isinstance(caught.value, CheckpointError)


def test_the_kernels_may_be_chosen(tmp_path: Path) -> None:
    net = tiny()
    save_model(tmp_path / "m", net)
    loaded, _ = load_model(DenseNet, tmp_path / "m", "cpu", kernels="reference")
    assert (loaded.kernels_kind, type(loaded.kernels).__name__) == ("reference", "ReferenceKernels")
    assert_same_parameters(net, loaded)
    with pytest.raises(BackpropError, match="kernels 'fast' do not run on numpy") as caught:
        load_model(DenseNet, tmp_path / "m", "cpu", kernels="fast")
    assert not isinstance(caught.value, CheckpointError)


# --- writing -------------------------------------------------------------------------------------------------------


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path, reason in (
        (tmp_path / "absent" / "m", "No such file"),
        (tmp_path / "file" / "m", "Not a directory|No such file"),
        (tmp_path / "folder", "Is a directory|Access is denied|Permission denied"),
    ):
        with pytest.raises(CheckpointError, match=f"cannot write .*({reason})") as caught:
            save_model(path, tiny())
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder"]  # and nothing is left behind


posix = pytest.mark.skipif(os.name == "nt", reason="users, limits and signals as POSIX has them")


@posix
def test_a_folder_without_permission_to_write(tmp_path: Path) -> None:
    path, net = tmp_path / "m", tiny()  # built now: another user may not read the package
    save_model(path, net)
    before, user = path.read_bytes(), os.geteuid()
    os.chmod(tmp_path, 0o555)
    try:
        if user == 0:  # permissions do not bind root
            os.seteuid(65534)
        with pytest.raises(CheckpointError, match="Permission denied"):
            save_model(path, net)
    finally:
        os.seteuid(user)
        os.chmod(tmp_path, 0o755)
    assert path.read_bytes() == before


@posix
def test_the_file_obeys_the_umask(tmp_path: Path) -> None:
    for mask, mode in ((0o022, 0o644), (0o077, 0o600)):
        previous = os.umask(mask)
        try:
            save_model(tmp_path / "m", tiny())
        finally:
            os.umask(previous)
        assert stat.S_IMODE((tmp_path / "m").stat().st_mode) == mode


def child(code: str, *arguments: Any, **options: Any) -> subprocess.Popen[str]:
    """A Python process that has what the code of these tests needs."""
    preamble = """
        import sys
        import numpy as np
        from backprop_gpu.network.dense_net import DenseNet
        from backprop_gpu.network.model_file import Extras, save_model

        def model(number):
            net = DenseNet([200, 300, 1], device="cpu")
            net.set_parameters({k: np.full(v.shape, number, v.dtype) for k, v in net.parameters().items()})
            return net
    """
    command = [sys.executable, "-c", textwrap.dedent(preamble) + textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, text=True, **options)


@posix
def test_a_disk_that_is_full_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    code = """
        import resource, signal
        from backprop_gpu.errors import CheckpointError
        save_model(sys.argv[1], model(1.0))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # writing more fails, as on a full disk
        try:
            save_model(sys.argv[1], model(2.0))
        except CheckpointError as error:
            print(error)
    """
    process = child(code, tmp_path / "m", stdout=subprocess.PIPE)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert output == f"cannot write {tmp_path / 'm'}: File too large\n"
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    assert np.all(load_model(DenseNet, tmp_path / "m", device="cpu")[0].params.W[1] == 1.0)


@posix
def test_a_process_that_is_killed_while_saving_leaves_a_whole_model(tmp_path: Path) -> None:
    code = """
        number = 0
        while True:
            number += 1
            save_model(sys.argv[1], model(number), Extras({"number": np.array([number])}))
            print(number, flush=True)
    """
    path, moment = tmp_path / "m.safetensors", random.Random(0)
    seen = set()
    for _ in range(6):
        with child(code, path, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(moment.randrange(1, 6)):  # some saves are over
                told = int(process.stdout.readline())
            time.sleep(moment.uniform(0.0, 0.01))  # and one is somewhere in its middle
            process.kill()
            told = max([told, *(int(line) for line in process.stdout.read().split("\n")[:-1])])
        assert process.returncode == -signal.SIGKILL
        net, extras = load_model(DenseNet, path, device="cpu")
        number = int(extras.tensors["number"][0])
        assert number in (told, told + 1)  # the last one that was announced, or the one after it
        assert all(np.all(value == number) for value in net.parameters().values())
        seen.add(number)
        # What a killed save leaves has a name that is never taken for a model.
        assert list(tmp_path.glob("*.safetensors")) == [path]
        assert all(p.name.startswith(".") for p in tmp_path.iterdir() if p != path)
    assert len(seen) > 1
