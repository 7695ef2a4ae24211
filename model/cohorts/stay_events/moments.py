"""The moments at which records of stays are made."""

import polars as pl

from model.cohorts import LANDMARKS_HOURS
from model.cohorts.stay_events.columns import NUMBER
from schemas.features import FeatureSpec

WINDOW = pl.duration(hours=FeatureSpec.model_fields["window_hours"].default)
MOMENT = ("stay_id", "as_of")
# A height or weight from an earlier visit counts for this long.
BODY_SIZE_VALIDITY = pl.duration(days=365)
_STAYS_PER_PARTITION = 500


def with_partitions(stays: pl.DataFrame) -> pl.DataFrame:
    """The stays, sorted, with the number of the `partition` of each."""
    return (
        stays.sort("subject_id", "intime", "stay_id")
        .with_row_index("partition")
        .with_columns(partition=pl.col("partition") // _STAYS_PER_PARTITION)
    )


def landmarks(stays: pl.DataFrame) -> pl.DataFrame:
    """One row for each landmark at which the patient is still in the unit.

    The columns are those of the stays, `landmark` in hours, and `as_of`.
    """
    hours = pl.DataFrame({"landmark": LANDMARKS_HOURS}, schema={"landmark": NUMBER})
    return (
        stays.join(hours, how="cross", maintain_order="left_right")
        .with_columns(as_of=pl.col("intime") + pl.duration(hours="landmark"))
        .filter(pl.col("as_of") <= pl.col("present_until"))
    )


def time_spans(moments: pl.DataFrame) -> pl.DataFrame:
    """The time span of the inputs of each stay: `since` (exclusive) and `until` (inclusive)."""
    return moments.group_by("subject_id", "stay_id", "partition", maintain_order=True).agg(
        since=pl.col("as_of").min() - WINDOW, until=pl.col("as_of").max()
    )
