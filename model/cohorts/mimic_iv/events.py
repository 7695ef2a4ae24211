"""The tables of MIMIC-IV that hold the events of stays."""

from collections.abc import Iterator

import polars as pl

from model.cohorts.mimic_iv.database import Database
from model.cohorts.mimic_iv.observations import clinic_measurements, observations
from model.cohorts.mimic_iv.radiology import radiology_reports, x_rays
from model.cohorts.mimic_iv.treatments import treatments
from model.cohorts.stay_events.moments import BODY_SIZE_VALIDITY, time_spans
from model.cohorts.stay_events.partitions import EventTable


def event_tables(database: Database, moments: pl.DataFrame) -> Iterator[EventTable]:
    spans = time_spans(moments)
    clinic_spans = spans.with_columns(since=pl.col("since") - BODY_SIZE_VALIDITY)
    for observed in observations(database):
        yield EventTable("observations", spans, observed)
    yield EventTable("observations", clinic_spans, clinic_measurements(database))
    for given in treatments(database):
        yield EventTable("treatments", spans, given, "end")
    for reports in radiology_reports(database):
        yield EventTable("notes", spans, reports)
    for images in x_rays(database):
        yield EventTable("images", spans, images)
