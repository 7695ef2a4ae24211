"""Events of stays, streamed once from the large tables into partitions on disk."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

import polars as pl

from model.cohorts.stay_events.columns import EVENT_SCHEMAS


class EventTable(NamedTuple):
    """Events of patients, of one kind of EVENT_SCHEMAS.

    `spans`: the time span of the events of each stay. `last_time`: the column that must be after
    its start.
    """

    kind: Literal["observations", "treatments", "notes", "images"]
    spans: pl.DataFrame
    events: pl.LazyFrame
    last_time: Literal["time", "end"] = "time"


def write_partitions(tables: Iterable[EventTable], folder: Path) -> None:
    """Streams each table once; writes the events of the stays by kind and partition."""
    for number, table in enumerate(tables):
        events_of_stays = table.events.join(table.spans.lazy(), on="subject_id").filter(
            pl.col("time") <= pl.col("until"), pl.col(table.last_time) > pl.col("since")
        )
        events_of_stays.select(*EVENT_SCHEMAS[table.kind], "partition").sink_parquet(
            pl.PartitionBy(folder / table.kind / str(number), key="partition", include_key=False),
            mkdir=True,
        )


def read_partition(folder: Path, partition: int) -> dict[str, pl.DataFrame]:
    """The events of one partition of stays, by kind."""
    return {kind: _read_events(folder / kind, partition, kind) for kind in EVENT_SCHEMAS}


def _read_events(folder: Path, partition: int, kind: str) -> pl.DataFrame:
    paths = sorted(folder.glob(f"*/partition={partition}/*.parquet"))
    return pl.read_parquet(paths) if paths else pl.DataFrame(schema=EVENT_SCHEMAS[kind])
