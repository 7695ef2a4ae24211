"""Labels of eICU stays: diseases by the time of their first charting, and discharge."""

from functools import cache
from typing import Any

from model.cohorts import Outcomes
from model.cohorts.eicu.database import Database, rows_by_stay
from model.cohorts.labels import diseases_of

_DIED = {"Alive": False, "Expired": True}
_DISPOSITION = {
    "Home": "home",
    "Skilled Nursing Facility": "post_acute",
    "Nursing Home": "post_acute",
    "Rehabilitation": "post_acute",
    "Other Hospital": "other_facility",
    "Other External": "other_facility",
    "Other": "other_facility",
    "Death": "died",
}


def first_charted(database: Database) -> dict[int, dict[str, int | None]]:
    """The minute at which each disease of a stay was first charted; None if it never was.

    Only stays with a diagnosis are keys. The other stays have no label; they are not "healthy".
    """
    rows = database.read(
        "diagnosis", text=("icd9code", "diagnosisstring"), minutes=("diagnosisoffset",)
    ).sort("diagnosisoffset")

    @cache
    def diseases(codes: str | None, description: str) -> list[str]:
        labels = diseases_of(codes.split(",")) if codes else diseases_of((), [description])
        return [disease for disease, present in labels.items() if present]

    charted: dict[int, dict[str, int | None]] = {}
    for stay, diagnoses in rows_by_stay(rows).items():
        first = charted[stay] = dict.fromkeys(diseases_of(()))
        for codes, description, minute in diagnoses:
            for disease in diseases(codes, description):
                if first[disease] is None:
                    first[disease] = minute
    return charted


def outcomes_of(stay: dict[str, Any], charted: dict[str, int | None], now: int) -> Outcomes:
    """The outcomes of a stay at the minute `now`."""
    outcomes: dict[str, bool | float | str] = {d: m is not None for d, m in charted.items()}
    remaining = (stay["hospitaldischargeoffset"] - now) / 1440
    if remaining <= 0:  # some units discharge later than their hospital: no outcome lies ahead
        return outcomes
    outcomes["length_of_stay"] = remaining
    if (died := _DIED.get(stay["hospitaldischargestatus"])) is not None:
        outcomes["in_hospital_mortality"] = died
    if (disposition := _DISPOSITION.get(stay["hospitaldischargelocation"])) is not None:
        outcomes["discharge_disposition"] = disposition
    return outcomes
