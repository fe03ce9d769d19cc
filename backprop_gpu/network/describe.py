"""A network in a line, and as a table of its layers."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

from .._notebook import html_table
from ..backends.builtin import is_builtin
from .custom import spec_of

if TYPE_CHECKING:
    from .dense_net import DenseNet

DEFAULTS = {"initializer": "auto", "dropout": 0.0, "batch_norm": False, "dtype": "float32", "seed": 0}


def one_line(net: DenseNet) -> str:
    """``DenseNet([30, 16, 1], activation='relu', ..., device='numpy', kernels='native')``: what differs from the
    defaults, one value for all hidden layers where they have the same.
    """
    given: dict[str, Any] = net.spec() | {"loss": _loss(net)}
    sizes = given.pop("sizes")
    settings = {key: _same(value) for key, value in given.items()}
    shown = {key: value for key, value in settings.items() if value != [] and value != DEFAULTS.get(key)}
    shown |= {"device": net.backend.name, "kernels": net.kernels_kind}
    return f"{type(net).__name__}({sizes}, {', '.join(f'{key}={value!r}' for key, value in shown.items())})"


def _loss(net: DenseNet) -> Any:
    """Its name alone where its parameters are the defaults."""
    loss: Any = net.loss
    optional = all(f.default is not MISSING for f in fields(loss))
    return loss.name if is_builtin(loss) and optional and type(loss)() == loss else spec_of(loss)


def _same(value: Any) -> Any:
    if not isinstance(value, list) or not value:
        return value
    return value[0] if all(each == value[0] for each in value) else value


def layers_table(net: DenseNet) -> str:
    """HTML: what each layer is, and how many parameters it has."""
    given, rows = net.spec(), []
    if net.inputs.there:
        rows.append((0, net.widths[0], net.inputs.words, "", "", net.inputs.n_parameters))
    for l in range(1, net.L + 1):
        n, hidden = net.sizes[l], l < net.L
        name = given["activation"][l - 1] if hidden else net.loss.link.name
        how = (net.batch_norm[l], net.dropout[l]) if hidden else ("", "")
        rows.append((l, n, name, *how, sum(a * b for _, of, _, (a, b) in net.params.spans if of == l)))
    members = f"{net.members} members, " if net.members > 1 else ""
    title = (
        f"{type(net).__name__}: {members}{net.sizes[0]} inputs, {net.n_parameters:,} parameters, {net.dtype}, "
        f"loss {_loss(net)}, on {net.backend.name} with {net.kernels_kind} kernels"
    )
    return html_table(title, ("layer", "units", "activation", "batch norm", "dropout", "parameters"), rows)
