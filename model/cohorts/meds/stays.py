"""Stays in the unit, with the outcomes of the hospital stay."""

import polars as pl

from model.cohorts.meds.code_map import CodeMap
from model.cohorts.meds.codes import Codes
from model.cohorts.stay_events.columns import ID, TEXT
from model.cohorts.stay_events.stays import (
    complete_stays,
    find_disposition,
    find_sex,
    find_source,
    find_unit_type,
    is_external_cause,
    map_texts,
)
from schemas.tasks import DIED


def unit_stays(events: pl.LazyFrame, codes: Codes, code_map: CodeMap) -> pl.DataFrame:
    """One row for each stay, with the columns of `complete_stays`.

    A dataset without admissions to a unit has the hospital stays themselves. Stays without an end
    are left out.
    """
    deaths = _events_of(events, codes.matching(code_map.death))
    hospital = _hospital_stays(events, codes, code_map)
    units = _stays(
        _events_of(events, codes.matching(code_map.unit_admission, "unit_type")),
        _events_of(events, codes.matching(code_map.unit_discharge)),
    )
    if units.is_empty():
        units = hospital.select(
            "subject_id", start="admittime", end="dischtime", unit_type=pl.lit(None, TEXT)
        )
    units = units.select(
        "subject_id",
        intime="start",
        outtime="end",
        unit_type=map_texts(units["unit_type"], find_unit_type),
        stay_id=pl.int_range(1, pl.len() + 1, dtype=ID),
    )
    births = _events_of(events, codes.matching(code_map.birth))
    hospital = (
        hospital.join(_first(births, "birth"), on="subject_id", how="left")
        .join(_first(deaths, "deathtime"), on="subject_id", how="left")
        .join(_sexes(events, codes, code_map), on="subject_id", how="left")
        .with_columns(site=pl.lit("meds"), coding_complete=pl.lit(value=True))
    )
    records_deaths = not deaths.is_empty() or DIED in hospital["disposition"]
    return complete_stays(units, hospital, records_deaths=records_deaths)


def _events_of(events: pl.LazyFrame, codes: pl.DataFrame) -> pl.DataFrame:
    """The events of some codes: `subject_id`, `time` and the columns of `codes` but `code`."""
    return (
        events.join(codes.lazy(), on="code")
        .select("subject_id", "time", *(name for name in codes.columns if name != "code"))
        .collect(engine="streaming")
    )


def _first(events: pl.DataFrame, name: str) -> pl.DataFrame:
    """The time of the first event of each patient."""
    return events.group_by("subject_id").agg(pl.col("time").min().alias(name))


def _stays(starts: pl.DataFrame, ends: pl.DataFrame) -> pl.DataFrame:
    """Each start with the first end after it: `subject_id`, `start`, `end` and the codes' columns.

    A start that is repeated before its end counts once.
    """
    first, last = (
        table.drop_nulls("time")
        .sort("time", *table.columns)
        .unique(["subject_id", "time"], keep="first", maintain_order=True)
        .rename({"time": name})
        for table, name in ((starts, "start"), (ends, "end"))
    )
    return (
        first.join_asof(
            last,
            left_on="start",
            right_on="end",
            by="subject_id",
            strategy="forward",
            allow_exact_matches=False,
            check_sortedness=False,
        )
        .drop_nulls("end")
        .sort("subject_id", "start")
        .unique(["subject_id", "end"], keep="first", maintain_order=True)
    )


def _hospital_stays(events: pl.LazyFrame, codes: Codes, code_map: CodeMap) -> pl.DataFrame:
    """`subject_id`, `admittime`, `dischtime`, `admission_source`, `disposition`, `codes`."""
    stays = _stays(
        _events_of(events, codes.matching(code_map.hospital_admission, "source")),
        _events_of(events, codes.matching(code_map.hospital_discharge, "disposition")),
    )
    stays = stays.select(
        "subject_id",
        admittime="start",
        dischtime="end",
        admission_source=map_texts(stays["source"], find_source),
        disposition=map_texts(stays["disposition"], find_disposition),
    )
    return stays.join(
        _diagnoses(events, codes, code_map, stays), on=["subject_id", "admittime"], how="left"
    )


def _diagnoses(
    events: pl.LazyFrame, codes: Codes, code_map: CodeMap, stays: pl.DataFrame
) -> pl.DataFrame:
    """The ICD codes from admission to discharge, both inclusive.

    The columns are `subject_id`, `admittime`, `codes`. A stay without a code is not coded. External
    causes show that a stay was coded, but are dropped.
    """
    patterns = ((9, code_map.icd9), (10, code_map.icd10))
    tables = [(version, codes.matching(pattern, "code", "icd")) for version, pattern in patterns]
    icd = pl.concat(
        table.with_columns(external=is_external_cause(pl.col("icd"), version))
        for version, table in tables
    )
    spans = stays.select("subject_id", "admittime", "dischtime").lazy()
    return (
        events.join(icd.lazy(), on="code")
        .join(spans, on="subject_id")
        .filter(pl.col("time").is_between("admittime", "dischtime"))
        .group_by("subject_id", "admittime")
        .agg(codes=pl.col("icd").filter(~pl.col("external")))
        .collect(engine="streaming")
    )


def _sexes(events: pl.LazyFrame, codes: Codes, code_map: CodeMap) -> pl.DataFrame:
    """The sex of each patient; none if the events state two."""
    table = codes.matching(code_map.sex, "sex")
    known = table.with_columns(sex=map_texts(table["sex"], find_sex)).drop_nulls()
    sexes = _events_of(events, known).drop("time").unique()
    return sexes.filter(pl.len().over("subject_id") == 1)
