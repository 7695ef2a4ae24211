"""The tables of MIMIC-IV as lazy frames, found in a data folder."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl
import polars.selectors as cs

from model.cohorts import DataMissing
from model.cohorts.stay_events.columns import ID, NUMBER, TEXT
from model.cohorts.tables import check_columns

DATE, TIME = pl.Date(), pl.Datetime("us")

_MAX_DEPTH = 4  # data/physionet.org/files/mimiciv/3.1/

_TABLES = (
    "hosp/admissions",
    "hosp/diagnoses_icd",
    "hosp/labevents",
    "hosp/omr",
    "hosp/patients",
    "hosp/prescriptions",
    "hosp/transfers",
    "icu/icustays",
    "icu/outputevents",
    "icu/procedureevents",
)
_TABLES_IN_MEDS = ("icu/chartevents", "icu/inputevents")


class Database:
    """The tables of one release. Raises DataMissing that lists every missing table."""

    def __init__(self, data: Path) -> None:
        self.data = data
        # The scanned tables and their columns, to find the damaged table after an error.
        self.scanned: dict[Path, Mapping[str, pl.DataType]] = {}
        stays = self.find("icu/icustays.csv.gz", "icu/icustays.csv")
        if stays is None:
            raise DataMissing(f"MIMIC-IV: no icu/icustays.csv.gz in {data} or below")
        self.root = stays.parents[1]
        # The demo's MEDS edition must never replace tables that the full database lacks.
        demo = (self.root / "demo_subject_id.csv").exists()
        self._meds = self.find("mimic-iv*meds*/*.parquet") if demo else None
        missing = [table for table in _TABLES if not self.has(table)]
        if self._meds is None:
            missing += [table for table in _TABLES_IN_MEDS if not self.has(table)]
        if missing:
            names = ", ".join(f"{table}.csv.gz" for table in missing)
            alternative = f", nor mimic-iv-demo-meds-*/*.parquet in {data} or below" if demo else ""
            raise DataMissing(f"MIMIC-IV: no {names} in {self.root}{alternative}")

    def find(self, *names: str) -> Path | None:
        """The last match at the smallest depth: of two releases side by side, the newer release."""
        for depth in range(_MAX_DEPTH + 1):
            for name in names:
                if matches := sorted(self.data.glob("*/" * depth + name)):
                    return matches[-1]
        return None

    def has(self, table: str) -> bool:
        return self._path(table).exists()

    def scan(self, table: str, columns: Mapping[str, pl.DataType]) -> pl.LazyFrame:
        """The named columns of a table of `hosp` or `icu`. Raises DataError if one is missing."""
        return self.scan_file(self._path(table), columns)

    def scan_file(self, path: Path, columns: Mapping[str, pl.DataType]) -> pl.LazyFrame:
        """The named columns of a CSV file. Raises DataError if one is missing."""
        check_columns(path, columns)
        self.scanned[path] = columns
        table = pl.scan_csv(path, infer_schema=False, schema_overrides=columns).select(*columns)
        return table.with_columns(cs.datetime().dt.replace_time_zone("UTC"))

    def scan_meds(self) -> pl.LazyFrame:
        """The events of the demo's MEDS edition, which does not hold storage times."""
        assert self._meds is not None
        columns = {"subject_id": ID, "code": TEXT, "time": TIME, "value": NUMBER}
        self.scanned |= dict.fromkeys(self._meds.parent.glob("*.parquet"), columns)
        code = pl.col("code").str.split("//").list
        return pl.scan_parquet(self._meds.parent / "*.parquet").select(
            "subject_id",
            pl.col("value").cast(NUMBER),
            pl.col("time").cast(TIME).dt.replace_time_zone("UTC"),
            kind=code.get(0),
            itemid=code.get(1, null_on_oob=True).cast(ID, strict=False),
            uom=code.get(2, null_on_oob=True),
        )

    def _path(self, table: str) -> Path:
        gzipped = self.root / f"{table}.csv.gz"
        return gzipped if gzipped.exists() else self.root / f"{table}.csv"
