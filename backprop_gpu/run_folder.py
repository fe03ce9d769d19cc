"""The folder of a run: what is in it, and how it is made."""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .atomic_file import SUFFIX, write_file
from .config import Config
from .data.row_files import holds_rows
from .data.sources import BUILTIN
from .errors import CheckpointError, ConfigError
from .training.callbacks import Callback, Epoch, write_history
from .training.checkpoint_file import FOLDER as CHECKPOINTS
from .training.tensorboard import PREFIX

MODEL_FILE, CONFIG_FILE, HISTORY_FILE, METRICS_FILE = (
    "model.safetensors",
    "config.yaml",
    "history.jsonl",
    "metrics.json",
)
PICTURE_FILE, REPORT_FILE = "curve.png", "report.html"
AUTO = "auto"


def check_run_dir(run_dir: str | os.PathLike[str] | None) -> None:
    """That a run may lie there, said before its data is read.

    Raises
    ------
    ConfigError
        If something is there already.
    """
    if run_dir is None:
        return
    try:
        os.lstat(run_dir)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:  # a name that is too long, for one
        raise ConfigError(f"cannot make the run folder {run_dir}: {error.strerror}") from None
    raise ConfigError(f"{run_dir} exists already; give --run-dir another folder, or remove that one")


def find_run(resume: str | os.PathLike[str] | None, run_dir: str | os.PathLike[str] | None) -> Path | None:
    """The folder of the run that is to be gone on with; None if one is to be made, in ``run_dir``.

    ``resume``: the folder; ``"auto"``: ``run_dir``, if it is there; None: there must be nothing in ``run_dir``.

    Raises
    ------
    ConfigError
        If there is no such run, or the folder is something else.
    """
    if resume is None:
        check_run_dir(run_dir)
        return None
    auto = str(resume) == AUTO
    if auto and run_dir is None:
        raise ConfigError("--resume auto needs --run-dir DIR: the folder that it goes on in, or starts in")
    if not auto and run_dir is not None:
        raise ConfigError("--resume RUN names the run folder; leave --run-dir out")
    path = Path(run_dir if auto and run_dir is not None else resume)
    try:
        found = {entry.name for entry in path.iterdir()}
    except (FileNotFoundError, NotADirectoryError) as error:
        if auto and isinstance(error, FileNotFoundError):
            return None
        raise ConfigError(f"{path} is no run folder: there is {'a file' if path.exists() else 'nothing'}") from None
    except OSError as error:
        raise ConfigError(f"cannot read the run folder {path}: {error.strerror}") from None
    begun = all(
        name.startswith(".") and name.endswith(SUFFIX) for name in found
    )  # killed before it had a configuration
    if not begun and not found & {CONFIG_FILE, CHECKPOINTS}:
        raise ConfigError(f"{path} is no run folder: it has neither {CONFIG_FILE} nor {CHECKPOINTS}")
    _refuse_links(path)
    return path


def _refuse_links(path: Path) -> None:
    """What a run writes must stay in its folder, which may come from a stranger."""
    files = (MODEL_FILE, CONFIG_FILE, HISTORY_FILE, METRICS_FILE, PICTURE_FILE, REPORT_FILE, CHECKPOINTS)
    written = [path / name for name in files]
    with contextlib.suppress(OSError):
        written += [*(path / CHECKPOINTS).iterdir(), *path.glob(f"{PREFIX}*")]
    for entry in written:
        with contextlib.suppress(FileNotFoundError):
            mode = os.lstat(entry).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise ConfigError(
                    f"{entry} is a link or no regular file, so going on with the run would write elsewhere;"
                    " put the file itself there, or remove it"
                )


def config_of(run: Path | None, resume: str | os.PathLike[str] | None, config: str | None) -> str | None:
    """The name or path of the configuration: the one that is given, else that of a run that is named.

    Raises
    ------
    ConfigError
        If a run is named that has none.
    """
    if config is not None or run is None or str(resume) == AUTO:
        return config
    if not (run / CONFIG_FILE).is_file():
        raise ConfigError(
            f"{run} has no {CONFIG_FILE}; name the configuration: backprop-gpu train CONFIG --resume {run}"
        )
    return str(run / CONFIG_FILE)


def write_config(path: Path, config: Config) -> None:
    """Write the configuration of a run that is gone on with, if it is not there as it is now.

    Raises
    ------
    CheckpointError
        If it cannot be written.
    """
    text = anchored(config).to_yaml()
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if (path / CONFIG_FILE).read_text(encoding="utf-8") == text:
            return
    try:
        write_file(path / CONFIG_FILE, text)
    except OSError as error:
        raise CheckpointError(f"cannot write {path / CONFIG_FILE}: {error.strerror}") from None


class ConfigWriter(Callback):
    """Writes a changed configuration when the fit has taken the state: a change that is refused must not stay."""

    def __init__(self, folder: Path, config: Config) -> None:
        self.folder, self.config = folder, config

    def on_start(self, epochs: int) -> None:
        """Write it."""
        write_config(self.folder, self.config)


def make_run_dir(config: Config, run_dir: str | os.PathLike[str] | None) -> Path:
    """``run_dir``, or runs/NAME-TIME, numbered where several runs start within a second; it holds the configuration."""
    named = Path("runs") / f"{config.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in itertools.count(1):
        path = Path(run_dir) if run_dir is not None else named if number == 1 else Path(f"{named}-{number}")
        try:
            path.mkdir(parents=True)  # which one alone of several processes can
        except FileExistsError:
            check_run_dir(run_dir)
            continue
        except OSError as error:
            raise ConfigError(f"cannot make the run folder {path}: {error.strerror}") from None
        try:
            write_file(path / CONFIG_FILE, anchored(config).to_yaml())
        except OSError as error:
            with contextlib.suppress(OSError):
                path.rmdir()  # so that the same command works when it can be written
            raise ConfigError(f"cannot write {path / CONFIG_FILE}: {error.strerror}") from None
        return path
    raise AssertionError("a folder is made or refused")


def save_run(
    path: Path, config: Config, save: Callable[[Path], object], epochs: Sequence[Epoch], *, taken: bool = False
) -> None:
    """The model, by ``save``, and what is missing in its run folder, which is made again if it is gone.

    ``taken``: another run has the folder by now, whose files stay.

    Raises
    ------
    CheckpointError
        If something cannot be written; names the place where the model is then.
    """
    try:
        if taken:
            raise CheckpointError(f"another run has taken {path} meanwhile")
        with contextlib.suppress(OSError):  # the model's file says why
            path.mkdir(parents=True, exist_ok=True)
        save(path / MODEL_FILE)
    except CheckpointError as error:
        try:
            elsewhere = Path(tempfile.mkdtemp(prefix="backprop_gpu-")) / MODEL_FILE
            save(elsewhere)
        except (CheckpointError, OSError):
            raise error from None
        raise CheckpointError(f"{error}; the model is in {elsewhere} instead") from None
    with beside_the_model(path):
        if not (path / CONFIG_FILE).exists():
            write_file(path / CONFIG_FILE, anchored(config).to_yaml())
        if _lines(path / HISTORY_FILE) != len(epochs):
            write_history(path / HISTORY_FILE, epochs)


@contextlib.contextmanager
def beside_the_model(path: Path) -> Iterator[None]:
    """Within it files are written to a run folder that holds its model already."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"cannot write {error.filename}: {error.strerror}; {path} holds the model") from None


def _lines(path: Path) -> int | None:
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return None


def anchored(config: Config) -> Config:
    """With absolute paths to the data, so that the run's configuration means the same in every folder."""
    d = config.data
    if d.source in BUILTIN or d.source == "-":
        return config
    paths = {"source": os.path.abspath(d.source)}
    if holds_rows(d.source) and isinstance(d.target, str):
        paths["target"] = os.path.abspath(d.target)
    return config.model_copy(update={"data": d.model_copy(update=paths)})
