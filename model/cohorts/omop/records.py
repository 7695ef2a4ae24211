"""Records of OMOP tables: each stay at each landmark."""

from collections.abc import Iterator
from pathlib import Path

from model.cohorts import DataError, Record
from model.cohorts.omop.database import Database
from model.cohorts.omop.events import event_tables
from model.cohorts.omop.stays import unit_stays
from model.cohorts.stay_events.moments import landmarks
from model.cohorts.stay_events.records import record_of, records_at
from model.cohorts.tables import POLARS_ERRORS


def read(data: Path) -> Iterator[Record]:
    """Each stay at each landmark at which the patient is still in the unit.

    Raises DataMissing if a table is missing, DataError if a file is damaged or invalid.
    """
    database = Database(data)
    try:
        moments = landmarks(unit_stays(database))
        yield from records_at(moments, event_tables(database, moments), record_of)
    except POLARS_ERRORS as error:
        # The error of polars does not name the file, and quotes values.
        raise database.first_damaged() or DataError(
            f"{data} cannot be read: {type(error).__name__}"
        ) from None
