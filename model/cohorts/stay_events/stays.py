"""Stays in the unit, joined with the hospital stays that have their outcomes."""

import re
from collections.abc import Callable
from unicodedata import normalize

import polars as pl

from model.cohorts.stay_events.columns import FLAG, ID, NUMBER, STAY_SCHEMA, TEXT
from model.cohorts.stay_events.moments import with_partitions
from schemas.tasks import DIED
from schemas.terminology.categories import NOT_KNOWN, find_category

_PUNCTUATION = re.compile(r"[\W_]+")
# Classes of `discharge_disposition` by the codes of HL7 (discharge-disposition) and by names, as in
# OMOP's vocabularies and in MIMIC-IV. Hospice, against advice and others match no class.
_DISPOSITIONS = {
    "home": (
        *("home", "alt home", "home health care", "home health", "home or self care"),
        *("discharge to home", "home visit", "home with services"),
    ),
    "post_acute": (
        *("skilled nursing facility", "snf", "rehab", "rehabilitation", "long"),
        *("rehabilitation facility", "comprehensive inpatient rehabilitation facility"),
        *("chronic long term acute care", "long term acute care", "long term care"),
        *("long term care hospital", "nursing home", "nursing facility"),
    ),
    "other_facility": (
        *("acute hospital", "other hcf", "hosp", "inpatient hospital", "other hospital"),
        *("psych facility", "psy", "psychiatric hospital", "inpatient psychiatric facility"),
    ),
    DIED: ("died", "dead", "exp", "expired", "deceased", "patient died", "death"),
}
# The first letter of external causes by revision of ICD.
EXTERNAL_CAUSES = {9: "E", 10: "V"}
_BY_SPELLING = {text: name for name, texts in _DISPOSITIONS.items() for text in texts}


def find_disposition(text: str) -> str | None:
    """The class of a discharge disposition, by code or name; None if it matches none."""
    key = _PUNCTUATION.sub(" ", normalize("NFKC", text[:200]).casefold()).strip()
    return _BY_SPELLING.get(key)


def find_sex(text: str) -> str | None:
    """The category of a sex; None if it is unknown or another."""
    return _known(find_category("sex", text))


def find_source(text: str) -> str | None:
    """The category of a source of admission; None if it is unknown or another."""
    return _known(find_category("admission_source", text))


def find_unit_type(text: str) -> str | None:
    """The category of an intensive care unit; None if it is unknown or another."""
    return _known(find_category("unit_type", text))


def _known(category: str | None) -> str | None:
    return None if category == NOT_KNOWN else category


def map_texts(texts: pl.Series, find: Callable[[str], str | None]) -> pl.Series:
    """What `find` returns for each text; null for a null."""
    known = {text: find(text) for text in texts.unique().drop_nulls()}
    return texts.replace_strict(known, default=None, return_dtype=TEXT)


def is_external_cause(code: pl.Expr, version: int) -> pl.Expr:
    """Whether an ICD code is an external cause, which no task uses.

    `diseases_of` derives the revision of a code from its first letter: an E code of ICD-9-CM would
    be read as a chapter of ICD-10-CM, a V code of ICD-10-CM as ICD-9-CM.
    """
    return code.str.to_uppercase().str.starts_with(EXTERNAL_CAUSES[version])


def complete_stays(
    units: pl.DataFrame, hospital: pl.DataFrame, *, records_deaths: bool
) -> pl.DataFrame:
    """The stays in the unit with the columns of STAY_SCHEMA, and the partition of each.

    units: `subject_id`, `stay_id`, `intime`, `outtime`, `unit_type`. hospital: `subject_id`,
    `admittime`, `dischtime`, `deathtime`, `birth` and the other columns of STAY_SCHEMA but `died`.
    `records_deaths`: whether the source records deaths; otherwise no death is no label.

    Each stay gets the hospital stay that overlaps it longest; a stay without one is left out.
    """
    first, last = (
        pl.max_horizontal("intime", "admittime"),
        pl.min_horizontal("outtime", "dischtime"),
    )
    stays = (
        units.join(hospital, on="subject_id")
        .filter(first < last)
        .sort("stay_id", last - first, "admittime")
        .unique("stay_id", keep="last", maintain_order=True)
        .with_columns(died=_died(records_deaths=records_deaths), age=_age())
    )
    death = pl.when(pl.col("died")).then(pl.col("deathtime"))
    with_end = stays.with_columns(present_until=pl.min_horizontal("outtime", death))
    return with_partitions(with_end.select(*STAY_SCHEMA))


def _died(*, records_deaths: bool) -> pl.Expr:
    """Whether the patient died in hospital; null if that is unknown.

    From the disposition, otherwise from a death before the end of the day of the discharge.
    """
    end = pl.col("dischtime").dt.truncate("1d") + pl.duration(days=1)
    died = pl.col("deathtime").is_between("admittime", end, closed="left").fill_null(value=False)
    without_death = pl.lit(value=False) if records_deaths else pl.lit(None, FLAG)
    disposition = pl.col("disposition")
    return (
        pl.when(disposition.is_not_null())
        .then(disposition == DIED)
        .when(died)
        .then(pl.lit(value=True))
        .otherwise(without_death)
    )


def _age() -> pl.Expr:
    """The age in completed years at the admission to the unit."""
    birth, admission = pl.col("birth").dt, pl.col("intime").dt
    day_of_year = admission.month().cast(ID) * 100 + admission.day()
    birthday = birth.month().cast(ID) * 100 + birth.day()
    years = admission.year() - birth.year() - (day_of_year < birthday).cast(ID)
    return pl.when(years >= 0).then(years.cast(NUMBER))
