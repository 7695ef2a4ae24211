"""The events of stays: observations, treatments and notes."""

import logging
from collections.abc import Iterator
from functools import cache

import polars as pl

from model.cohorts.omop.database import Database
from model.cohorts.stay_events.columns import ID, NUMBER, TEXT, UTC
from model.cohorts.stay_events.moments import time_spans
from model.cohorts.stay_events.observations import meanings, observation_tables
from model.cohorts.stay_events.partitions import EventTable
from model.cohorts.typed_tables import DATE
from schemas.features import FeatureSpec
from schemas.fhir.documents import NOTE_KINDS
from schemas.fhir.quantities import UnitChoice
from schemas.terminology.treatment_names import AMBIGUOUS, PROCEDURES, find_treatment

log = logging.getLogger(__name__)

_ADMINISTERED = 32818  # drug_type_concept_id: EHR administration record


def event_tables(database: Database, moments: pl.DataFrame) -> Iterator[EventTable]:
    for table in ("measurement", "observation"):
        yield from observation_tables(moments, _observed(database, table))
    spans = time_spans(moments)
    no_rate = {"rate": pl.lit(None, NUMBER), "unit": pl.lit(None, TEXT)}
    for given in (_drugs(database), _procedures(database)):
        yield EventTable("treatments", spans, given.with_columns(**no_rate), "end")
    yield EventTable("notes", spans, _notes(database))


def _observed(database: Database, table: str) -> pl.LazyFrame:
    """Numbers with a LOINC and a time of day, in `measurement` or `observation`."""
    concept, source = f"{table}_concept_id", f"{table}_source_concept_id"
    key = [concept, source, "unit_concept_id", "unit_source_value"]
    rows = database.scan(
        table,
        {"person_id": ID, concept: ID, f"{table}_datetime": UTC, "value_as_number": NUMBER},
        {source: ID, "unit_concept_id": ID, "unit_source_value": TEXT},
    )
    distinct = rows.select(key).unique().collect(engine="streaming")
    named = database.with_concepts(distinct, concept, source, "unit_concept_id")
    codes = [
        pl.when(pl.col(f"{name}_vocabulary") == "LOINC").then(f"{name}_code")
        for name in (table, f"{table}_source")
    ]
    ucum = pl.when(pl.col("unit_vocabulary") == "UCUM").then("unit_code")
    units = named.with_columns(name=pl.lit("loinc:") + pl.coalesce(codes), unit_code=ucum)
    units = units.drop_nulls("name").with_columns(
        uom=pl.struct("name", "unit_code", "unit_source_value").map_elements(
            lambda row: _choose_unit(*row.values()), TEXT, skip_nulls=False
        )
    )
    known = units.join(
        meanings(units.select("name", "uom").unique().rows()), on=["name", "uom"], nulls_equal=True
    )
    return (
        rows.join(known.lazy(), on=key, nulls_equal=True)
        .rename({"person_id": "subject_id", "value_as_number": "value", "name": "code"})
        .with_columns(time=f"{table}_datetime", known=f"{table}_datetime")
    )


def _choose_unit(name: str, code: str | None, text: str | None) -> str | None:
    """The unit of a concept or text; "contradictory", which no variable accepts, if they differ."""
    text = text if text and text.strip() else None
    chosen = _unit_choice().choose(name, code, text)
    return "contradictory" if chosen is False else chosen


@cache
def _unit_choice() -> UnitChoice:
    return UnitChoice(FeatureSpec.default())


@cache
def _treatment_names() -> frozenset[str]:
    return FeatureSpec.default().treatment_names


def _treatment(*texts: str | None) -> str | None:
    """The declared treatment of the first text that means exactly one."""
    names = (find_treatment(text, _treatment_names()) for text in texts if text)
    return next((name for name in names if name not in (None, AMBIGUOUS)), None)


def _drugs(database: Database) -> pl.LazyFrame:
    """Drugs that were administered. Orders, dispensings and claims do not state that."""
    key = ["drug_concept_id", "drug_source_value"]
    rows = database.scan(
        "drug_exposure",
        {
            "person_id": ID,
            "drug_concept_id": ID,
            "drug_type_concept_id": ID,
            "drug_exposure_start_datetime": UTC,
        },
        {"drug_exposure_end_datetime": UTC, "drug_source_value": TEXT},
    )
    given = pl.col("drug_type_concept_id") == _ADMINISTERED
    if other := rows.select((~given).sum()).collect(engine="streaming").item():
        log.warning("did not read %d drug exposures that are not administrations", other)
    rows = rows.filter(given)
    named = database.with_concepts(
        rows.select(key).unique().collect(engine="streaming"), "drug_concept_id"
    )
    treatments = named.with_columns(
        name=pl.struct("drug_name", "drug_source_value").map_elements(
            lambda row: _treatment(*row.values()), TEXT
        )
    ).select(*key, "name")
    return _courses(
        rows.join(treatments.drop_nulls("name").lazy(), on=key, nulls_equal=True),
        "drug_exposure_start_datetime",
        "drug_exposure_end_datetime",
    )


def _procedures(database: Database) -> pl.LazyFrame:
    """Procedures of declared treatments, by code, otherwise by name."""
    rows = database.scan(
        "procedure_occurrence",
        {"person_id": ID, "procedure_concept_id": ID, "procedure_datetime": UTC},
        {"procedure_end_datetime": UTC},
    )
    ids = rows.select("procedure_concept_id").unique().collect(engine="streaming")
    named = database.with_concepts(ids, "procedure_concept_id")
    treatments = named.with_columns(
        treatment=pl.struct(
            "procedure_vocabulary", "procedure_code", "procedure_name"
        ).map_elements(lambda row: _procedure(*row.values()), TEXT)
    ).select("procedure_concept_id", name="treatment")
    return _courses(
        rows.join(treatments.drop_nulls("name").lazy(), on="procedure_concept_id"),
        "procedure_datetime",
        "procedure_end_datetime",
    )


def _procedure(vocabulary: str | None, code: str | None, name: str | None) -> str | None:
    by_code = PROCEDURES.get(vocabulary or "", {}).get(code or "")
    return by_code or _treatment(name)


def _courses(rows: pl.LazyFrame, start: str, end: str) -> pl.LazyFrame:
    """Courses with a time of day. Without an end, or with one before its start: at the start."""
    return rows.drop_nulls(start).select(
        "name", subject_id="person_id", time=start, end=pl.max_horizontal(start, end)
    )


def _notes(database: Database) -> pl.LazyFrame:
    """Notes, known from their time; without a time of day, from the end of the day."""
    rows = database.scan(
        "note",
        {"person_id": ID, "note_date": DATE, "note_text": TEXT},
        {"note_datetime": UTC, "note_class_concept_id": ID},
    )
    ids = rows.select("note_class_concept_id").unique().collect(engine="streaming")
    named = database.with_concepts(ids, "note_class_concept_id")
    kinds = named.select(
        "note_class_concept_id",
        kind=pl.col("note_class_code").replace_strict(NOTE_KINDS, default="note"),
    )
    day = pl.col("note_date").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return (
        rows.filter(pl.col("note_text").str.strip_chars() != "")
        .join(kinds.lazy(), on="note_class_concept_id", how="left", nulls_equal=True)
        .select(
            subject_id="person_id",
            kind="kind",
            text="note_text",
            time=pl.coalesce("note_datetime", day),
            known=pl.coalesce("note_datetime", day + pl.duration(days=1)),
        )
    )
