"""Records of MIMIC-IV: each ICU stay at each landmark."""

from collections.abc import Iterator
from pathlib import Path

from model.cohorts import DataError, Record
from model.cohorts.mimic_iv.database import Database
from model.cohorts.mimic_iv.events import event_tables
from model.cohorts.mimic_iv.stays import icu_stays
from model.cohorts.stay_events.moments import landmarks, with_partitions
from model.cohorts.stay_events.records import Row, record_of, records_at
from model.cohorts.tables import POLARS_ERRORS, first_damaged_table

# The group of each value of `race` that starts with the key. All other values are one group.
_ETHNICITY = {
    "WHITE": "White",
    "PORTUGUESE": "White",
    "BLACK": "Black",
    "HISPANIC": "Hispanic",
    "SOUTH AMERICAN": "Hispanic",
    "ASIAN": "Asian",
    "AMERICAN INDIAN": "Native American",
}
_OTHER_ETHNICITY = "other or unknown"


def read(data: Path) -> Iterator[Record]:
    """Each ICU stay at each landmark at which the patient is still in the unit.

    Raises DataMissing if files are missing, DataError if a file is damaged.
    """
    database = Database(data)
    try:
        yield from _records(database)
    except POLARS_ERRORS as error:
        # The error of polars does not name the table, and quotes values.
        if damaged := first_damaged_table(database.scanned):
            raise damaged from None
        raise DataError(f"{data} cannot be read: {type(error).__name__}") from None


def _records(database: Database) -> Iterator[Record]:
    moments = landmarks(with_partitions(icu_stays(database)))
    yield from records_at(moments, event_tables(database, moments), _record)


def _record(row: Row) -> Record:
    groups = {
        "ethnicity": _ethnicity(row["race"] or ""),
        # Dates are shifted; the source gives the three years of the patient's first stay.
        "years": row["anchor_year_group"] or "",
    }
    return record_of(row, groups)


def _ethnicity(race: str) -> str:
    groups = (group for prefix, group in _ETHNICITY.items() if race.startswith(prefix))
    return next(groups, _OTHER_ETHNICITY)
