"""Courses of treatments from separate events of their starts and ends."""

from collections.abc import Sequence

import polars as pl


def pair_courses(starts: pl.LazyFrame, ends: pl.LazyFrame, key: Sequence[str]) -> pl.LazyFrame:
    """Pairs starts with ends: the first start of a key with its first end, and so on.

    Both have the columns `key` and `time`; the result has `key`, `time` and `end`. Where courses of
    a key overlap, a pair may differ from the chart; the number of running courses at any time is
    the same.
    """

    def numbered(events: pl.LazyFrame, name: str) -> pl.LazyFrame:
        return (
            events.select(*key, pl.col("time").alias(name))
            .sort(*key, name)
            .with_columns(number=pl.int_range(pl.len()).over(key))
        )

    return numbered(starts, "time").join(numbered(ends, "end"), on=[*key, "number"])
