"""Vital signs, laboratory values and Glasgow Coma Scale of eICU."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Any

import polars as pl

from model.cohorts.eicu.database import Clock, Database
from schemas.variables import load_variables

# Heading in `physicalexam`, variable, unit.
_GLASGOW_COMA_SCALE = [
    ("Eyes Score", "gcs_eye", "{score}"),
    ("Verbal Score", "gcs_verbal", "{score}"),
    ("Motor Score", "gcs_motor", "{score}"),
]


def series_table(database: Database, grid: pl.DataFrame, exam: pl.DataFrame) -> pl.DataFrame:
    """[stay, variable, unit, minutes, values], a row for each series of a stay, in time order."""
    declared = [(column, v.name, unit) for v in load_variables() for column, unit in v.eicu.items()]
    hourly = [column for column, *_ in declared if column in grid.columns]
    aperiodic = [column for column, *_ in declared if column not in grid.columns]
    frames = [
        grid.select(
            pl.col("stay_id").cast(pl.Int64).alias("stay"),
            # The row of hour k covers [k, k + 1) and is known at the end.
            ((pl.col("time").dt.total_hours() + 1) * 60).alias("minute"),
            pl.col(hourly).cast(pl.Float64),
        ),
        database.read("vitalaperiodic", minutes=("observationoffset",), numbers=aperiodic).rename(
            {"observationoffset": "minute"}
        ),
    ]
    measured = pl.concat(
        f.unpivot(index=["stay", "minute"], variable_name="column") for f in frames
    )
    scored = exam.select(
        "stay",
        "minute",
        pl.col("path").str.extract(r"/GCS/(\w+ Score)/\d$").alias("column"),
        pl.col("value").cast(pl.Float64, strict=False),
    )
    names = pl.DataFrame(
        declared + _GLASGOW_COMA_SCALE, ["column", "variable", "unit"], orient="row"
    )
    return (
        pl.concat([measured, scored])
        .drop_nulls("value")
        .join(names, on="column")
        .sort("stay", "variable", "minute", "value")
        .group_by("stay", "variable", "unit", maintain_order=True)
        .agg(minutes="minute", values="value")
    )


def series_until(
    now: int, clock: Clock, series: Iterable[tuple[Any, ...]]
) -> Iterator[dict[str, Any]]:
    """The series of a stay as a payload has them, up to the minute `now`."""
    for variable, unit, minutes, values in series:
        if known := bisect_right(minutes, now):
            yield {
                "variable": variable,
                "unit": unit,
                "times": [clock(minute) for minute in minutes[:known]],
                "values": values[:known],
            }
