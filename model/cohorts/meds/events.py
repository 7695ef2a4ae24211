"""The events of stays: observations, treatments and notes."""

from collections.abc import Iterator

import polars as pl

from model.cohorts.meds.code_map import CodeMap
from model.cohorts.meds.codes import Codes
from model.cohorts.stay_events.columns import NUMBER, TEXT
from model.cohorts.stay_events.courses import pair_courses
from model.cohorts.stay_events.moments import time_spans
from model.cohorts.stay_events.observations import observation_tables
from model.cohorts.stay_events.partitions import EventTable


def event_tables(
    events: pl.LazyFrame, codes: Codes, code_map: CodeMap, moments: pl.DataFrame
) -> Iterator[EventTable]:
    observed = events.join(codes.observations().lazy(), on="code").with_columns(known="time")
    yield from observation_tables(moments, observed)
    spans = time_spans(moments)
    for given in _treatments(events, codes, code_map):
        no_rate = {"rate": pl.lit(None, NUMBER), "unit": pl.lit(None, TEXT)}
        yield EventTable("treatments", spans, given.with_columns(**no_rate), "end")
    kinds = codes.matching(code_map.notes, "kind").with_columns(pl.col("kind").fill_null("note"))
    notes = events.join(kinds.lazy(), on="code").filter(pl.col("text").str.strip_chars() != "")
    yield EventTable("notes", spans, notes.with_columns(known="time"))


def _treatments(events: pl.LazyFrame, codes: Codes, code_map: CodeMap) -> Iterator[pl.LazyFrame]:
    for patterns in code_map.treatments:
        starts = events.join(codes.treatments(patterns.start).lazy(), on="code")
        if patterns.end is None:
            yield starts.with_columns(end="time")
        else:
            ends = events.join(codes.treatments(patterns.end).lazy(), on="code")
            yield pair_courses(starts, ends, ["subject_id", "key", "name"])
