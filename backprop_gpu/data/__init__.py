"""Reading tables, preparing them for a network, and splitting them."""

from .generated import friedman1, moons
from .preprocessing import Preprocessor
from .row_files import open_rows
from .sources import BUILTIN, load_builtin, read_table
from .splits import Split, split_indices
from .table import Schema, Table, table_from_arrays
from .targets import TASKS, TargetCodec

__all__ = [
    "BUILTIN",
    "TASKS",
    "Preprocessor",
    "Schema",
    "Split",
    "Table",
    "TargetCodec",
    "friedman1",
    "load_builtin",
    "moons",
    "open_rows",
    "read_table",
    "split_indices",
    "table_from_arrays",
]
