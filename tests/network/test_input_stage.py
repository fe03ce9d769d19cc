"""What comes before the first dense layer: its formula, gradcheck, parity, files, states; without it, as it was."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.backends import Case, cases
from support.bench import same_bits

from backprop_gpu.backends.reference import ReferenceKernels
from backprop_gpu.build import prepare
from backprop_gpu.config import validate
from backprop_gpu.errors import ConfigError
from backprop_gpu.gradcheck.checking import gradcheck
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.input_stage import PeriodicEmbedding
from backprop_gpu.network.non_finite import find_non_finite
from backprop_gpu.network.plan import predict_memory, shape_step
from backprop_gpu.network.spec import described, step_spec
from backprop_gpu.network.step import TrainingStep
from backprop_gpu.parity.checking import check
from backprop_gpu.training.callbacks import Callback, Epoch
from backprop_gpu.training.trainer import Trainer

SIZES = (4, 6, 3)
RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((20, 4)), RNG.standard_normal((20, 3))
W = RNG.integers(1, 3, 20)

# Each kind of stage, with the tensors that it adds.
PERIODIC = {"frequencies": 5, "outputs": 2, "sigma": 0.3, "columns": 3}
STAGES: dict[str, dict[str, Any]] = {
    "scaling": {"input_scaling": True},
    "periodic": {"periodic_embedding": PERIODIC},
    "both": {"input_scaling": True, "periodic_embedding": PERIODIC},
}
WAVES = ["frequency0", "phase0", "mixing0", "offset0"]
TENSORS = {"scaling": ["scale0"], "periodic": WAVES, "both": ["scale0", *WAVES]}
NAMES = list(STAGES)


def net_of(stage: str, case: Case | None = None, dtype: str = "float64", **settings: Any) -> DenseNet:
    """A network whose stage has moved away from its start."""
    case = case or Case("numpy", "reference")
    given = {"activation": "tanh", "loss": "squared_error", **STAGES[stage], **settings}
    net = DenseNet(SIZES, dtype=dtype, device=case.backend, kernels=case.kind, **given)
    named = net.parameters()
    for name in TENSORS[stage]:
        named[name] = named[name] + np.random.default_rng(1).uniform(-0.5, 0.5, named[name].shape)
    net.set_parameters(named)
    return net


def test_scaling_is_a_diagonal_weight_matrix() -> None:
    """The same predictions as the network whose W1 is W1 diag(s)."""
    net = net_of("scaling")
    named = net.parameters()
    s = named.pop("scale0")
    plain = DenseNet(
        SIZES, activation="tanh", loss="squared_error", dtype="float64", device="numpy", kernels="reference"
    )
    plain.set_parameters(named | {"W1": named["W1"] * s.T})
    np.testing.assert_allclose(net.predict_proba(X), plain.predict_proba(X), rtol=1e-13)
    assert net.n_parameters == plain.n_parameters + 4
    fresh = DenseNet(
        SIZES, input_scaling=True, dtype="float64", loss="squared_error", activation="tanh", device="numpy"
    )
    same_bits(
        fresh.predict_proba(X),
        DenseNet(**{**fresh.settings(), "input_scaling": False}, device="numpy").predict_proba(X),
    )


def test_embeddings_are_columns_of_their_own() -> None:
    """The same predictions as the network that is given [x, V cos(2 pi w x + b) + c], its inputs scaled."""
    net = net_of("both")
    named = net.parameters()
    w, b, V, c = (named.pop(name) for name in WAVES)
    s, columns = named.pop("scale0"), [X]
    for j in range(3):
        waves = np.cos(2.0 * np.pi * X[:, j : j + 1] * w[j] + b[j])
        columns.append(waves @ V[2 * j : 2 * j + 2].T + c[2 * j : 2 * j + 2, 0])
    plain = DenseNet((10, 6, 3), activation="tanh", loss="squared_error", dtype="float64", device="numpy")
    plain.set_parameters(named)
    np.testing.assert_allclose(net.predict_proba(X), plain.predict_proba(np.hstack(columns) * s.T), rtol=1e-12)
    assert net.widths == (10, 6, 3)
    assert net.n_parameters == plain.n_parameters + 10 + 2 * 3 * 5 + 6 * 5 + 6


def test_the_initial_embedding_is_that_of_the_paper() -> None:
    net = DenseNet([40, 6, 1], periodic_embedding=True, device="numpy", seed=3)
    named, bound = net.parameters(), 1.0 / 4.0
    assert named["frequency0"].shape == (40, 16)
    assert 0.09 < named["frequency0"].std() < 0.11
    assert 3.0 < np.abs(named["phase0"]).max() <= np.float32(np.pi)
    assert all(0.95 * bound < np.abs(named[name]).max() <= bound for name in ("mixing0", "offset0"))
    assert named["W1"].shape == (6, 40 * 4)


@pytest.mark.parametrize("stage", NAMES)
def test_the_gradient_is_the_derivative(stage: str) -> None:
    net = net_of(stage, dropout=0.2, batch_norm=[True])
    for settings in ({"l2": 0.1}, {"one_over_m": "late", "reduction": "sum"}):
        report = gradcheck(net, X, Y, W, **settings)
        assert report.ok, report.summary()
        assert set(TENSORS[stage]) <= {t.name for t in report.tensors}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("stage", NAMES)
@pytest.mark.parametrize("case", cases())
def test_parity_finds_honest_devices_right(case: Case, stage: str, dtype: str) -> None:
    """In a micro-batch and in several, with a penalty, 1/m early and late; prediction and recorded epochs too."""
    for how in (
        {"one_over_m": "late", "micro_batch": 7},
        {"sample_weight": W, "l2": 0.1, "epochs": 2, "batch_size": 8},
    ):
        report = check(net_of(stage, case, dtype, dropout=0.2), X, Y, dtype=dtype, steps=2, **how)
        assert report.ok, report.summary()
        assert {"H0", "dH0", *(f"d{name}" for name in TENSORS[stage])} <= {f.tensor for f in report.findings}
        assert not [f for f in report.findings if f.status == "warning"]


FAULTS: list[tuple[str, str, str, Any]] = [
    ("scaling", "scaling", "H0", lambda c: c.H.__imul__(1.001)),
    ("scaling", "scaling_vjp", "dscale0", lambda c: c.ds.__imul__(2.0)),
    ("both", "scaling_vjp", "dE0", lambda c: None if c.dX is None else c.dX.__imul__(2.0)),
    ("both", "periodic", "P0", lambda c: c.P.__imul__(1.001)),
    ("periodic", "periodic", "E0", lambda c: c.E.__iadd__(0.01)),
    ("periodic", "periodic_vjp", "dphase0", lambda c: c.db.__imul__(-1.0)),
    ("periodic", "periodic_vjp", "dfrequency0", lambda c: c.dw.__imul__(0.5)),
    ("both", "periodic_vjp", "dmixing0", lambda c: c.dV[:1].__imul__(2.0)),
    ("both", "periodic_vjp", "doffset0", lambda c: c.dc.__imul__(2.0)),
]


@pytest.mark.parametrize(("stage", "operation", "tensor", "act"), FAULTS, ids=lambda v: v if isinstance(v, str) else "")
def test_parity_and_gradcheck_find_faults(
    stage: str, operation: str, tensor: str, act: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = getattr(ReferenceKernels, operation)

    def wrong(self: Any, *args: Any, **kwargs: Any) -> None:
        honest(self, *args, **kwargs)
        act(SimpleNamespace(**kwargs))

    wrong.__wrapped__ = honest  # type: ignore[attr-defined]
    monkeypatch.setattr(ReferenceKernels, operation, wrong)
    report = check(net_of(stage, dtype="float32"), X, Y)
    assert report.first is not None
    assert report.first.tensor == tensor
    if operation.endswith("_vjp"):
        assert not gradcheck(net_of(stage), X, Y).ok


@pytest.mark.parametrize("stage", NAMES)
def test_it_is_saved_and_copied(stage: str, tmp_path: Path) -> None:
    net = net_of(stage, dtype="float32")
    net.save(tmp_path / "net.safetensors")
    loaded = DenseNet.load(tmp_path / "net.safetensors", device="numpy", kernels="reference")
    assert loaded.spec() == net.spec()
    same_bits(loaded.predict_proba(X.astype("float32")), net.predict_proba(X.astype("float32")))
    assert next(iter(STAGES[stage])) in repr(net)
    assert f"<td>{net.inputs.n_parameters}</td>" in net._repr_html_()


@pytest.mark.parametrize("stage", NAMES)
@pytest.mark.parametrize("kind", ["reference", "native"])
def test_a_fit_goes_on_from_a_state_with_the_same_bits(stage: str, kind: str) -> None:
    """A recorded epoch has the bits of steps taken one by one; a state holds the stage's tensors and their moments."""

    states: list[Any] = []

    class Keep(Callback):
        def on_epoch(self, epoch: Epoch) -> None:
            states.append(self.trainer.state_dict())  # type: ignore[union-attr]

    def trainer() -> Trainer:
        net = DenseNet(SIZES, loss="squared_error", device="cpu", kernels=kind, **STAGES[stage])
        factors = dict.fromkeys(TENSORS[stage], 3.0)
        how: dict[str, Any] = {"learning_rate_factors": factors, "callbacks": [Keep()], "progress": False}
        return Trainer(net, epochs=4, batch_size=7, **how)

    whole, then = trainer(), trainer()
    before = whole.net.parameters()
    whole.fit(X, Y)
    then.fit(X, Y, resume=states[1])
    for name, x in whole.net.parameters().items():
        same_bits(then.net.parameters()[name], x)
    assert all(not np.array_equal(whole.net.parameters()[name], before[name]) for name in TENSORS[stage])


def test_what_has_none_is_as_it_was() -> None:
    plain = DenseNet(SIZES, device="numpy", kernels="reference")
    assert plain.spec().keys() == {
        "sizes",
        "activation",
        "loss",
        "initializer",
        "dropout",
        "batch_norm",
        "dtype",
        "seed",
    }
    assert [name for name, *_ in plain.params.spans] == ["W2", "W1", "b2", "b1"]
    record = described(step_spec(TrainingStep(plain)))
    assert not {key for stage in STAGES.values() for key in stage} & record.keys()
    assert plain.workspace(3).inputs is None


@pytest.mark.parametrize("stage", NAMES)
def test_its_memory_is_planned(stage: str) -> None:
    net = net_of(stage, dtype="float32")
    network = {k: v for k, v in net.settings().items() if k not in ("sizes", "dtype")}
    step = shape_step(SIZES, "float32", "adam", {}, **network)
    with_, without = (
        predict_memory(s, 64, kernels=net.kernels) for s in (step, shape_step(SIZES, "float32", "adam", {}))
    )
    assert with_.parameters >= net.params.theta.nbytes
    assert with_.workspace > without.workspace


@pytest.mark.parametrize("stage", NAMES)
def test_the_first_number_that_is_not_finite_is_named(stage: str) -> None:
    net = net_of(stage)
    named = net.parameters()
    name = "scale0" if stage == "scaling" else "mixing0"
    named[name][1, 0] = np.inf
    net.set_parameters(named)
    step = TrainingStep(net)
    program = lambda: step.gradient(np.abs(X.T), Y.T)  # noqa: E731
    found = find_non_finite(step, program)
    assert found is not None
    where = ("scaling", 0, "H0") if stage == "scaling" else ("periodic", 0, "E0")
    assert (found.operation, found.layer, found.tensor) == where
    assert found.index[0] == 1


def test_settings_that_are_refused() -> None:
    with pytest.raises(ConfigError, match="input_scaling must be true or false, got 1"):
        DenseNet(SIZES, input_scaling=1)  # type: ignore[arg-type]
    for given, words in (
        ({"frequencies": 0}, "frequencies must be a whole number from 1, got 0"),
        ({"outputs": 1.5}, "outputs must be a whole number from 1, got 1.5"),
        ({"sigma": 0.0}, "sigma must be positive, got 0.0"),
        ({"columns": 5}, "columns is 5, and the network has 4 inputs"),
        ({"frequencys": 3}, r"no setting 'frequencys' \(did you mean 'frequencies'\?\)"),
        ("pbld", "must be true, or a mapping"),
    ):
        with pytest.raises(ConfigError, match=words):
            DenseNet(SIZES, periodic_embedding=given)  # type: ignore[arg-type]


def test_the_command_line_embeds_numeric_columns(tmp_path: Path) -> None:
    rows = "\n".join(f"{i % 7},{'abc'[i % 3]},{i % 5},{i % 2}" for i in range(60))
    (tmp_path / "t.csv").write_text(f"p,q,r,y\n{rows}\n", encoding="utf-8")
    data = {"source": str(tmp_path / "t.csv"), "target": "y"}
    experiment = prepare(validate({"data": data, "model": {"periodic_embedding": {"outputs": 2}}}), progress=False)
    net = experiment.model.net
    assert net.sizes[0] == 5
    assert net.inputs.periodic == PeriodicEmbedding(16, 2, 0.1, 2)


def test_members_of_an_ensemble_share_the_stage() -> None:
    """Its gradient is the sum of theirs; the first layer's adapters are as wide as what enters it."""
    net = net_of("both", members=3, adapters="all")
    assert net.parameters()["R1"].shape == (3, 10)
    for report in (gradcheck(net, X, Y, W), check(net, X, Y, micro_batch=9, dtype="float32")):
        assert report.ok, report.summary()
