"""The layer loop, forward and backward, once for every kernel set; examples are columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._typing import Array
from ..maths.ledger import split_scale
from . import parametric
from .memory import Workspace

if TYPE_CHECKING:
    from .dense_net import DenseNet


def forward(net: DenseNet, ws: Workspace, member: int = 0) -> Array:
    """Z[L] (n_L, m) of one member from ``ws.A[0]`` (n_0, m): A[l] = drop(g_l(W[l] A[l-1] + b[l])).

    A normalized layer has Z = W[l] A[l-1], X = Z normalized, A[l] = drop(g_l(gamma X + b[l])). A parametric activation
    has an operation of its own after these, which then have the identity. What enters layer 1 is
    what ``network.input_stage`` makes of the inputs.
    """
    p, kernels = net.parts[member], net.kernels
    if member == 0:  # the others take what it leaves
        net.inputs.forward(net, ws)
    p.adapt(kernels, ws)
    for l in range(1, net.L + 1):
        A_prev = ws.A[l - 1] if l > 1 else net.inputs.entering(ws)
        g, drop, norm = net.activations[l], net.ensemble.dropout(ws.dropout[l], member), ws.norm[l]
        out = {"A": ws.A[l] if l < net.L else ws.logits[member], "saved": ws.saved[l]}
        of_layer, last, own = (g, drop), out, ws.parametric[l]
        if own is not None:
            of_layer, last = (parametric.IDENTITY, None), {"A": own.Z, "saved": own.saved}
        if norm is None:
            kernels.dense(p.W[l], A_prev, p.b[l], *of_layer, **last)
        else:
            linear = {"A": norm.Z, "saved": norm.saved}
            kernels.dense(p.W[l], A_prev, net.no_bias[l], parametric.IDENTITY, None, **linear)
            kernels.batch_norm(
                norm.Z,
                p.gamma[l],
                p.b[l],
                *of_layer,
                ws.weights,
                mean=net.mean[l],
                variance=net.variance[l],
                X=norm.X,
                inverse_std=norm.inverse_std,
                **last,
            )
        if own is not None:
            parametric.forward(net, ws, l, drop, **out)
    return ws.logits[member]


def backward(net: DenseNet, ws: Workspace, *, scale: Array | None, accumulate: bool, member: int = 0) -> None:
    """dW[l], db[l] for l = L..1 of one member from ``ws.dZ[L]``; ``scale`` is the late 1/D, None for early.

    The member's forward pass was the last in ``ws``. Whoever writes dZ[l] writes db[l] too: ``output_delta`` for l = L,
    ``dense_vjp_input`` below. In a normalized layer that is dU, whose row sums are the derivative by its beta, b[l];
    ``batch_norm_vjp`` then gives dZ[l].
    """
    p, kernels = net.parts[member], net.kernels
    for l in range(net.L, 0, -1):
        A_prev = ws.A[l - 1] if l > 1 else net.inputs.entering(ws)
        kernels.dense_vjp_params(ws.dZ[l], A_prev, scale=scale, **p.dW_of(ws, l, accumulate))
        norm = ws.norm[l - 1]
        if l > 1:
            own, dZ = ws.parametric[l - 1], ws.dZ[l - 1] if norm is None else norm.dU
            adds_to_b = p.adds_to_b(l - 1, accumulate)
            kernels.dense_vjp_input(
                p.W[l],
                ws.dZ[l],
                net.activations[l - 1] if own is None else parametric.IDENTITY,
                net.ensemble.dropout(ws.dropout[l - 1], member),
                ws.A[l - 1],
                ws.saved[l - 1],
                scale=scale,
                dZ_prev=dZ if own is None else own.dA,
                db_prev=p.db[l - 1] if own is None else own.sums,
                accumulate=adds_to_b and own is None,
            )
            if own is not None:
                adds = {"accumulate": accumulate or member > 0, "accumulate_b": adds_to_b}
                parametric.backward(net, ws, l - 1, dZ=dZ, db=p.db[l - 1], scale=scale, **adds)
        if norm is not None:
            kernels.batch_norm_vjp(
                norm.dU,
                norm.X,
                norm.inverse_std,
                p.gamma[l - 1],
                ws.weights,
                scale=scale,
                dZ=ws.dZ[l - 1],
                dgamma=p.dgamma[l - 1],
                accumulate=accumulate,
            )
    p.adapt_vjp(kernels, ws, accumulate)
    net.inputs.backward(net, ws, p.W[1], scale=scale, accumulate=accumulate or member > 0)


def gradient(
    net: DenseNet,
    ws: Workspace,
    Y: Array,
    *,
    form: str,
    one_over_m: str,
    inverse: Array,
    value: Array,
    accumulate: bool,
) -> None:
    """(+) dJ/dtheta and value += J of the examples in ``ws``, without penalty: one member after the other, both ways.

    ``inverse`` is 1/D, of an ensemble 1/(k D); ``form`` and ``one_over_m`` as ``TrainingStep`` has them.
    """
    early, late = split_scale(one_over_m, inverse)
    for member, part in enumerate(net.parts):
        Z = forward(net, ws, member)
        net.kernels.output_delta(
            *(net.loss, form, Z, Y, ws.weights),
            inverse_denominator=inverse,
            early=early is not None,
            dZ=ws.dZ[net.L],
            db=part.db[net.L],
            value=value,
            accumulate=accumulate,
        )
        backward(net, ws, scale=late, accumulate=accumulate, member=member)
