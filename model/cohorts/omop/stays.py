"""Stays in the unit, with the outcomes of the hospital stay."""

import logging

import polars as pl

from model.cohorts.omop.database import Database
from model.cohorts.stay_events.columns import ID, TEXT, UTC
from model.cohorts.stay_events.stays import (
    complete_stays,
    find_disposition,
    find_sex,
    find_source,
    find_unit_type,
    is_external_cause,
    map_texts,
)
from model.cohorts.typed_tables import DATE
from schemas.tasks import DIED

log = logging.getLogger(__name__)

# Standard concepts of visits with a bed: inpatient, emergency room and inpatient, inpatient
# hospital, intensive care.
_INPATIENT = (9201, 262, 8717, 32037)
_INTENSIVE_CARE = 32037
_ICD_VERSIONS = {"ICD9CM": 9, "ICD10CM": 10}


def unit_stays(database: Database) -> pl.DataFrame:
    """One row for each stay, with the columns of `complete_stays`.

    The units are the rows of `visit_detail` in intensive care; without such a row in the table, the
    inpatient visits themselves. Stays without the time of start or end are left out.
    """
    deaths = _deaths(database)
    visits = _visits(database)
    units = _units(database)
    if units.is_empty():
        units = visits.select(
            "subject_id",
            stay_id="visit_id",
            intime="admittime",
            outtime="dischtime",
            unit_type=pl.lit(None, TEXT),
        )
    hospital = (
        visits.join(_persons(database), on="subject_id", how="left")
        .join(deaths, on="subject_id", how="left")
        .join(_diagnoses(database, visits), on="visit_id", how="left")
        .with_columns(pl.col("coding_complete").fill_null(value=False))
    )
    records_deaths = not deaths.is_empty() or DIED in hospital["disposition"]
    return complete_stays(units, hospital, records_deaths=records_deaths)


def _visits(database: Database) -> pl.DataFrame:
    """The inpatient visits with times of start and end."""
    visits = (
        database.scan(
            "visit_occurrence",
            {
                "visit_occurrence_id": ID,
                "person_id": ID,
                "visit_concept_id": ID,
                "visit_start_datetime": UTC,
                "visit_end_datetime": UTC,
            },
            {
                "care_site_id": ID,
                "admitted_from_concept_id": ID,
                "admitted_from_source_value": TEXT,
                "discharged_to_concept_id": ID,
                "discharged_to_source_value": TEXT,
            },
        )
        .filter(pl.col("visit_concept_id").is_in(_INPATIENT))
        .collect(engine="streaming")
    )
    timed = visits.drop_nulls(["visit_start_datetime", "visit_end_datetime"])
    if untimed := len(visits) - len(timed):
        log.warning("left out %d visits without a time of start or end", untimed)
    named = database.with_concepts(timed, "admitted_from_concept_id", "discharged_to_concept_id")
    return named.select(
        visit_id="visit_occurrence_id",
        subject_id="person_id",
        site=pl.format("care site {}", "care_site_id").fill_null("omop"),
        admittime="visit_start_datetime",
        dischtime="visit_end_datetime",
        admission_source=map_texts(named["admitted_from_name"], find_source).fill_null(
            map_texts(named["admitted_from_source_value"], find_source)
        ),
        disposition=map_texts(named["discharged_to_name"], find_disposition).fill_null(
            map_texts(named["discharged_to_source_value"], find_disposition)
        ),
    )


def _units(database: Database) -> pl.DataFrame:
    """The stays in intensive care: `subject_id`, `stay_id`, `intime`, `outtime`, `unit_type`."""
    details = (
        database.scan(
            "visit_detail",
            {
                "visit_detail_id": ID,
                "person_id": ID,
                "visit_detail_concept_id": ID,
                "visit_detail_start_datetime": UTC,
                "visit_detail_end_datetime": UTC,
            },
            {"visit_detail_source_value": TEXT},
        )
        .filter(pl.col("visit_detail_concept_id") == _INTENSIVE_CARE)
        .drop_nulls(["visit_detail_start_datetime", "visit_detail_end_datetime"])
        .collect(engine="streaming")
    )
    return details.select(
        subject_id="person_id",
        stay_id="visit_detail_id",
        intime="visit_detail_start_datetime",
        outtime="visit_detail_end_datetime",
        unit_type=map_texts(details["visit_detail_source_value"], find_unit_type),
    )


def _persons(database: Database) -> pl.DataFrame:
    """`subject_id`, `birth`, `sex`. A birth without month or day is in the middle of the period."""
    persons = database.scan(
        "person",
        {"person_id": ID, "gender_concept_id": ID, "year_of_birth": ID},
        {"month_of_birth": ID, "day_of_birth": ID, "birth_datetime": UTC},
    ).collect(engine="streaming")
    named = database.with_concepts(persons, "gender_concept_id")
    month = pl.col("month_of_birth")
    day = pl.when(month.is_null()).then(1).otherwise(pl.col("day_of_birth").fill_null(15))
    date = pl.datetime("year_of_birth", month.fill_null(7), day, time_zone="UTC", time_unit="us")
    return named.select(
        subject_id="person_id",
        birth=pl.coalesce("birth_datetime", date),
        sex=map_texts(named["gender_name"], find_sex),
    )


def _deaths(database: Database) -> pl.DataFrame:
    """`subject_id` and `deathtime`: the start of the day if no time is known."""
    columns = {"person_id": ID, "death_date": DATE}
    deaths = database.scan("death", columns, {"death_datetime": UTC})
    day = pl.col("death_date").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return (
        deaths.group_by(subject_id="person_id")
        .agg(deathtime=pl.coalesce("death_datetime", day).min())
        .drop_nulls()
        .collect(engine="streaming")
    )


def _diagnoses(database: Database, visits: pl.DataFrame) -> pl.DataFrame:
    """The ICD codes of each visit: `visit_id`, `codes`, `coding_complete`.

    The code is that of the source concept, otherwise of the standard concept. Conditions that have
    only a concept of SNOMED CT say nothing about the ICD codes: the coding is then incomplete.
    """
    conditions = database.scan(
        "condition_occurrence",
        {"visit_occurrence_id": ID, "condition_concept_id": ID},
        {"condition_source_concept_id": ID},
    ).rename({"visit_occurrence_id": "visit_id"})
    ids = conditions.select("condition_concept_id", "condition_source_concept_id").unique()
    named = database.with_concepts(
        ids.collect(engine="streaming"), "condition_source_concept_id", "condition_concept_id"
    )
    version = pl.coalesce(
        pl.col(f"{name}_vocabulary").replace_strict(_ICD_VERSIONS, default=None, return_dtype=ID)
        for name in ("condition_source", "condition")
    )
    from_source = pl.col("condition_source_vocabulary").is_in(list(_ICD_VERSIONS))
    code = pl.when(from_source).then("condition_source_code").otherwise("condition_code")
    icd = named.select(
        "condition_concept_id", "condition_source_concept_id", version=version, icd=code
    ).with_columns(
        external=((pl.col("version") == 9) & is_external_cause(pl.col("icd"), 9))
        | ((pl.col("version") == 10) & is_external_cause(pl.col("icd"), 10))
    )
    is_icd = pl.col("version").is_not_null()
    return (
        conditions.join(visits.lazy().select("visit_id"), on="visit_id", how="semi")
        .join(
            icd.lazy(),
            on=["condition_concept_id", "condition_source_concept_id"],
            nulls_equal=True,
        )
        .group_by("visit_id")
        .agg(
            codes=pl.col("icd").filter(is_icd & ~pl.col("external")),
            coding_complete=is_icd.all(),
        )
        .collect(engine="streaming")
    )
