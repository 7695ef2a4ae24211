"""Readers of patient databases. Each yields requests with their outcomes.

A training record is a request with its outcomes: the same `Payload` that the HTTP interface takes,
so that training and serving cannot drift apart.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from model.errors import UserError
from schemas.payload import Payload

# Hours since admission to the unit at which each stay is read. A service is asked at any hour.
LANDMARKS_HOURS = (6, 12, 24, 48)

# A disease or death: bool; remaining days in hospital: float; a class: its name.
# A task that is not there has no label, which is not the same as "no".
Outcomes = Mapping[str, bool | float | str]

# What a report may tell patients apart by. None of it is ever an input of the model.
GROUPS = ("ethnicity", "years")


@dataclass(frozen=True)
class Record:
    """One patient at one moment, and what became of them.

    `patient` keeps all of a patient's records on one side of any split; `site` is the hospital.
    Both are the source's own identifiers; `stay` tells the stays of a patient apart.
    `groups`: of GROUPS, those that are known: ethnicity in few coarse groups, year of discharge (or
    the years that the source tells it by). `charted`: for each disease of the stay, how many hours
    after the payload's `as_of` it was first charted (negative: before), where the source tells.
    `masked`: phrases that were removed from its notes (`model.cohorts.note_masking`). `file`: the
    file that holds this record alone, where there is one; only an error names it.
    """

    payload: Payload
    outcomes: Outcomes
    patient: str
    site: str
    stay: str
    landmark_hours: float | None
    groups: Mapping[str, str] = field(default_factory=dict)
    charted: Mapping[str, float] = field(default_factory=dict)
    masked: int = 0
    file: str = ""


class DataError(UserError):
    """A file of a database that cannot be read; names it, and quotes no value."""


class DataMissing(FileNotFoundError):
    """A file or folder that a reader needs is not there; says which, and where it was sought."""


Reader = Callable[[Path], Iterator[Record]]
