"""Do all ranks begin, and stay, alike?"""

from __future__ import annotations

import contextlib
import contextvars
import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..backends.collective import SINGLE, Collective, launched
from ..network.state import plain, step_settings
from ..network.step import TrainingStep

if TYPE_CHECKING:
    from .loop import FitState


class Sharing(NamedTuple):
    """Who shares the batches of an estimator's fit, and whether they are cut as ``Trainer(exact_ranks=True)`` does."""

    ranks: Collective = SINGLE
    exact: bool = False


_SHARING: contextvars.ContextVar[Sharing] = contextvars.ContextVar("_SHARING")


def sharing() -> Sharing:
    """What :func:`share_fits` has set; else a single process."""
    return _SHARING.get(Sharing())


@contextlib.contextmanager
def share_fits(ranks: Collective | None = None, *, exact: bool = False) -> Iterator[Collective]:
    """Within it a fit of an estimator is one fit on several ranks.

    Every rank makes the same calls, with the same data and with numbers as ``random_state``; each ends with the same
    estimator. Elsewhere each rank's estimators are its own. A single process is rank 0 of 1.

    Parameters
    ----------
    ranks : Collective, default those that the launcher started
    exact : bool, default False
        Cut batches where ``native`` kernels give the bits of one process, as ``Trainer(exact_ranks=True)``.
    """
    token = _SHARING.set(Sharing(ranks or launched(), exact))
    try:
        yield sharing().ranks
    finally:
        _SHARING.reset(token)


@contextlib.contextmanager
def left_by_error(ranks: Collective) -> Iterator[None]:
    """Within it ranks wait for each other: an error of this one, which may be caught, is told to the others."""
    try:
        yield
    except BaseException as error:
        ranks.leave(f"has left by {type(error).__name__}: {' '.join(str(error).split())}")
        raise


def agree_at_the_start(fit: FitState) -> None:
    """That no rank has another configuration, other data or other weights.

    Raises
    ------
    ConfigError
        Names what differs, and the first rank that differs from rank 0.
    """
    step, order = fit.step, [fit.batches.state_dict(), fit.batches.exact]
    step.ranks.agree("settings", _digest([step_settings(step), step.total_steps, fit.settings, order]))
    step.ranks.agree("data", _digest(fit.data))
    step.ranks.agree(f"weights after step {step.t}", _tensors(step, step.state_buffers))


def agree_on_weights(step: TrainingStep) -> None:
    """That no rank's weights differ by a bit; ConfigError as above."""
    step.ranks.agree(f"weights after step {step.t}", _tensors(step, [step.net.params.theta]))


def _tensors(step: TrainingStep, buffers: Sequence[Any]) -> str:
    digest = hashlib.sha256()
    for buffer in buffers:
        digest.update(step.net.backend.to_host(buffer).tobytes())
    return digest.hexdigest()


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(plain(values), sort_keys=True).encode()).hexdigest()
