"""Copies, pickles and what is shown of a network, its history and the reports about it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.backends import cases
from support.own_formulas import SNAKE, LogCosh
from support.small_nets import small_net

from backprop_gpu import DenseNet, Trainer, gradcheck, parity
from backprop_gpu.backends import Backend
from backprop_gpu.errors import ConfigError
from backprop_gpu.network import model_file

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((40, 3)), RNG.standard_normal((40, 1))

COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
}
NETS: dict[str, dict[str, Any]] = {
    "plain": {},
    "settings": {"activation": ["tanh", {"name": "elu", "alpha": 0.3}], "dropout": [0.2, 0.0], "seed": 2**64 - 1},
    "normalized": {"batch_norm": [True, False], "initializer": "orthogonal"},
    "own formulas": {"activation": SNAKE, "loss": LogCosh(2.0)},
}


def net_of(name: str, **more: Any) -> DenseNet:
    return small_net([3, 5, 4, 1], **({"loss": "squared_error", "dtype": "float64"} | NETS[name] | more))


def assert_same(one: DenseNet, other: DenseNet) -> None:
    assert (one.spec(), one.settings(), one.kernels_kind) == (other.spec(), other.settings(), other.kernels_kind)
    assert type(one.kernels) is type(other.kernels)
    assert one.backend.name == other.backend.name
    for name, value in one.parameters().items():
        assert value.tobytes() == other.parameters()[name].tobytes()


# -- copies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", NETS)
def test_a_copy_is_the_same_network_with_memory_of_its_own(name: str, how: str) -> None:
    net = net_of(name)
    Trainer(net, epochs=2, batch_size=8).fit(X, Y)
    twin = COPIES[how](net)
    assert_same(net, twin)
    before = net.predict(X)
    np.testing.assert_array_equal(twin.predict(X), before)
    for each in (twin, net):  # both go on, alike and apart
        Trainer(each, epochs=3, batch_size=8).fit(X, Y)
        assert not np.array_equal(each.predict(X), before)
    assert_same(net, twin)


@pytest.mark.parametrize("case", cases(), ids=str)
def test_on_its_device_and_its_kernels(case: Any) -> None:
    net = net_of("plain", device=case.backend, kernels=case.kind)
    assert_same(net, copy.deepcopy(net))
    if type(net.backend).__module__.startswith("backprop_gpu"):  # others have no name that finds them again
        assert_same(net, pickle.loads(pickle.dumps(net)))


def test_a_pickle_from_a_device_that_is_not_there_is_loaded_where_auto_says() -> None:
    net = net_of("plain")
    settings, parameters = net.settings(), net.parameters()
    for device, kernels in (("cupy:7", "cuda"), ("numpy", "cuda")):
        twin = model_file.rebuilt(DenseNet, settings, parameters, device, kernels)
        np.testing.assert_allclose(twin.predict(X), net.predict(X), rtol=1e-12)


def test_a_backend_of_ones_own_is_shared_by_deepcopy() -> None:
    backend = Backend("numpy", np)
    net = net_of("plain", device=backend, kernels="reference")
    assert copy.deepcopy(net).backend is backend


def test_what_records_programs_says_that_it_cannot_be_copied() -> None:
    trainer = Trainer(net_of("plain"), epochs=1)
    for thing in (trainer, trainer.step):
        for how in (copy.deepcopy, pickle.dumps):
            with pytest.raises(ConfigError, match="copy its net, and make a step for that"):
                how(thing)


# -- what is shown ---------------------------------------------------------------------------------------------------


def test_a_network_shows_what_makes_it_again() -> None:
    net = DenseNet([3, 5, 4, 1], device="cpu", kernels="reference")
    assert repr(net) == (
        "DenseNet([3, 5, 4, 1], activation='relu', loss='binary_cross_entropy', device='numpy', kernels='reference')"
    )
    for settings in (
        {"activation": ["tanh", "gelu"], "loss": {"name": "huber", "threshold": 0.5}, "dropout": [0.1, 0.0]},
        {"batch_norm": True, "dropout": 0.5, "seed": 3, "dtype": "float64", "initializer": "zeros"},
        {"loss": {"name": "quantile", "quantiles": (0.5,)}, "activation": {"name": "elu", "alpha": 0.3}},
    ):
        net = DenseNet([3, 5, 4, 1], device="cpu", kernels="reference", **settings)
        again = eval(repr(net), {"DenseNet": DenseNet})
        assert_same(net, again)
    assert repr(DenseNet([2, 1], loss="squared_error", device="cpu", kernels="reference")) == (
        "DenseNet([2, 1], loss='squared_error', device='numpy', kernels='reference')"
    )


def test_its_table_has_a_row_for_each_layer() -> None:
    html = net_of("normalized", dropout=[0.25, 0.0])._repr_html_()
    assert "3 inputs, 54 parameters, float64, loss squared_error, on numpy" in html
    assert html.count("<tr>") == 4
    assert "<td>1</td><td>5</td><td>relu</td><td>True</td><td>0.25</td><td>25</td>" in html
    assert "<td>3</td><td>1</td><td>identity</td><td></td><td></td><td>5</td>" in html


def test_a_history_shows_its_end() -> None:
    trainer = Trainer(net_of("plain"), epochs=25, batch_size=8, metrics=["r2"])
    assert repr(trainer.history) == "<History: 0 epochs, best 0, stopped by epochs>"
    assert trainer.history._repr_html_().count("<tr>") == 1
    history = trainer.fit(X, Y, validation=(X[:9], Y[:9]))
    last = history.epochs[-1]
    assert repr(history).startswith(
        f"<History: 25 epochs, best {history.best_epoch}, stopped by epochs, cost={last.cost:.6g}, validation cost="
    )
    html = history._repr_html_()
    assert html.count("<tr>") == 1 + 10 + 1 + 10
    assert "<th>validation r2</th>" in html
    assert "<tr><td>25</td><td>125</td>" in html


def test_reports_show_their_summary_and_a_row_for_each_tensor() -> None:
    net = net_of("plain", dtype="float32")
    gradients = gradcheck(net, X[:5], Y[:5])
    assert repr(gradients) == f"<GradientReport: {gradients.summary()}>"
    assert gradients._repr_html_().count("<tr>") == 1 + 6
    report = parity.check(net, X, Y)
    assert repr(report) == f"<Report: {report.summary()}>"
    assert report._repr_html_().count("<tr>") == 1 + len(report.findings)
    pair = parity.check_cost_gradient_pair(net, X, Y)
    assert repr(pair) == f"<CostGradientReport: {pair}>"


def test_what_is_shown_is_escaped() -> None:
    loss = LogCosh()
    object.__setattr__(loss, "name", "<b>")
    assert "&lt;b&gt;" in net_of("plain", loss=loss)._repr_html_()
