"""Records of a MEDS dataset: each stay at each landmark, or at the times of its labels."""

import logging
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from model.cohorts import DataError, Record
from model.cohorts.meds.code_map import CodeMap
from model.cohorts.meds.codes import Codes, distinct_codes
from model.cohorts.meds.dataset import Dataset
from model.cohorts.meds.events import event_tables
from model.cohorts.meds.labels import Labels, read_labels
from model.cohorts.meds.stays import unit_stays
from model.cohorts.stay_events.columns import ID, NUMBER, UTC
from model.cohorts.stay_events.moments import landmarks
from model.cohorts.stay_events.records import Row, record_of, records_at
from model.cohorts.tables import POLARS_ERRORS

log = logging.getLogger(__name__)


def read(data: Path, codes: str | None = None) -> Iterator[Record]:
    """Each stay at each landmark at which the patient is still in the unit.

    With files of labels, the records are at their prediction times, and the labels precede the
    outcomes from codes. `codes`: file or name of the map of the dataset's codes.

    Raises DataMissing if there is no Parquet file, DataError if a file is damaged or invalid.
    """
    code_map = CodeMap.load(codes)
    dataset = Dataset(data)
    labels = read_labels(dataset.label_files())
    try:
        yield from _records(dataset, code_map, labels)
    except POLARS_ERRORS as error:
        # The error of polars does not name the file, and quotes values.
        raise dataset.first_damaged() or DataError(
            f"{data} cannot be read: {type(error).__name__}"
        ) from None


def _records(dataset: Dataset, code_map: CodeMap, labels: Labels) -> Iterator[Record]:
    events = dataset.events
    codes = Codes(distinct_codes(events), code_map, dataset.parent_codes())
    stays = unit_stays(events, codes, code_map)
    moments = _labelled_moments(stays, labels) if labels else landmarks(stays)

    def to_record(row: Row) -> Record:
        return record_of(row, stated=labels.get((row["subject_id"], row["as_of"])))

    yield from records_at(moments, event_tables(events, codes, code_map, moments), to_record)


def _labelled_moments(stays: pl.DataFrame, labels: Labels) -> pl.DataFrame:
    """The prediction times within a stay, with its columns. Logs how many are in none."""
    schema = {"subject_id": ID, "as_of": UTC}
    times = pl.DataFrame([*labels], schema=schema, orient="row")
    hours = (pl.col("as_of") - pl.col("intime")).dt.total_seconds().cast(NUMBER) / 3600
    moments = (
        stays.join(times, on="subject_id")
        .filter(pl.col("as_of").is_between("intime", "present_until"))
        .with_columns(landmark=hours)
        .sort("partition", "subject_id", "as_of", "intime")
        .unique(["subject_id", "as_of"], keep="last", maintain_order=True)
    )
    if outside := len(times) - len(moments):
        log.warning("left out %d labels whose prediction time is in no stay", outside)
    return moments
