"""Tables of a database as files, and what is wrong with one that cannot be read."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from model.cohorts import DataError

# A panic of polars, which a damaged Parquet file brings about, is no Exception.
FAULTS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)


def check_columns(path: Path, needed: Iterable[str]) -> None:
    """Raises DataError if a table (CSV, gzipped or not) lacks one of the columns."""
    with naming_table(path):
        there = pl.read_csv(path, n_rows=0, infer_schema=False).columns
    if missing := [name for name in needed if name not in there]:
        raise DataError(f"{path} has no column {', '.join(missing)}; columns are parted by commas")


@contextmanager
def naming_table(path: Path) -> Iterator[None]:
    """What polars says of a table becomes a DataError that names the file, and quotes no value."""
    try:
        yield
    except FAULTS as error:
        raise DataError(f"{path} {_fault(path, error)}") from None


def first_fault(tables: Mapping[Path, Mapping[str, pl.DataType]]) -> DataError | None:
    """The first of the tables (CSV or Parquet) that cannot be read whole; None: all can."""
    for path, columns in tables.items():
        try:
            with naming_table(path):
                if path.suffix == ".parquet":
                    table = pl.scan_parquet(path)
                else:
                    table = pl.scan_csv(path, infer_schema=False, schema_overrides=columns)
                table.select(*columns).select(pl.all().count()).collect(engine="streaming")
        except DataError as error:
            return error
    return None


def _fault(path: Path, error: BaseException) -> str:
    if path.is_dir():
        return "is a folder"
    if isinstance(error, pl.exceptions.NoDataError):
        return "is empty"
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    return (
        "is damaged, or is no table (in UTF-8) with the columns, numbers and times it should have"
    )
