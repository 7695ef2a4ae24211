"""The tables of a Common Data Model as lazy frames, and its concepts."""

from collections.abc import Iterable
from pathlib import Path

import polars as pl

from model.cohorts import DataError, DataMissing
from model.cohorts.stay_events.columns import ID, TEXT
from model.cohorts.typed_tables import Columns, first_unreadable, scan_typed

_REQUIRED = ("person", "visit_occurrence", "concept")
_SUFFIXES = (".parquet", ".csv", ".csv.gz")
_CONCEPT = {"concept_id": ID, "concept_code": TEXT, "concept_name": TEXT, "vocabulary_id": TEXT}


class Database:
    """The tables in a folder. Raises DataMissing that names each missing table."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self._files: dict[str, list[Path]] = {}
        for path in sorted(data.iterdir()) if data.is_dir() else ():
            name = path.name.lower()
            suffix = next((s for s in _SUFFIXES if name.endswith(s)), None)
            if path.is_dir():
                self._files.setdefault(name, []).extend(sorted(path.rglob("*.parquet")))
            elif suffix is not None:
                self._files.setdefault(name.removesuffix(suffix), []).append(path)
        if missing := [name for name in _REQUIRED if not self.has(name)]:
            raise DataMissing(f"OMOP: no {', '.join(missing)} (.parquet, .csv, .csv.gz) in {data}")

    def has(self, table: str) -> bool:
        return bool(self._files.get(table))

    def scan(self, table: str, required: Columns, optional: Columns | None = None) -> pl.LazyFrame:
        """The columns of a table. A table without a file has no row. Raises DataError."""
        paths = self._files.get(table, [])
        if not paths:
            return pl.LazyFrame(schema={**required, **(optional or {})})
        return pl.concat([scan_typed(path, required, optional) for path in paths])

    def first_damaged(self) -> DataError | None:
        """The error of the first file that cannot be read; None if all can."""
        return first_unreadable(path for paths in self._files.values() for path in paths)

    def concepts(self, ids: Iterable[int | None]) -> pl.DataFrame:
        """`concept_id`, `code`, `name` and `vocabulary` of some concepts. 0 is no concept."""
        wanted = pl.LazyFrame(
            {"concept_id": sorted({i for i in ids if i})}, schema={"concept_id": ID}
        )
        return (
            self.scan("concept", _CONCEPT)
            .join(wanted, on="concept_id", how="semi")
            .rename({"concept_code": "code", "concept_name": "name", "vocabulary_id": "vocabulary"})
            .unique("concept_id")
            .collect(engine="streaming")
        )

    def with_concepts(self, rows: pl.DataFrame, *columns: str) -> pl.DataFrame:
        """Adds `X_code`, `X_name` and `X_vocabulary` for each column `X_concept_id`."""
        known = self.concepts(i for column in columns for i in rows[column].to_list())
        for column in columns:
            prefix = column.removesuffix("_concept_id")
            named = known.rename(
                {name: f"{prefix}_{name}" for name in ("code", "name", "vocabulary")}
            )
            rows = rows.join(named, left_on=column, right_on="concept_id", how="left")
        return rows
