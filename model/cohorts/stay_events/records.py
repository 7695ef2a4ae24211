"""Records of stays: the payload and the outcomes at each moment."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

from model.cohorts import Outcomes, Record
from model.cohorts.labels import outcomes_of
from model.cohorts.stay_events.inputs import with_inputs
from model.cohorts.stay_events.partitions import EventTable, read_partition, write_partitions
from schemas.payload import as_payload
from schemas.tasks import DISPOSITION, MORTALITY

log = logging.getLogger(__name__)

Row = Mapping[str, Any]
_TABULAR = ("age", "sex", "height_cm", "weight_kg", "admission_source", "unit_type")


def records_at(
    moments: pl.DataFrame, tables: Iterable[EventTable], to_record: Callable[[Row], Record]
) -> Iterator[Record]:
    """One record for each moment, from the events that were known then.

    `to_record` makes it from the columns of `moments` and the inputs (`with_inputs`). Logs how many
    values were dropped because of their unit.
    """
    wrong_units: Counter[tuple[str, str]] = Counter()
    with TemporaryDirectory(prefix="m3h-cohort-") as folder:
        write_partitions(tables, Path(folder))
        for (partition,), rows in moments.group_by("partition", maintain_order=True):
            events = read_partition(Path(folder), int(str(partition)))
            wrong_units += _wrong_units(events["observations"])
            for row in with_inputs(rows, events).iter_rows(named=True):
                yield to_record(row)
    if wrong_units:
        detail = ", ".join(f"{n} of {c} in {u}" for (c, u), n in wrong_units.most_common())
        log.warning("dropped values whose unit contradicts the declared unit: %s", detail)


def _wrong_units(observations: pl.DataFrame) -> Counter[tuple[str, str]]:
    """How many rows of a code have a unit that its variable does not accept, by code and unit."""
    rows = observations.filter(pl.col("unit").is_null()).group_by("code", "uom").len()
    return Counter({(code, uom or "no unit"): count for code, uom, count in rows.iter_rows()})


def record_of(
    row: Row, groups: Mapping[str, str] | None = None, stated: Outcomes | None = None
) -> Record:
    """The record of a moment: the columns of STAY_SCHEMA, `as_of`, `landmark` and the inputs.

    `stated`: outcomes by name, which precede those of the stay.
    """
    payload = as_payload(
        {
            "as_of": row["as_of"],
            "tabular": {name: row[name] for name in _TABULAR} | {"admitted_at": row["intime"]},
            "series": row["series"] or [],
            "treatments": row["treatments"] or [],
            "notes": row["notes"] or [],
            "images": _images(row["image"]),
        }
    )
    return Record(
        payload=payload,
        outcomes=_outcomes(row, stated or {}),
        patient=str(row["subject_id"]),
        site=row["site"],
        stay=str(row["stay_id"]),
        landmark_hours=row["landmark"],
        groups=groups or {},
    )


def _images(image: Row | None) -> list[dict[str, Any]]:
    """The X-ray with its bytes; none if the file is missing, as in a partial download."""
    if image is None or not (path := Path(image["path"])).exists():
        return []
    data = path.read_bytes()
    return [
        {"time": image["time"], "view": image["view"], "media_type": "image/jpeg", "data": data}
    ]


def _outcomes(row: Row, stated: Outcomes) -> Outcomes:
    """The labels that are known. A task without a label is not in it."""
    known: dict[str, bool | float | str | None] = {
        MORTALITY: row["died"],
        DISPOSITION: row["disposition"],
    }
    if row["dischtime"] is not None and row["dischtime"] > row["as_of"]:
        remaining = row["dischtime"] - row["as_of"]
        known["length_of_stay"] = remaining.total_seconds() / 86400
    return outcomes_of(row["codes"], {**known, **stated}, coding_complete=row["coding_complete"])
