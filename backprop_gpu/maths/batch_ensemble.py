"""The weights of one member of an ensemble whose members share W (BatchEnsemble, Wen, Tran & Ba 2020).

Member j has W_j = diag(s_j) W diag(r_j), with a number r_j for each input and s_j for each output of the layer. So
W_j X = ((W (r_j * X)) * s_j, the paper's form, and a member is an ordinary network with weights of its own: the
gradient of those, G = dJ/dW_j, gives the gradients of W, r_j and s_j by the chain rule. J is the mean over the k
members of each member's cost, so a 1/(k m) is in G already (``ledger``), and none is due here.

TabM-mini (Gorishniy, Kotelnikov & Babenko 2024) has r_j in the first layer alone, and no s_j. Here r is (inputs,), s
(outputs,) or None, W and G are (outputs, inputs).
"""

from __future__ import annotations

from .._typing import Array, Namespace


def member_weights(xp: Namespace, W: Array, r: Array, s: Array | None) -> Array:
    """W_j = diag(s) W diag(r)."""
    scaled = W * xp.reshape(r, (1, -1))
    return scaled if s is None else scaled * xp.reshape(s, (-1, 1))


def member_weights_vjp(
    xp: Namespace, G: Array, W: Array, r: Array, s: Array | None
) -> tuple[Array, Array, Array | None]:
    """dW = diag(s) G diag(r), which sums over members; dr_j = sum_i s_i W_ij G_ij; ds_i = sum_j W_ij G_ij r_j."""
    terms = G * W
    over_outputs = terms if s is None else terms * xp.reshape(s, (-1, 1))
    ds = None if s is None else xp.sum(terms * xp.reshape(r, (1, -1)), axis=1)
    return member_weights(xp, G, r, s), xp.sum(over_outputs, axis=0), ds
