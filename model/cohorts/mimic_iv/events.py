"""Events of ICU stays, streamed once from the large tables into partitions on disk."""

from pathlib import Path

import polars as pl

from model.cohorts.mimic_iv.database import ID, NUMBER, TEXT, UTC, Database
from model.cohorts.mimic_iv.observations import clinic_measurements, observations
from model.cohorts.mimic_iv.radiology import radiology_reports, x_rays
from model.cohorts.mimic_iv.treatments import treatments

# A height or weight from an outpatient visit counts for this long.
_CLINIC_VALIDITY = pl.duration(days=365)

# The columns of each kind of event. `known`: the time from which the event was known.
EVENT_SCHEMAS = {
    "observations": {
        "stay_id": ID,
        "variable": TEXT,
        "unit": TEXT,
        "value": NUMBER,
        "time": UTC,
        "known": UTC,
        "itemid": ID,
        "uom": TEXT,
    },
    "treatments": {
        "stay_id": ID,
        "name": TEXT,
        "time": UTC,
        "end": UTC,
        "rate": NUMBER,
        "unit": TEXT,
    },
    "notes": {"stay_id": ID, "time": UTC, "known": UTC, "text": TEXT},
    "images": {"stay_id": ID, "time": UTC, "path": TEXT, "view": TEXT},
}


def write_partitions(database: Database, stays: pl.DataFrame, folder: Path) -> None:
    """Streams each table once; writes the events of the stays by kind and partition."""
    spans = stays.select("subject_id", "stay_id", "partition", "since", "until")
    clinic_spans = spans.with_columns(since=pl.col("since") - _CLINIC_VALIDITY)
    tables = [
        *(("observations", spans, table, "time") for table in observations(database)),
        ("observations", clinic_spans, clinic_measurements(database), "time"),
        *(("treatments", spans, table, "end") for table in treatments(database)),
        *(("notes", spans, table, "time") for table in radiology_reports(database)),
        *(("images", spans, table, "time") for table in x_rays(database)),
    ]
    for number, (kind, span, events, last_time) in enumerate(tables):
        events_of_stays = events.join(span.lazy(), on="subject_id").filter(
            pl.col("time") <= pl.col("until"), pl.col(last_time) > pl.col("since")
        )
        events_of_stays.select(*EVENT_SCHEMAS[kind], "partition").sink_parquet(
            pl.PartitionBy(folder / kind / str(number), key="partition", include_key=False),
            mkdir=True,
        )


def read_partition(folder: Path, partition: int) -> dict[str, pl.DataFrame]:
    """The events of one partition of stays, by kind."""
    return {kind: _read_events(folder / kind, partition, kind) for kind in EVENT_SCHEMAS}


def _read_events(folder: Path, partition: int, kind: str) -> pl.DataFrame:
    paths = sorted(folder.glob(f"*/partition={partition}/*.parquet"))
    return pl.read_parquet(paths) if paths else pl.DataFrame(schema=EVENT_SCHEMAS[kind])
