"""Records of eICU: each stay of the hourly grid at each landmark."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Self

import polars as pl

from model.cohorts import LANDMARKS_HOURS, Record
from model.cohorts.eicu.database import (
    Database,
    RowsByStay,
    check_stays,
    read_grid,
    rows_by_stay,
)
from model.cohorts.eicu.notes import exam_table, notes_table
from model.cohorts.eicu.outcomes import first_charted, outcomes_of
from model.cohorts.eicu.series import series_table, series_until
from model.cohorts.eicu.treatments import (
    infusions_table,
    infusions_until,
    orders_table,
    orders_until,
)
from schemas.payload import as_payload

_AGE_OVER_89 = 90.0  # the source writes "> 89", so that no patient is recognised by age

_SEX = {"Female": "female", "Male": "male"}
_ADMISSION_SOURCE = {
    "Emergency Department": "emergency",
    "Operating Room": "operating_room",
    "Recovery Room": "operating_room",
    "PACU": "operating_room",
    "Floor": "ward",
    "Acute Care/Floor": "ward",
    "Step-Down Unit (SDU)": "step_down_unit",
    "ICU": "other_icu",
    "Other ICU": "other_icu",
    "ICU to SDU": "other_icu",
    "Other Hospital": "other_hospital",
    "Direct Admit": "direct",
}
_UNIT_TYPE = {
    "Med-Surg ICU": "mixed_icu",
    "MICU": "medical_icu",
    "SICU": "surgical_icu",
    "Cardiac ICU": "cardiac_icu",
    "CCU-CTICU": "cardiac_icu",
    "CSICU": "cardiac_surgery_icu",
    "CTICU": "cardiac_surgery_icu",
    "Neuro ICU": "neuro_icu",
}
_ETHNICITY = {
    "African American": "Black",
    "Asian": "Asian",
    "Caucasian": "White",
    "Hispanic": "Hispanic",
    "Native American": "Native American",
    "Other/Unknown": "other or unknown",
}


def read(data: Path) -> Iterator[Record]:
    """One record for each stay of the grid and each landmark at which it is still in the unit.

    Reads the eICU tables of the first folder below `data` that has them, as `.csv.gz` or `.csv`.
    Raises DataMissing for the first missing file, DataError if a file is damaged.
    """
    database = Database(data)
    grid = read_grid(data)
    stays = _stays(database, grid)
    inputs = _Inputs.read(database, grid)
    charted = first_charted(database)
    for stay in stays.sort("stay").iter_rows(named=True):
        for landmark in LANDMARKS_HOURS:
            if stay["unitdischargeoffset"] < landmark * 60:
                break
            yield _record(stay, inputs, charted.get(stay["stay"], {}), landmark)


def note_texts(data: Path, landmark_hours: float = 24) -> Iterator[str]:
    """The notes in the records of `read` up to this landmark, for training a tokenizer."""
    database = Database(data)
    notes = notes_table(database, exam_table(database))
    yield from notes.filter(pl.col("minute") <= landmark_hours * 60)["text"]


def _stays(database: Database, grid: pl.DataFrame) -> pl.DataFrame:
    """The rows of `patient` of the stays in the grid. Raises DataError for an invalid value."""
    stays = database.read(
        "patient",
        text=(
            *("gender", "age", "unittype", "unitadmitsource", "unitadmittime24", "uniquepid"),
            *("hospitalid", "hospitaldischargestatus", "hospitaldischargelocation", "ethnicity"),
        ),
        minutes=("hospitaldischargeyear", "hospitaldischargeoffset", "unitdischargeoffset"),
        numbers=("admissionheight", "admissionweight"),
    ).join(
        grid.select(pl.col("stay_id").cast(pl.Int64).alias("stay")).unique(), on="stay", how="semi"
    )
    check_stays(database.path("patient"), stays)
    return stays


@dataclass(frozen=True)
class _Inputs:
    """The inputs of all stays, by stay."""

    series: RowsByStay
    notes: RowsByStay
    orders: RowsByStay
    infusions: RowsByStay

    @classmethod
    def read(cls, database: Database, grid: pl.DataFrame) -> Self:
        exam = exam_table(database)
        return cls(
            series=rows_by_stay(series_table(database, grid, exam)),
            notes=rows_by_stay(notes_table(database, exam)),
            orders=rows_by_stay(orders_table(database)),
            infusions=rows_by_stay(infusions_table(database)),
        )


def _record(
    stay: dict[str, Any], inputs: _Inputs, charted: dict[str, int | None], landmark: int
) -> Record:
    """The record of a stay at a landmark. `charted`: minutes of each disease's first charting."""
    key, now = stay["stay"], landmark * 60
    admitted = datetime.combine(
        date(stay["hospitaldischargeyear"], 1, 1), time.fromisoformat(stay["unitadmittime24"]), UTC
    )

    def clock(minute: int) -> datetime:
        return admitted + timedelta(minutes=minute)

    payload = as_payload(
        {
            "as_of": clock(now),
            "tabular": _tabular(stay, admitted),
            "series": list(series_until(now, clock, inputs.series.get(key, ()))),
            "treatments": [
                *orders_until(now, clock, inputs.orders.get(key, ())),
                *infusions_until(now, clock, inputs.infusions.get(key, ())),
            ],
            "notes": [
                {"kind": kind, "time": clock(minute), "text": text}
                for minute, kind, text in inputs.notes.get(key, ())
                if minute <= now
            ],
        }
    )
    return Record(
        payload=payload,
        outcomes=outcomes_of(stay, charted, now),
        patient=stay["uniquepid"],
        site=stay["hospitalid"],
        stay=str(key),
        landmark_hours=float(landmark),
        groups={
            "ethnicity": _ETHNICITY.get(stay["ethnicity"], "other or unknown"),
            "years": str(stay["hospitaldischargeyear"]),
        },
        charted={
            disease: (minute - now) / 60
            for disease, minute in charted.items()
            if minute is not None
        },
    )


def _tabular(stay: dict[str, Any], admitted: datetime) -> dict[str, Any]:
    age = stay["age"]
    return {
        "age": _AGE_OVER_89 if age == "> 89" else age and float(age),
        "sex": _SEX.get(stay["gender"]),
        "height_cm": stay["admissionheight"],
        "weight_kg": stay["admissionweight"],
        "admission_source": _ADMISSION_SOURCE.get(stay["unitadmitsource"]),
        "unit_type": _UNIT_TYPE.get(stay["unittype"]),
        "admitted_at": admitted,
    }
