"""From a table as read to the network's inputs: fill, standardize, one-hot, all learnt on the training rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from ..errors import CheckpointError, ConfigError, DataError, shown
from .cells import listed
from .column_checks import categories_of, missing_cell, unknown_category
from .piecewise_linear import NO_BINS, PiecewiseLinear, bins_for
from .policies import CHOICES, check_choice, columns_to_read
from .read_settings import AS_FOUND, ReadSettings
from .readings import Reading
from .saved import check_preprocessor
from .statistics import Survey, bins, scaling, survey
from .table import Schema, Table
from .tabular_inputs import smooth_clip
from .targets import TargetCodec

MAX_CATEGORIES = 100
"""Categories of a column, unless more are asked for; columns of more are usually names or identifiers."""
_BLOCK_TEXTS = 1 << 16  # cells that are Python texts at the same time
_FORMAT, _BEFORE_BINS = 4, 3
_PREFIX = "preprocessor."  # of the tensors' names: they travel beside the weights


@dataclass(frozen=True)
class Preprocessor:
    """Everything that turns raw rows into inputs and targets; made by :meth:`fit` or :meth:`from_state`.

    Inputs are laid out as: the numeric columns, one 0/1 column for each of ``indicators``, the components of the
    piecewise-linear encoding, the one-hot columns.

    Parameters
    ----------
    columns, numeric : tuple of str
        All feature columns of the training table in its order; those of them that hold numbers.
    categories : dict of str to tuple of str
        The categories of each of the other columns, sorted; an empty string stands for missing.
    indicators : tuple of str
        Numeric columns that get a column which says where values were missing.
    fill : ndarray of float64, shape (n_numeric,), or None
        What stands in for a missing number; None: a missing value is an error.
    mean, scale : ndarray of float64, shape (n_numeric,)
        input = (value - mean) / scale; with ``robust`` median and distance of the quartiles.
    named : bool
        Whether columns are matched by name (else by position).
    unknown : str
        What to do with a category that was not seen in training: ``error``, ``ignore`` (all zeros), or ``missing`` (as
        a gap, which is all zeros too if the column had none in training).
    missing_columns : str
        What to do with a table that lacks a column: ``error``, or ``fill``: each of its cells is missing. Where
        training rows had no gaps, a number that is missing in this way becomes their mean, and a category all zeros.
    extra_columns : str
        What to do with a table that has further columns: ``ignore`` or ``error``.
    weight_column : str or None
        The column of the rows' weights, by which rows that have it are scored.
    others : tuple of str
        The columns of the training file that are neither features nor targets: they are not further ones.
    target : TargetCodec or None
        How targets are encoded.
    settings : ReadSettings
        How the training file was to be read.
    readings : tuple of Reading
        How its columns were read; a date among them gives several numeric columns.
    robust : bool
        Whether inputs are kept within +-3 by the smooth clip of ``tabular_inputs.smooth_clip``.
    bins : PiecewiseLinear
        Of the numeric columns; of the parts of dates the hours alone have some.
    """

    columns: tuple[str, ...]
    numeric: tuple[str, ...]
    categories: dict[str, tuple[str, ...]]
    indicators: tuple[str, ...]
    fill: np.ndarray | None
    mean: np.ndarray
    scale: np.ndarray
    named: bool
    unknown: str = "error"
    target: TargetCodec | None = None
    settings: ReadSettings = AS_FOUND
    missing_columns: str = "error"
    extra_columns: str = "ignore"
    others: tuple[str, ...] = ()
    weight_column: str | None = None
    readings: tuple[Reading, ...] = ()
    robust: bool = False
    bins: PiecewiseLinear = NO_BINS

    @classmethod
    def fit(
        cls,
        table: Table,
        *,
        task: str | None = None,
        standardize: bool | str = True,
        piecewise_linear: int = 0,
        missing: str | None = None,
        unknown: str = "error",
        standardize_target: bool = False,
        missing_columns: str = "error",
        extra_columns: str = "ignore",
        positive: str | int | None = None,
        weight_column: str | None = None,
        max_categories: int = MAX_CATEGORIES,
    ) -> Preprocessor:
        """Learn from the training rows.

        Parameters
        ----------
        table : Table
            The training rows, and no others.
        task : str, optional
            See :class:`TargetCodec`; None: the target is left alone.
        standardize : bool or "robust"
            Give numeric columns mean 0 and standard deviation 1 (constant ones: 0). "robust": median 0 and quartiles at
            a distance of 1, then a smooth clip at +-3 (``tabular_inputs.RobustScale``).
        piecewise_linear : int
            Bins of each number's piecewise-linear encoding, which stands beside it; at most 1024 in all; 0: none.
        missing : None, "mean", "median" or "indicator"
            What fills missing numbers; indicator: the mean (with "robust" the median), and a 0/1 column for each column
            with gaps. With any of them, a missing text is a category of its own. None: a missing value is an error.
        unknown, missing_columns, extra_columns, weight_column : str
            See the class.
        positive : str or int, optional
            binary: the class that is predicted by its probability; None: the second one.
        max_categories : int
            A column with more different texts is an error: they are names.
        standardize_target : bool
            regression: the network learns the standardized target; :meth:`decode` undoes it.

        Raises
        ------
        ConfigError, DataError
            For a wrong setting; for a missing or infinite value and for targets that do not fit the task.
        """
        policies = {"unknown": unknown, "missing_columns": missing_columns, "extra_columns": extra_columns}
        for setting, value in (*policies.items(), *([("missing", missing)] if missing is not None else [])):
            check_choice(setting, value)
        found = _surveyed(table, missing)
        fill, mean, scale = scaling(table, found, missing, standardize)
        gaps, stored = zip(table.numeric_names, found.gaps, strict=True), {*table.stored_names}
        return cls(
            columns=table.columns,
            numeric=table.numeric_names,
            categories={name: categories_of(table, name, missing, max_categories) for name in table.categorical},
            indicators=tuple(name for name, gap in gaps if gap and missing == "indicator" and name in stored),
            fill=None if missing is None else fill,
            mean=mean,
            scale=scale,
            named=table.named,
            **policies,
            others=table.others,
            target=None if task is None else TargetCodec.fit(table, task, standardize_target, positive),
            weight_column=weight_column,
            settings=table.settings,
            readings=table.readings,
            robust=standardize == "robust",
            bins=bins(table, bins_for(piecewise_linear, len(table.numeric_names) + len(table.categorical))),
        )

    @property
    def feature_names(self) -> tuple[str, ...]:
        """What each column of the output of :meth:`transform` is."""
        one_hot = (f"{name}={category or 'missing'}" for name, found in self.categories.items() for category in found)
        gaps = (f"{name} is missing" for name in self.indicators)
        return (*self.numeric, *gaps, *self.bins.names(self.numeric[: len(self.bins.edges)]), *one_hot)

    @property
    def origins(self) -> tuple[str, ...]:
        """The column of the table that each column of the output of :meth:`transform` is made of.

        A number that is no column is a part of the one that it is named after, as ``when (hour)`` is of ``when``.
        """
        own = set(self.columns)
        binned = (name for name, n in zip(self.numeric, self.bins.widths, strict=False) for _ in range(n))
        names = (*self.numeric, *self.indicators, *binned)
        numbers = (name if name in own else name.rpartition(" (")[0] for name in names)
        one_hot = (name for name, found in self.categories.items() for _ in found)
        return (*numbers, *one_hot)

    @property
    def schema(self) -> Schema:
        """For ``read_table(path, like=preprocessor.schema)``."""
        codec = self.target
        text_target = codec is not None and bool(codec.labels) and not codec.integers
        names = codec.names if codec is not None else ()
        policies = (self.others, self.missing_columns, self.extra_columns)
        forms = {reading.name: reading.form for reading in self.readings if reading.form is not None}
        return Schema(self.columns, tuple(self.categories), names, self.settings, text_target, *policies, forms)

    def transform(self, table: Table, dtype: Any = "float32") -> np.ndarray:
        """Return the inputs (n_samples, n_features) in ``dtype``; computed in float64, block by block.

        Raises
        ------
        DataError
            For columns other than in training, a missing, infinite or overflowing value, or an unknown category.
        """
        order = self._order(table)
        n_numeric, n_binned = len(self.numeric), len(self.bins.edges)
        n_scaled = n_numeric + len(self.indicators)
        start = n_scaled + self.bins.width
        with_gaps = set(self.indicators)
        marked = [j for j, name in enumerate(self.numeric) if name in with_gaps]
        out = np.empty((table.n_samples, len(self.feature_names)), dtype=dtype)
        for part, block in table.blocks():
            raw = values = block if order is None else _in_order(block, order)
            gaps = np.isnan(values)
            if np.any(gaps):
                values = np.where(gaps, self._filling(table, gaps, order), values)
            with np.errstate(over="ignore"):
                scaled = (values - self.mean) / self.scale
                out[part, :n_numeric] = smooth_clip(scaled) if self.robust else scaled
            out[part, n_numeric:n_scaled] = gaps[:, marked]
            out[part, n_scaled:start] = self.bins(raw[:, :n_binned])
            if not np.all(finite := np.isfinite(out[part, :n_numeric])):
                i, j = np.argwhere(~finite)[0]
                cell = f"{table.where(part.start + i)}, column {self.numeric[j]!r}"
                raise DataError(f"{cell}: {values[i, j]} does not fit {out.dtype}; correct it, or change its unit")
        out[:, start:] = 0.0
        for name, known in self.categories.items():
            if name in table.categorical:
                self._one_hot(table, name, known, out[:, start : start + len(known)])
            elif "" in known:  # the column is missing
                out[:, start + known.index("")] = 1.0
            start += len(known)
        return out

    def encode_target(self, table: Table, dtype: Any = "float32") -> np.ndarray:
        """See :meth:`TargetCodec.encode`."""
        return self._codec.encode(table, dtype)

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """See :meth:`TargetCodec.decode`."""
        return self._codec.decode(outputs)

    @property
    def _codec(self) -> TargetCodec:
        if self.target is None:
            raise ConfigError("the preprocessor was fitted without a task, so it knows no targets; give fit a task")
        return self.target

    def _filling(self, table: Table, gaps: np.ndarray, order: list[int] | None) -> np.ndarray:
        """What stands in for missing numbers, (n_numeric,)."""
        if self.fill is not None:
            return self.fill
        absent = [False] * len(self.numeric) if order is None else [at < 0 for at in order]
        if np.any(gaps[:, np.logical_not(absent)]):
            _refuse_gap(table)
        if not np.any(self.mean) and np.all(self.scale == 1.0):  # not standardized: the mean was not kept
            name = shown(self.numeric[absent.index(True)])
            problem = f"{table.source} lacks the column {name}, and the model knows nothing to fill it with"
            raise DataError(f"{problem}; add it, or train with missing: mean")
        return self.mean

    def _order(self, table: Table) -> list[int] | None:
        """Where each numeric column of training is in ``table.stored``, -1: nowhere (None: in the same place)."""
        by_name = self.named and table.named
        if by_name:
            columns_to_read(table.columns, self.schema, table.source)
            other_kind = sorted({*table.categorical} & {*self.numeric} | {*table.numeric_names} & {*self.categories})
        else:
            if len(table.columns) != len(self.columns):
                n, m = len(table.columns), len(self.columns)
                raise DataError(f"{table.source} has {n} feature columns, the training data had {m}")
            other_kind = [*table.categorical, *self.categories]
        for name in other_kind:
            held, wanted = ("text", "numbers") if name in table.categorical else ("numbers", "text")
            raise DataError(
                f"{table.source}: column {name!r} holds {held}, in training it held {wanted};"
                " correct it, and read the file like the training data"
            )
        if not by_name or table.numeric_names == self.numeric:
            return None
        at = {name: j for j, name in enumerate(table.numeric_names)}
        return [at.get(name, -1) for name in self.numeric]

    def _one_hot(self, table: Table, name: str, known: Sequence[str], out: np.ndarray) -> None:
        values, number = table.categorical[name], {category: k for k, category in enumerate(known)}
        at = np.empty(len(values), np.int64)
        otherwise = number.get("", -1) if self.unknown == "missing" else -1
        for start in range(0, len(values), _BLOCK_TEXTS):
            block = values[start : start + _BLOCK_TEXTS].tolist()
            at[start : start + len(block)] = [number.get(text, otherwise) for text in block]
        rows = np.flatnonzero(at >= 0)
        if self.unknown == "error" and len(rows) < len(values):
            i = int(np.argmin(at >= 0))
            what = shown(str(values[i])) if values[i] else "a missing value"
            problem = f"{table.where(i)}, column {shown(name)}: {what} is not among the training categories"
            raise unknown_category(f"{problem} ({listed(known)})", name, list(known), table.ignored)
        out[rows, at[rows]] = 1.0

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return (tensors, JSON-able dict) from which :meth:`from_state` makes the same preprocessor, to the bit."""
        tensors = {"mean": self.mean, "scale": self.scale, "edges": self.bins.joined}
        if self.fill is not None:
            tensors["fill"] = self.fill
        meta: dict[str, Any] = {
            "format": _FORMAT,
            "columns": list(self.columns),
            "numeric": list(self.numeric),
            "categories": [[name, list(found)] for name, found in self.categories.items()],
            "indicators": list(self.indicators),
            "named": self.named,
            "unknown": self.unknown,
            "missing_columns": self.missing_columns,
            "extra_columns": self.extra_columns,
            "others": list(self.others),
            "weight_column": self.weight_column,
            "settings": self.settings.given(),
            "readings": [reading.state() for reading in self.readings],
            "target": None,
            "robust": self.robust,
            "edges": self.bins.counts,
        }
        if self.target is not None:
            more, meta["target"] = self.target.state()
            tensors |= {f"target.{key}": tensor for key, tensor in more.items()}
        return {_PREFIX + key: tensor for key, tensor in tensors.items()}, meta

    @classmethod
    def from_state(cls, tensors: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> Preprocessor:
        """Undo :meth:`state`; other tensors may lie beside its own. Raises CheckpointError if something is missing."""
        if not isinstance(meta, Mapping) or meta.get("format") not in (_BEFORE_BINS, _FORMAT):
            found = shown(meta.get("format") if isinstance(meta, Mapping) else meta)
            raise CheckpointError(
                f"the preprocessor has format {found}, this version reads {_BEFORE_BINS} and {_FORMAT}"
            )
        own = {key.removeprefix(_PREFIX): tensor for key, tensor in tensors.items() if key.startswith(_PREFIX)}
        if meta["format"] == _BEFORE_BINS:
            meta, own = {"robust": False, "edges": [], **meta}, {"edges": NO_BINS.joined, **own}
        of_target = {key.removeprefix("target."): own.pop(key) for key in list(own) if key.startswith("target.")}
        try:
            made = cls(
                columns=tuple(meta["columns"]),
                numeric=tuple(meta["numeric"]),
                categories={name: tuple(found) for name, found in meta["categories"]},
                indicators=tuple(meta["indicators"]),
                fill=own.get("fill"),
                mean=own["mean"],
                scale=own["scale"],
                named=meta["named"],
                unknown=meta["unknown"],
                target=None if meta["target"] is None else TargetCodec.from_state(of_target, meta["target"]),
                settings=ReadSettings(**meta["settings"]),
                readings=tuple(map(Reading.from_state, meta["readings"])),
                missing_columns=meta["missing_columns"],
                extra_columns=meta["extra_columns"],
                others=tuple(meta["others"]),
                weight_column=meta["weight_column"],
                robust=meta["robust"],
                bins=PiecewiseLinear.split(own["edges"], meta["edges"]),
            )
            check_preprocessor(made, CHOICES)
        except CheckpointError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problem = shown(f"{type(error).__name__} {error}", quoted=False)
            raise CheckpointError(f"the saved preprocessor is damaged: {problem}; make the file again") from None
        return made


def _in_order(block: np.ndarray, order: list[int]) -> np.ndarray:
    """The columns of a block at these places, NaN for -1."""
    if min(order, default=0) >= 0:
        return block[:, order]
    return np.stack([block[:, j] if j >= 0 else np.full(len(block), np.nan) for j in order], axis=1)


def _surveyed(table: Table, missing: str | None) -> Survey:
    if table.n_samples == 0:
        raise DataError(f"{table.source}: there are no training rows")
    found = survey(table)
    if missing is None and np.any(found.gaps):
        _refuse_gap(table)
    return found


def _refuse_gap(table: Table) -> NoReturn:
    """Raise at the first missing number of a table that has one."""
    for part, block in table.blocks():
        if np.any(gaps := np.isnan(block)):
            i, j = np.argwhere(gaps)[0]
            raise missing_cell(f"{table.where(part.start + int(i))}, column {shown(table.numeric_names[j])}")
    raise AssertionError("called for a table without gaps")
