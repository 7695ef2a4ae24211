"""Cohorts: readers of patient databases, and the arrays that training reads.

A reader yields records. A record is a request with its outcomes; the request is the same `Payload`
that the HTTP interface takes, so that training and serving cannot drift apart.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from model.errors import UserError
from schemas.payload import Payload

# Hours since admission to the unit at which a record of each stay is made.
LANDMARKS_HOURS = (6, 12, 24, 48)

# Outcomes by task. A disease or death: bool; remaining days in hospital: float; a class: its name.
# A missing task has no label, which is not the same as "no".
Outcomes = Mapping[str, bool | float | str]

# The groups that a report compares. They are never an input of the model.
GROUPS = ("ethnicity", "years")


@dataclass(frozen=True)
class Record:
    """One patient at one time, with the outcomes.

    `patient`, `site` (the hospital) and `stay` are the source's own identifiers. All records of a
    patient stay on one side of any split.
    `groups`: the known GROUPS: ethnicity in few coarse groups, and year of discharge (or the range
    of years that the source gives).
    `charted`: for each disease of the stay, the hours from the payload's `as_of` to the first
    charting (negative: before), if the source holds them.
    `masked`: the number of phrases removed from the notes (`model.cohorts.note_masking`).
    `file`: the file that holds only this record, or the file and the line; errors name it.
    `pointer`: the JSON Pointer of the payload in that file or line.
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
    pointer: str = ""


class DataError(UserError):
    """A file of a database cannot be read. The text names the file and quotes no value."""


class DataMissing(FileNotFoundError):
    """A file or folder of a database is missing. The text names it and the searched folder."""


Reader = Callable[[Path], Iterator[Record]]
