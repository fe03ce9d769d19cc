"""From a configuration to a trained model and a run folder: the one module that builds data, network and trainer."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .atomic_file import remove_temporaries, write_file
from .backends.collective import SINGLE, Collective
from .backends.select import Selection, select
from .config import Config
from .config_reading import load_config
from .cross_validation import check_folds, cross_validate
from .data.preprocessing import Preprocessor
from .data.streamed_table import StreamedTable
from .data.table import Table
from .errors import NonFiniteError, ParityError
from .maths.losses import get_loss
from .model import Model as Model
from .model import load as load
from .network.dense_net import BLOCK_ROWS, DenseNet
from .network.state import State, plain
from .resume import state_of
from .rows import Parts, fingerprint, fit_preprocessor, read_rows
from .rows import read_split as read_split
from .run_fit import Rows, by_number, encoded, fit, metrics_of, rows_to_score
from .run_folder import (
    CHECKPOINTS,
    HISTORY_FILE,
    METRICS_FILE,
    ConfigWriter,
    anchored,
    beside_the_model,
    config_of,
    find_run,
    make_run_dir,
    save_run,
)
from .training.callbacks import Callback, JsonLines, to_json
from .training.checkpoint import Checkpoint
from .training.checkpoint_file import checkpoints_in
from .training.early_stopping import EarlyStopping
from .training.history import History
from .training.layers import LayerStatistics
from .training.metrics import default_metrics
from .training.trackers import check_installed, trackers_of
from .training.trainer import Trainer


@dataclass
class Experiment:
    """A configuration with its data read, its network built and nothing written yet.

    ``why_task``: why its task is the one that it is, where that was ``auto``; else empty.
    """

    config: Config
    model: Model
    trainer: Trainer
    train: Table | StreamedTable
    validation: Table | StreamedTable | None
    test: Table | StreamedTable | None
    why_task: str = ""


@dataclass
class Outcome:
    """A finished run: the model, its history, what it scored, where it lies."""

    model: Model
    history: History
    metrics: dict[str, Any]
    run_dir: Path


@dataclass
class Design:
    """What a configuration comes to once its data is read, before anything is allocated for the network."""

    config: Config
    preprocessor: Preprocessor
    sizes: tuple[int, ...]
    runs: Selection
    train: Table | StreamedTable
    validation: Table | StreamedTable | None
    test: Table | StreamedTable | None
    why_task: str

    def network(self) -> dict[str, Any]:
        """Settings of ``DenseNet`` but for sizes, dtype, device and kernels."""
        m = self.config.model
        return {
            "activation": m.activation_spec(),
            "loss": self.config.loss_spec(),
            "initializer": m.initializer,
            "dropout": m.dropout,
            "batch_norm": m.batch_norm,
            "parametric_activation": m.parametric_activation,
            "input_scaling": m.input_scaling,
            "periodic_embedding": self._embedding(),
            "members": m.members,
            "adapters": m.adapters,
            "seed": self.config.seed,
        }

    def _embedding(self) -> dict[str, Any] | None:
        """Of the numeric columns, which come first."""
        given, columns = self.config.model.periodic_embedding, len(self.preprocessor.numeric)
        return None if given is None or not columns else given.model_dump() | {"columns": columns}


def design(config: Config, parts: Parts | None = None) -> Design:
    """Read the data, and choose the task, sizes, device and kernels; ``config`` of the result names the task.

    ``parts``: the rows of a configuration that names its task, which are not read then.
    """
    config, why_task, (train, validation, test) = read_rows(config) if parts is None else (config, "", parts)
    d = config.data
    preprocessor = fit_preprocessor(d, train)
    assert preprocessor.target is not None, "fitted with a task"
    n_outputs = preprocessor.target.n_outputs * get_loss(config.loss_spec()).per_target
    sizes = (len(preprocessor.feature_names), *config.model.hidden, n_outputs)
    runs = select(sizes, config.dtype, device=config.device, kernels=config.kernels)
    return Design(config, preprocessor, sizes, runs, train, validation, test, why_task)


def prepare(
    config: Config, *, progress: bool = True, parts: Parts | None = None, ranks: Collective = SINGLE
) -> Experiment:
    """Read and encode the data, build network and trainer; raises the package's errors and writes nothing.

    ``ranks``: the processes that share each batch, each of which prepares the same.
    """
    check_installed(config.track)
    d = design(config, parts)
    net = DenseNet(d.sizes, dtype=config.dtype, device=d.runs.backend, kernels=d.runs.kernels, **d.network())
    model = Model(net, d.preprocessor, None if d.test is None else fingerprint(d.config, d.test))
    trainer = _trainer(d.config, net, progress, d.preprocessor, d.validation is not None, ranks)
    return Experiment(d.config, model, trainer, d.train, d.validation, d.test, d.why_task)


def step_settings(config: Config) -> dict[str, Any]:
    """Optimizer, penalties and ledger, as ``TrainingStep`` and ``Trainer`` take them."""
    r = config.regularization
    penalties = {"l1": r.l1, "l2": r.l2, "penalty_over": r.penalty_over, "clip_norm": r.clip_norm}
    return {"optimizer": config.optimizer_spec(), **config.parameter_groups(), **penalties, **config.ledger()}


def check_settings(experiment: Experiment) -> dict[str, Any]:
    """The arguments of ``parity.check`` that describe this run's steps and epochs, without its rows."""
    config, n = experiment.config, experiment.train.n_samples
    t = config.training
    return {
        **step_settings(config),
        "schedule": config.schedule.model_dump(),
        "total_steps": t.epochs * -(-n // min(t.batch_size, n)),
        "micro_batch": t.micro_batch,
        "epochs": t.epochs,
        "shuffle": t.shuffle,
        "streamed": t.data_on == "host",
        "seed": config.seed,
    }


def _trainer(
    config: Config, net: DenseNet, progress: bool, preprocessor: Preprocessor, validated: bool, ranks: Collective
) -> Trainer:
    t, codec = config.training, preprocessor.target
    stopping = None if t.early_stopping is None else EarlyStopping(**t.early_stopping.model_dump())
    usual = default_metrics(config.data.task)[:1] if validated else ()
    same = (
        "epochs",
        "batch_size",
        "exact_ranks",
        "micro_batch",
        "data_on",
        "restore_best",
        "skip_non_finite",
        "shuffle",
    )
    return Trainer(
        net,
        ranks=ranks,
        **{name: getattr(t, name) for name in same},
        schedule=config.schedule.model_dump(),
        early_stopping=stopping,
        metrics=usual if t.metrics is None else t.metrics,
        units=None if codec is None else codec.decode,
        class_weight=by_number(t.class_weight, codec),
        seed=config.seed,
        progress=progress,
        **step_settings(config),
    )


def run(
    experiment: Experiment,
    run_dir: str | os.PathLike[str] | None = None,
    callbacks: Sequence[Callback] = (),
    *,
    resume: bool = False,
    allow_change: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Train, evaluate on the test rows, and write the run folder; after Ctrl-C it holds model and history, no scores.

    Parameters
    ----------
    experiment : Experiment
    run_dir : path, optional
        Must not exist yet; None: runs/NAME-TIME.
    callbacks : sequence of Callback
    resume : bool, default False
        ``run_dir`` holds a run, which goes on from its newest checkpoint, or starts if it has none.
    allow_change : bool, default False
        Go on with another configuration or other data, as far as ``Trainer.fit`` can.
    say : callable
        Told from where it goes on.

    Raises
    ------
    ConfigError
        If the folder is used by another run, or the configuration or the data are not those of the checkpoint.
    CheckpointError, NonFiniteError
        If something cannot be written or read, or training diverges; says what the folder holds.
    """
    model, config, trainer = experiment.model, experiment.config, experiment.trainer
    train, held_out = encoded(experiment)
    X = train[0]
    if trainer.step.ranks.rank:
        return _follow(experiment, Path(run_dir or ""), callbacks, resume, allow_change)
    if config.data.folds is not None:
        check_folds(config, _fold)
    verified = [] if not config.verify else [_verified(experiment, train)]
    if not resume or run_dir is None:
        run_dir = make_run_dir(config, run_dir)
    folder = Path(run_dir)
    with _checkpoints(experiment, folder, resume, allow_change, say) as (checkpoint, state):
        trainer.scored_too = None if held_out is None else rows_to_score(train, len(held_out[0]))
        layers = [LayerStatistics(*train[:2])] if config.training.layer_statistics else []
        written: list[Callback] = [ConfigWriter(folder, config)] if resume else []
        written += [] if config.checkpoint is None else [checkpoint]
        written += trackers_of(config.track, folder, folder.name, anchored(config).model_dump())
        trainer.callbacks = [*layers, JsonLines(folder / HISTORY_FILE), *written, *callbacks, *trainer.callbacks]
        with _saved_when_stopped(experiment, checkpoint, folder, X):
            history = fit(experiment, train, held_out, resume=state, allow_change=allow_change)
        save_run(folder, config, model.save, trainer.history.epochs, taken=checkpoint.is_taken())
        metrics = metrics_of(experiment, history)
        if config.verify:
            metrics["parity"] = [*verified, _verified(experiment, train)]
        _write_metrics(folder, metrics)
        if config.data.folds is not None:
            metrics["cross_validation"] = cross_validate(config, _fold, say)
            _write_metrics(folder, metrics)
    return Outcome(model, history, metrics, folder)


def _follow(e: Experiment, folder: Path, callbacks: Sequence[Callback], resume: bool, allow_change: bool) -> Outcome:
    """A rank beside rank 0: it trains on its part of each batch, and writes nothing."""
    (train, held_out), state = encoded(e), None
    if resume:
        state = state_of(_checkpoint(e, folder / CHECKPOINTS), e.train.n_samples, allow_change, lambda line: None)
    e.trainer.callbacks = [*callbacks, *e.trainer.callbacks]
    with np.errstate(over="ignore", invalid="ignore"):
        history = fit(e, train, held_out, resume=state, allow_change=allow_change)
    return Outcome(e.model, history, {}, folder)


def _fold(config: Config, parts: Parts) -> Experiment:
    return prepare(config, progress=False, parts=parts)


def _write_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    with beside_the_model(folder):
        write_file(folder / METRICS_FILE, to_json(metrics, indent=2) + "\n")


def _checkpoint(experiment: Experiment, folder: Path) -> Checkpoint:
    """What writes this run's checkpoints, with all that must be the same when it goes on."""
    same = {"config": anchored(experiment.config).model_dump(), "test_rows": experiment.model.test_rows}
    c = experiment.config.checkpoint
    return Checkpoint(folder, more={"run": plain(same)}, **({} if c is None else c.model_dump()))


@contextlib.contextmanager
def _checkpoints(
    experiment: Experiment, folder: Path, resume: bool, allow_change: bool, say: Callable[[str], None]
) -> Iterator[tuple[Checkpoint, State | None]]:
    """The callback that writes a run's checkpoints, and the state from which the run goes on, if it does."""
    checkpoint = _checkpoint(experiment, folder / CHECKPOINTS)
    checkpoint.claim()  # where none are written too: nobody else may train in the folder
    try:
        state = None
        if resume:
            remove_temporaries(folder)
            state = state_of(checkpoint, experiment.train.n_samples, allow_change, say)
        yield checkpoint, state
    except KeyboardInterrupt as stop:
        if checkpoint.folder.is_dir() and checkpoints_in(checkpoint.folder):
            stop.args = (*stop.args, f"to go on: backprop-gpu train --resume {shlex.quote(str(folder))}")
        raise
    finally:
        checkpoint.release()


@contextlib.contextmanager
def _saved_when_stopped(experiment: Experiment, checkpoint: Checkpoint, folder: Path, X: np.ndarray) -> Iterator[None]:
    """Save model and history also when the fit is interrupted or diverges; the error says what the folder holds."""
    model = experiment.model
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # the trainer says in one line that a run diverged
            yield
    except KeyboardInterrupt as stop:
        history = experiment.trainer.history
        if history.epochs:
            save_run(folder, experiment.config, model.save, history.epochs, taken=checkpoint.is_taken())
            stop.args = (f"{folder} holds the weights of epoch {history.best_epoch}",)
        raise
    except NonFiniteError as error:
        history = experiment.trainer.history
        with np.errstate(all="ignore"):
            seen = X if isinstance(X, np.ndarray) else X[:BLOCK_ROWS]
            usable = history.best_epoch > 0 and bool(np.isfinite(model.net.predict_proba(seen)).all())
        if usable:
            save_run(folder, experiment.config, model.save, history.epochs, taken=checkpoint.is_taken())
        left = f"holds the weights of epoch {history.best_epoch}" if usable else "holds no model"
        raise NonFiniteError(f"{error}; {folder} {left}") from None


def _verified(experiment: Experiment, train: Rows) -> str:
    """Check steps, epochs and predictions of this network, data and device by ``parity.check``; returns its summary.

    Raises
    ------
    ParityError
        If the device computed something that its precision does not allow.
    """
    from .parity.checking import check
    from .parity.recorded_epochs import rows_and_batch

    net = experiment.model.net
    n, batch = rows_and_batch(len(train[0]), experiment.config.training.batch_size)
    weights = train[2][:n] if len(train) > 2 else None
    report = check(
        net,
        train[0][:n],
        train[1][:n],
        sample_weight=weights,
        dtype=net.dtype,
        batch_size=batch,
        **check_settings(experiment),
    )
    if not report.ok:
        raise ParityError(f"{net.backend.name}: {report.summary()}; `backprop-gpu parity run` shows every tensor")
    return report.summary()


def train(
    config: str | Config | None = None,
    *,
    overrides: list[str] | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    device: str | None = None,
    progress: bool = True,
    resume: str | os.PathLike[str] | None = None,
    allow_change: bool = False,
) -> Outcome:
    """The whole of ``backprop-gpu train`` from Python: read, train, evaluate, write the run folder.

    ``resume``: the folder of a run that was interrupted, or "auto" for ``run_dir`` if there is a run in it. Without a
    ``config`` it is the run's own.
    """
    found = find_run(resume, run_dir)
    if isinstance(config, Config):
        loaded = config if device is None else config.model_copy(update={"device": device})
    else:
        loaded = load_config(config_of(found, resume, config), overrides, device=device)
    experiment = prepare(loaded, progress=progress)
    return run(experiment, found or run_dir, resume=found is not None, allow_change=allow_change)
