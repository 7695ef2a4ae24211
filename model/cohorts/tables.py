"""Table files of a database: checks for columns and damage, and errors that name the file."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from model.cohorts import DataError

# A damaged Parquet file can make polars panic. PanicException is not a subclass of Exception.
POLARS_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)


def check_columns(path: Path, required: Iterable[str]) -> None:
    """Raises DataError if a CSV table (gzipped or not) lacks one of the columns."""
    with table_errors(path):
        columns = pl.read_csv(path, n_rows=0, infer_schema=False).columns
    if missing := [name for name in required if name not in columns]:
        raise DataError(
            f"{path} has no column {', '.join(missing)}; columns must be separated by commas"
        )


@contextmanager
def table_errors(path: Path) -> Iterator[None]:
    """Turns an error of polars into a DataError that names the file and quotes no value."""
    try:
        yield
    except POLARS_ERRORS as error:
        raise DataError(f"{path} {_reason(path, error)}") from None


def first_damaged_table(tables: Mapping[Path, Mapping[str, pl.DataType]]) -> DataError | None:
    """The error of the first table (CSV or Parquet) that cannot be read; None if all can."""
    for path, columns in tables.items():
        try:
            with table_errors(path):
                if path.suffix == ".parquet":
                    table = pl.scan_parquet(path)
                else:
                    table = pl.scan_csv(path, infer_schema=False, schema_overrides=columns)
                table.select(*columns).select(pl.all().count()).collect(engine="streaming")
        except DataError as error:
            return error
    return None


def _reason(path: Path, error: BaseException) -> str:
    if path.is_dir():
        return "is a folder"
    if isinstance(error, pl.exceptions.NoDataError):
        return "is empty"
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    return "is damaged, or is not a UTF-8 table with the expected columns, numbers and times"
