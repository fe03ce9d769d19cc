"""MLflow and Weights & Biases: callbacks that load them when a fit begins, and need none of them before."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..atomic_file import write_file
from ..errors import ConfigError
from .callbacks import Callback, Epoch
from .tensorboard import TensorBoard, scalars

# What each tracker of a configuration imports, and what has it.
PACKAGES = {"mlflow": ("mlflow", "mlflow-skinny"), "wandb": ("wandb", "wandb")}
TRACKERS = ("tensorboard", *PACKAGES)


def check_installed(trackers: Sequence[str]) -> None:
    """That the package of each tracker is there.

    Raises
    ------
    ConfigError
        Names what to install.
    """
    for name in trackers:
        module, package = PACKAGES.get(name, ("", ""))
        if module and find_spec(module) is None:
            raise ConfigError(f"the tracker {name} needs a package: pip install {package}, or leave it out of track")


def trackers_of(names: Sequence[str], folder: Path, run: str, settings: Mapping[str, Any]) -> list[Callback]:
    """The callbacks of a configuration's ``track``."""
    made: dict[str, Callback] = {
        "tensorboard": TensorBoard(folder),
        "mlflow": MLflow(run=run, settings=settings, folder=folder),
        "wandb": WandB(run=run, settings=settings, folder=folder),
    }
    return [made[name] for name in names]


class _Tracker(Callback):
    """Keeps the id of the run that it made in ``folder``, so that a fit that is resumed goes on in it."""

    name = ""

    def __init__(
        self,
        run: str | None = None,
        *,
        settings: Mapping[str, Any] | None = None,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        self.run, self.settings = run, dict(settings or {})
        self.folder = None if folder is None else Path(folder)

    def _module(self) -> Any:
        check_installed([self.name])
        return importlib.import_module(PACKAGES[self.name][0])

    def _known_id(self) -> str | None:
        """The id of the run to go on with."""
        if self.folder is None or not self.resumed:
            return None
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return (self.folder / f"{self.name}-run").read_text(encoding="utf-8").strip() or None
        return None

    def _remember(self, run_id: str) -> None:
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_file(self.folder / f"{self.name}-run", run_id + "\n")


class MLflow(_Tracker):
    """Logs settings and the numbers of each epoch to MLflow, in the experiment and to the server that it is set up for.

    ``MLFLOW_TRACKING_URI`` and ``MLFLOW_EXPERIMENT_NAME`` choose them.

    Parameters
    ----------
    run : str, optional
        Name of the run.
    settings : mapping, optional
        Logged as parameters; nested ones by names such as ``optimizer.name``.
    folder : path, optional
        Where the run's id is kept, for a fit that is resumed.
    """

    name = "mlflow"

    def on_start(self, epochs: int) -> None:
        """Begin a run, or go on with that of a fit that is resumed, behind the last step that it has."""
        mlflow = self._module()
        self._client, self._last = mlflow.MlflowClient(), -1
        known = self._known_id()
        if known is not None:
            self._id = known
            self._client.update_run(known, status="RUNNING")
            self._last = max((point.step for point in self._client.get_metric_history(known, "cost")), default=-1)
            return
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "Default")
        found = self._client.get_experiment_by_name(experiment)
        number = found.experiment_id if found is not None else self._client.create_experiment(experiment)
        self._id = self._client.create_run(number, run_name=self.run).info.run_id
        self._remember(self._id)
        for key, value in flat(self.settings).items():
            self._client.log_param(self._id, key, value)

    def on_epoch(self, epoch: Epoch) -> None:
        """Log its numbers."""
        if epoch.step <= self._last:  # logged before the interruption
            return
        for key, value in scalars(epoch).items():
            self._client.log_metric(self._id, key, value, step=epoch.step)

    def on_end(self) -> None:
        """End the run."""
        self._client.set_terminated(self._id)


class WandB(_Tracker):
    """Logs settings and the numbers of each epoch to Weights & Biases, as its environment variables say.

    ``WANDB_PROJECT``, ``WANDB_MODE=offline`` and others choose where. The parameters are those of :class:`MLflow`.
    """

    name = "wandb"

    def on_start(self, epochs: int) -> None:
        """Begin a run, or go on with that of a fit that is resumed."""
        wandb = self._module()
        known = self._known_id()
        where = {} if self.folder is None else {"dir": str(self.folder)}
        self._run = wandb.init(name=self.run, config=self.settings, id=known, resume="allow", **where)
        self._remember(self._run.id)

    def on_epoch(self, epoch: Epoch) -> None:
        """Log its numbers."""
        if epoch.step >= self._run.step:  # else logged before the interruption
            self._run.log(scalars(epoch), step=epoch.step)

    def on_end(self) -> None:
        """End the run."""
        self._run.finish()


def flat(tree: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested settings by names with points."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{before}{key}.") if isinstance(value, Mapping) and value else {before + key: value}
    return found
