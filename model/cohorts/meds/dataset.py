"""The files of a MEDS dataset as lazy frames."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from model.cohorts import DataError, DataMissing
from model.cohorts.stay_events.columns import ID, NUMBER, TEXT, UTC
from model.cohorts.tables import table_errors
from model.cohorts.typed_tables import first_unreadable, scan_typed

_LABELS = "labels"
_EVENTS = {"subject_id": ID, "time": UTC, "code": TEXT}
_VALUES = ("numeric_value", "value")


class Dataset:
    """The events of a dataset.

    Raises DataMissing without Parquet files, DataError as `scan_typed`.
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        below = data / "data"
        self.paths = (
            sorted(below.rglob("*.parquet")) if below.is_dir() else sorted(data.glob("*.parquet"))
        )
        if not self.paths:
            raise DataMissing(f"MEDS: no Parquet file in {below} or {data}")
        self.events = pl.concat([_scan(path) for path in self.paths])

    def first_damaged(self) -> DataError | None:
        """The error of the first file of events that cannot be read; None if all can."""
        return first_unreadable(self.paths)

    def label_files(self) -> Mapping[str, list[Path]]:
        """The files of labels by task: `labels/TASK.parquet`, or all files in `labels/TASK`."""
        folder = self.data / _LABELS
        if not folder.is_dir():
            return {}
        files: dict[str, list[Path]] = {}
        for path in sorted(folder.rglob("*.parquet")):
            files.setdefault(path.relative_to(folder).with_suffix("").parts[0], []).append(path)
        return files

    def parent_codes(self) -> dict[str, list[str]]:
        """The parents of each code, from `metadata/codes.parquet`; empty without this file."""
        path = self.data / "metadata" / "codes.parquet"
        if not path.is_file():
            return {}
        with table_errors(path):
            table = pl.read_parquet(path)
            if not {"code", "parent_codes"} <= set(table.columns):
                raise DataError(f"{path} has no column code or parent_codes")
            rows = table.select("code", "parent_codes").drop_nulls().rows()
        return {code: [*parents] for code, parents in rows}


def _scan(path: Path) -> pl.LazyFrame:
    values = dict.fromkeys(_VALUES, NUMBER)
    table = scan_typed(path, _EVENTS, {**values, "text_value": TEXT})
    return table.select(*_EVENTS, value=pl.coalesce(*_VALUES), text="text_value")
