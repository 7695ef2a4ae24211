"""Records of MIMIC-IV: each ICU stay at each landmark."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

from model.cohorts import DataError, Outcomes, Record
from model.cohorts.labels import diseases_of
from model.cohorts.mimic_iv.database import Database
from model.cohorts.mimic_iv.events import read_partition, write_partitions
from model.cohorts.mimic_iv.inputs import with_inputs
from model.cohorts.mimic_iv.stays import icu_stays, landmarks
from model.cohorts.tables import POLARS_ERRORS, first_damaged_table
from schemas.payload import as_payload

log = logging.getLogger(__name__)

# The group of each value of `race` that starts with the key. All other values are one group.
_ETHNICITY = {
    "WHITE": "White",
    "PORTUGUESE": "White",
    "BLACK": "Black",
    "HISPANIC": "Hispanic",
    "SOUTH AMERICAN": "Hispanic",
    "ASIAN": "Asian",
    "AMERICAN INDIAN": "Native American",
}
_OTHER_ETHNICITY = "other or unknown"


def read(data: Path) -> Iterator[Record]:
    """Each ICU stay at each landmark at which the patient is still in the unit.

    Raises DataMissing if files are missing, DataError if a file is damaged.
    """
    database = Database(data)
    try:
        yield from _records(database)
    except POLARS_ERRORS as error:
        # The error of polars does not name the table, and quotes values.
        if damaged := first_damaged_table(database.scanned):
            raise damaged from None
        raise DataError(f"{data} cannot be read: {type(error).__name__}") from None


def _records(database: Database) -> Iterator[Record]:
    stays = icu_stays(database)
    wrong_units: Counter[tuple[int, str]] = Counter()
    with TemporaryDirectory(prefix="m3h-mimic-iv-") as folder:
        write_partitions(database, stays, Path(folder))
        for (partition,), moments in landmarks(stays).group_by("partition", maintain_order=True):
            events = read_partition(Path(folder), int(str(partition)))
            wrong_units += _wrong_units(events["observations"])
            for row in with_inputs(moments, events).iter_rows(named=True):
                yield _record(row)
    if wrong_units:
        detail = ", ".join(f"{n} of item {i} in {u}" for (i, u), n in wrong_units.most_common())
        log.warning("dropped values whose unit contradicts the declared unit: %s", detail)


def _wrong_units(observations: pl.DataFrame) -> Counter[tuple[int, str]]:
    """How many rows of an item have a unit that its variable does not accept, by item and unit."""
    rows = observations.filter(pl.col("unit").is_null()).group_by("itemid", "uom").len()
    return Counter({(item, uom): count for item, uom, count in rows.iter_rows()})


def _record(row: Mapping[str, Any]) -> Record:
    tabular = ("age", "sex", "height_cm", "weight_kg", "admission_source", "unit_type")
    payload = as_payload(
        {
            "as_of": row["as_of"],
            "tabular": {name: row[name] for name in tabular} | {"admitted_at": row["intime"]},
            "series": row["series"] or [],
            "treatments": row["treatments"] or [],
            "notes": row["notes"] or [],
            "images": _images(row["image"]),
        }
    )
    return Record(
        payload=payload,
        outcomes=_outcomes(row),
        patient=str(row["subject_id"]),
        site="mimic_iv",
        stay=str(row["stay_id"]),
        landmark_hours=row["landmark"],
        groups={
            "ethnicity": _ethnicity(row["race"] or ""),
            # Dates are shifted; the source gives the three years of the patient's first stay.
            "years": row["anchor_year_group"] or "",
        },
    )


def _ethnicity(race: str) -> str:
    groups = (group for prefix, group in _ETHNICITY.items() if race.startswith(prefix))
    return next(groups, _OTHER_ETHNICITY)


def _images(image: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The X-ray with its bytes; none if the file is missing, as in a partial download."""
    if image is None or not (path := Path(image["path"])).exists():
        return []
    data = path.read_bytes()
    return [
        {"time": image["time"], "view": image["view"], "media_type": "image/jpeg", "data": data}
    ]


def _outcomes(row: Mapping[str, Any]) -> Outcomes:
    outcomes: dict[str, bool | float | str] = {}
    if row["codes"] is not None:
        outcomes |= diseases_of(row["codes"])
    if row["hospital_expire_flag"] is not None:
        outcomes["in_hospital_mortality"] = row["hospital_expire_flag"] == "1"
    if row["dischtime"] is not None and row["dischtime"] > row["as_of"]:
        remaining = row["dischtime"] - row["as_of"]
        outcomes["length_of_stay"] = remaining.total_seconds() / 86400
    if row["disposition"] is not None:
        outcomes["discharge_disposition"] = row["disposition"]
    return outcomes
