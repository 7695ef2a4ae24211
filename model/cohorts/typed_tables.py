"""Tables of a hospital, as Parquet or CSV, with checked columns.

Parquet states its types, which are compared with the expected ones. CSV is text: a column that is
no number or time is an error that names the row. Times without a zone are read as UTC.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import polars as pl

from model.cohorts import DataError
from model.cohorts.stay_events.columns import FLAG, ID, NUMBER, TEXT, UTC
from model.cohorts.tables import table_errors

DATE = pl.Date()
Columns = Mapping[str, pl.DataType]

_KINDS = {
    ID: "an integer",
    NUMBER: "a number",
    TEXT: "a text",
    FLAG: "true or false",
    UTC: "a time",
    DATE: "a date",
}
_TIME = (
    r"^(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d)(:\d\d(?:\.\d{1,9})?)?"  # date, minute, second
    r"(?:Z|([+-])(\d\d):?(\d\d))?$"  # the zone
)


def scan_typed(path: Path, required: Columns, optional: Columns | None = None) -> pl.LazyFrame:
    """The named columns of a table; those of `optional` that it lacks are null.

    Raises DataError: a column is missing, has another type or, in a CSV file, a row that is not of
    the type. The text names the file, the column and the row, and quotes no value.
    """
    wanted = {**required, **(optional or {})}
    with table_errors(path):
        parquet = path.suffix == ".parquet"
        table = pl.scan_parquet(path) if parquet else _scan_csv(path)
        schema = table.collect_schema()
    by_name = {name.lower(): name for name in schema}
    if missing := [name for name in required if name not in by_name]:
        raise DataError(f"{path} has no column {', '.join(missing)}")
    here = {name: kind for name, kind in wanted.items() if name in by_name}
    table = table.select(pl.col(by_name[name]).alias(name) for name in here)
    if parquet:
        columns = [_parquet_column(path, n, k, schema[by_name[n]]) for n, k in here.items()]
    else:
        _check_rows(path, table, here)
        columns = [_csv_column(name, kind) for name, kind in here.items()]
    absent = [pl.lit(None, kind).alias(name) for name, kind in wanted.items() if name not in here]
    return table.select(*columns, *absent)


def first_unreadable(paths: Iterable[Path]) -> DataError | None:
    """The error of the first table that cannot be read; None if all can."""
    for path in paths:
        try:
            with table_errors(path):
                table = pl.scan_parquet(path) if path.suffix == ".parquet" else _scan_csv(path)
                table.select(pl.all().count()).collect(engine="streaming")
        except DataError as error:
            return error
    return None


def _scan_csv(path: Path) -> pl.LazyFrame:
    """A CSV file, whose columns may be separated by tabs, as those of OHDSI Athena."""
    header = pl.scan_csv(path, infer_schema=False, n_rows=0, separator="\t", quote_char=None)
    if len(header.collect_schema()) > 1:
        return pl.scan_csv(path, infer_schema=False, separator="\t", quote_char=None)
    return pl.scan_csv(path, infer_schema=False)


def _parquet_column(path: Path, name: str, kind: pl.DataType, found: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    is_time = isinstance(found, pl.Datetime)
    if kind == UTC and isinstance(found, pl.Datetime):
        if found.time_zone is None:
            return column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
        return column.dt.convert_time_zone("UTC").cast(UTC)
    accepted = {
        TEXT: found in (pl.String, pl.Categorical, pl.Enum),
        ID: found.is_integer(),
        NUMBER: found.is_numeric(),
        FLAG: found == FLAG,
        DATE: is_time or found == DATE,
    }
    if accepted.get(kind) or found == pl.Null:
        return column.cast(kind)
    raise DataError(f"{path}: the column {name} must hold {_KINDS[kind]} in each row")


def _csv_column(name: str, kind: pl.DataType) -> pl.Expr:
    """The column with its type; null for an empty text and for one that is not of the type."""
    text = pl.col(name).str.strip_chars()
    text = pl.when(text != "").then(text)
    if kind == UTC:
        return _utc(text).alias(name)
    if kind == DATE:
        return text.str.to_date("%Y-%m-%d", strict=False).alias(name)
    return text.cast(kind, strict=False).alias(name)


def _utc(text: pl.Expr) -> pl.Expr:
    day, minute, second, sign, zone_hours, zone_minutes = (
        text.str.extract(_TIME, group) for group in range(1, 7)
    )
    local = day + pl.lit(" ") + minute + second.fill_null(":00")
    offset = pl.duration(
        hours=zone_hours.cast(ID, strict=False).fill_null(0),
        minutes=zone_minutes.cast(ID, strict=False).fill_null(0),
    )
    wall = local.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False)
    utc = pl.when(sign == "-").then(wall + offset).otherwise(wall - offset)
    return utc.dt.replace_time_zone("UTC")


def _check_rows(path: Path, table: pl.LazyFrame, columns: Columns) -> None:
    """Raises DataError for the first row with a value that is not of the type of its column."""
    typed = {name: kind for name, kind in columns.items() if kind != TEXT}
    row = pl.col("row")
    first_wrong = [
        row.filter((pl.col(n).str.strip_chars() != "") & _csv_column(n, kind).is_null())
        .min()
        .alias(n)
        for n, kind in typed.items()
    ]
    with table_errors(path):
        found = table.with_row_index("row", 1).select(first_wrong or pl.len())
        for name, number in _named(found.collect(engine="streaming")):
            if name in typed and number is not None:
                raise DataError(
                    f"{path}, row {number}: the column {name} must hold {_KINDS[typed[name]]}"
                )


def _named(row: pl.DataFrame) -> Iterator[tuple[str, int | None]]:
    yield from row.row(0, named=True).items()
