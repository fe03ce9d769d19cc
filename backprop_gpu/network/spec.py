"""Makes the ``StepSpec`` of a step, for kernel sets, the memory plan, parity and saved states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..backends.plan import StepSpec

if TYPE_CHECKING:
    from .step import TrainingStep

DEFAULTS = {"parametrization": "standard"}  # of what ``described`` leaves out


def step_spec(step: TrainingStep, m: int = 1, micro_batch: int | None = None, weighted: bool = False) -> StepSpec:
    """The record of a step with batches of m examples, ``micro_batch`` at a time."""
    net, size = step.net, min(micro_batch or m, m)
    return StepSpec(
        net.sizes,
        size,
        net.dtype,
        tuple(net.activations),
        tuple(net.dropout),
        net.loss,
        step.delta,
        step.optimizer,
        step.schedule,
        step.total_steps,
        net.seed,
        step.one_over_m,
        step.reduction,
        step.l1,
        step.l2,
        step.penalty_over,
        step.clip_norm,
        accumulating=size < m,
        weighted=weighted,
        batch_norm=tuple(net.batch_norm) if any(net.batch_norm) else (),
        learning_rate_factors=tuple(step.groups.factors.items()),
        parametrization=step.groups.parametrization,
        input_scaling=net.inputs.scaling,
        parametric=tuple(net.parametric) if any(net.parametric) else (),
        members=net.members,
        adapters=net.ensemble.adapters,
        periodic_embedding=tuple(net.inputs.settings().get("periodic_embedding", {}).items()),
    )


def described(spec: StepSpec) -> dict[str, Any]:
    """The record as names and numbers, without what belongs to a batch; lists have one entry per hidden layer."""
    return {
        "sizes": spec.sizes,
        "dtype": spec.dtype,
        "seed": spec.seed,
        "activations": [(a.name, dict(a.parameters)) for a in spec.activations[1:-1]],
        "dropout": list(spec.dropout[1:-1]),
        "batch_norm": list(spec.batch_norm[1:-1]),
        "loss": spec.loss.name,
        "loss_parameters": dict(vars(spec.loss)),
        "form": spec.form,
        "one_over_m": spec.one_over_m,
        "reduction": spec.reduction,
        "l1": spec.l1,
        "l2": spec.l2,
        "penalty_over": spec.penalty_over,
        "clip_norm": spec.clip_norm,
        "optimizer": spec.optimizer.name,
        "optimizer_parameters": dict(vars(spec.optimizer)),
        "schedule": spec.schedule.name,
        "schedule_parameters": dict(vars(spec.schedule)),
        "total_steps": spec.total_steps,
        **_chosen(spec),
    }


def _chosen(spec: StepSpec) -> dict[str, Any]:
    """Settings that came later, where they are not the defaults: what was written before them stays as it was."""
    later: dict[str, Any] = {
        "learning_rate_factors": dict(spec.learning_rate_factors),
        "parametrization": spec.parametrization,
        "input_scaling": spec.input_scaling,
        "periodic_embedding": dict(spec.periodic_embedding),
        "parametric": list(spec.parametric[1:-1]),
    }
    later |= {"members": spec.members, "adapters": spec.adapters} if spec.members > 1 else {}
    return {name: value for name, value in later.items() if value and value != DEFAULTS.get(name)}
