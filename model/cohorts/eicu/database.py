"""The tables of eICU and the YAIB hourly grid, found in a data folder."""

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from model.cohorts import DataError, DataMissing
from model.cohorts.tables import check_columns, table_errors
from schemas.variables import load_variables

_GRID = "los/dyn.parquet"

# The rows of one table by stay, in time order.
RowsByStay = dict[int, list[tuple[Any, ...]]]
# From minutes since admission to a time.
Clock = Callable[[int], datetime]


class Database:
    """The tables of the first folder below `data` that has them. Raises DataMissing."""

    def __init__(self, data: Path) -> None:
        for patient in sorted(data.rglob("patient.csv*")):
            # File names differ in case between releases.
            self._files = {path.name.lower(): path for path in patient.parent.iterdir()}
            if self._find("diagnosis"):
                self._folder = patient.parent
                return
        raise DataMissing(f"no folder in {data} has both patient.csv.gz and diagnosis.csv.gz")

    def _find(self, name: str) -> Path | None:
        return self._files.get(f"{name}.csv.gz") or self._files.get(f"{name}.csv")

    def path(self, name: str) -> Path:
        """The file of a table. Raises DataMissing."""
        path = self._find(name)
        if path is None:
            raise DataMissing(f"{self._folder / name}.csv.gz is missing")
        return path

    def read(
        self,
        name: str,
        text: Sequence[str] = (),
        minutes: Sequence[str] = (),
        numbers: Sequence[str] = (),
    ) -> pl.DataFrame:
        """The named columns of a table, and `stay`. A text in a column of numbers becomes null.

        Raises DataMissing or DataError.
        """
        path = self.path(name)
        columns = ["patientunitstayid", *text, *minutes, *numbers]
        check_columns(path, columns)
        with table_errors(path):
            return pl.read_csv(path, columns=columns, infer_schema=False).select(
                pl.col("patientunitstayid").cast(pl.Int64).alias("stay"),
                pl.col(text),
                pl.col(minutes).cast(pl.Int64, strict=False),
                pl.col(numbers).cast(pl.Float64, strict=False),
            )


def read_grid(data: Path) -> pl.DataFrame:
    """The hourly grid. Raises DataMissing, or DataError if its columns have other types."""
    matches = sorted(data.rglob(f"yaib-eicu*/{_GRID}"))
    if not matches:
        raise DataMissing(f"{data / 'yaib-eicu-demo' / _GRID} is missing")
    with table_errors(matches[0]):
        grid = pl.read_parquet(matches[0])
        numbers = [column for v in load_variables() for column in v.eicu if column in grid.columns]
        # The casts raise an error if a column has another type.
        grid.clear().select(
            pl.col("stay_id").cast(pl.Int64),
            pl.col("time").dt.total_hours(),
            *(pl.col(column).cast(pl.Float64) for column in numbers),
        )
    return grid


def check_stays(path: Path, stays: pl.DataFrame) -> None:
    """Raises DataError if a required column of a stay has no valid value."""
    age = pl.col("age")
    valid = {
        "hospitaldischargeyear": pl.col("hospitaldischargeyear").is_between(1, 9998),
        "unitadmittime24": pl.col("unitadmittime24").str.to_time("%H:%M:%S", strict=False),
        "unitdischargeoffset": pl.col("unitdischargeoffset"),
        "hospitaldischargeoffset": pl.col("hospitaldischargeoffset"),
        "age": age.is_null() | (age == "> 89") | age.cast(pl.Float64, strict=False).is_not_null(),
        "uniquepid": pl.col("uniquepid").fill_null("") != "",
        "hospitalid": pl.col("hospitalid").fill_null("") != "",
    }
    for column, is_valid in valid.items():
        values = stays.select(is_valid).to_series()
        invalid = len(values) - (values.sum() if values.dtype == pl.Boolean else values.count())
        if invalid:
            raise DataError(f"{path}: the column {column} of {invalid} stays has no valid value")


def rows_by_stay(frame: pl.DataFrame) -> RowsByStay:
    return dict(frame.rows_by_key("stay"))
