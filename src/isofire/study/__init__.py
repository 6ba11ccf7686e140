"""Studies: a cell (one way of quantizing one network) in, a result row out; tables, figures and files of rows."""

from isofire.study.baseline import Baseline, fresh_model, train_baseline
from isofire.study.blame import Blame, blame
from isofire.study.cell import CONTROLS, Cell, is_control, name_of, run_cell
from isofire.study.environment import environment
from isofire.study.parquet import write_parquet
from isofire.study.reference import judged
from isofire.study.rows import known_columns, read_rows, to_csv, to_json, write_rows
from isofire.study.splits import (
    AnySet,
    NamedSplits,
    Splits,
    is_uncut_loader,
    load_split,
    load_splits,
    load_splits_or_batches,
    sample,
)
from isofire.study.tables import markdown_table, text_table

__all__ = [
    "CONTROLS",
    "AnySet",
    "Baseline",
    "Blame",
    "Cell",
    "NamedSplits",
    "Splits",
    "blame",
    "environment",
    "fresh_model",
    "is_control",
    "is_uncut_loader",
    "judged",
    "known_columns",
    "load_split",
    "load_splits",
    "load_splits_or_batches",
    "markdown_table",
    "name_of",
    "read_rows",
    "run_cell",
    "sample",
    "text_table",
    "to_csv",
    "to_json",
    "train_baseline",
    "write_parquet",
    "write_rows",
]
