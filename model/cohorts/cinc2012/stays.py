"""The stays of the challenge's sets, from the official text files or from Parquet."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from model.cohorts import DataError, DataMissing
from model.cohorts.tables import check_columns, table_errors
from model.errors import wrap_file_errors

EVENTS, PATIENTS = "events.parquet", "patients.csv.gz"
DESCRIPTORS = ("Age", "Gender", "Height", "Weight", "ICUType")
OUTCOMES = ("Length_of_stay", "In-hospital_death")

_ID = "RecordID"
_EVENT_COLUMNS = (_ID, "minute", "parameter", "value")
_MAX_DEPTH = 3  # data/physionet.org/files/challenge-2012/1.0.0/set-a is found from 1.0.0
_MISSING = -1.0

Event = tuple[int, float]  # minute since admission to the unit, value in the challenge's unit


@dataclass(frozen=True)
class Stay:
    """A stay as the challenge has it. Missing descriptors and outcomes are not in the mappings.

    `descriptors`: DESCRIPTORS by name. `outcomes`: OUTCOMES by name. `events`: by parameter, in
    time order.
    """

    record_id: str
    descriptors: Mapping[str, float]
    outcomes: Mapping[str, float]
    events: Mapping[str, list[Event]]


def read_stays(data: Path) -> Iterator[Stay]:
    """The stays of all sets in the folder `data`, set by set.

    Raises DataMissing if there is no set or a set has no outcomes, DataError if a file is damaged.
    """
    sets = _find_sets(data.absolute())  # of "." the name is not known
    if not sets:
        raise DataMissing(
            f"PhysioNet/CinC Challenge 2012: no set-?/*.txt, and no {EVENTS} beside {PATIENTS}, "
            f"in {data} or below"
        )
    for folder in sets:
        if (folder / EVENTS).is_file():
            yield from _read_tables(folder)
        else:
            yield from _read_text_files(folder)


def _find_sets(data: Path) -> list[Path]:
    """The folders of sets at the smallest depth at which there are any."""
    for depth in range(_MAX_DEPTH + 1):
        tables = {path.parent for path in data.glob("*/" * depth + EVENTS)}
        folders = {path.parent for path in data.glob("*/" * depth + "[0-9]*.txt")}
        text = {folder for folder in folders if folder.name.startswith("set-")}
        if found := {f for f in tables if (f / PATIENTS).is_file()} | text:
            return sorted(found)
    return []


def _read_tables(folder: Path) -> Iterator[Stay]:
    check_columns(folder / PATIENTS, (_ID, *DESCRIPTORS, *OUTCOMES))
    with table_errors(folder / PATIENTS):
        numbers = dict.fromkeys((*DESCRIPTORS, *OUTCOMES), pl.Float64())
        patients = pl.read_csv(
            folder / PATIENTS,
            columns=[_ID, *numbers],
            schema_overrides={_ID: pl.String(), **numbers},
        )
    with table_errors(folder / EVENTS):
        missing = set(_EVENT_COLUMNS) - set(pl.read_parquet_schema(folder / EVENTS))
        if missing:
            raise DataError(f"{folder / EVENTS} has no column {', '.join(sorted(missing))}")
        events = (
            pl.read_parquet(folder / EVENTS, columns=list(_EVENT_COLUMNS))
            .select(
                pl.col(_ID).cast(pl.String),
                pl.col("minute").cast(pl.Int64),
                pl.col("parameter").cast(pl.String),
                # 92.33 as single precision would be 92.33000183 as double precision.
                pl.col("value").cast(pl.Float64).round(4),
            )
            .drop_nulls()
            .sort(_ID, "minute", maintain_order=True)
        )
    by_stay = events.partition_by(_ID, as_dict=True, include_key=False)
    empty = events.clear().drop(_ID)
    for row in patients.iter_rows(named=True):
        of_stay: dict[str, list[Event]] = {}
        for minute, parameter, value in by_stay.get((row[_ID],), empty).iter_rows():
            of_stay.setdefault(parameter, []).append((minute, value))
        yield Stay(row[_ID], _known(row, DESCRIPTORS), _known(row, OUTCOMES), of_stay)


def _read_text_files(folder: Path) -> Iterator[Stay]:
    outcomes = _read_outcomes(
        folder.parent / f"Outcomes-{folder.name.removeprefix('set-')}.txt", folder
    )
    for path in sorted(folder.glob("[0-9]*.txt")):
        record_id = path.stem
        if record_id not in outcomes:
            raise DataError(f"{path} has no row in the file of outcomes")
        yield _read_text_file(path, outcomes[record_id])


def _read_outcomes(path: Path, folder: Path) -> dict[str, dict[str, float]]:
    if not path.is_file():
        raise DataMissing(f"{path} is missing: the outcomes of {folder}")
    with (
        wrap_file_errors(path, DataError, (OSError, ValueError, csv.Error)),
        path.open(encoding="utf-8-sig", newline="") as file,
    ):
        reader = csv.DictReader(file, skipinitialspace=True)
        required = (_ID, *OUTCOMES)
        if missing := [name for name in required if name not in (reader.fieldnames or ())]:
            raise DataError(f"{path} has no column {', '.join(missing)}")
        outcomes = {}
        for row in reader:
            numbers = {name: _number(row[name], path, reader.line_num) for name in OUTCOMES}
            outcomes[row[_ID]] = _known(numbers, OUTCOMES)
        return outcomes


def _read_text_file(path: Path, outcomes: Mapping[str, float]) -> Stay:
    """Reads rows of `HH:MM,parameter,value`. The first of a descriptor at 00:00 describes."""
    descriptors: dict[str, float | None] = {}
    events: dict[str, list[Event]] = {}
    with (
        wrap_file_errors(path, DataError, (OSError, ValueError, csv.Error)),
        path.open(encoding="utf-8-sig", newline="") as file,
    ):
        for line, row in enumerate(csv.reader(file), 1):
            if line == 1 or not any(row):
                continue
            if len(row) != 3:
                raise DataError(f"{path}, line {line}: does not have three columns")
            minute, parameter = _minute(row[0], path, line), row[1].strip()
            value = _number(row[2], path, line)
            if minute == 0 and parameter in DESCRIPTORS and parameter not in descriptors:
                descriptors[parameter] = value
            elif parameter and parameter != _ID and value is not None:
                events.setdefault(parameter, []).append((minute, value))
    for series in events.values():
        series.sort(key=lambda event: event[0])
    return Stay(path.stem, _known(descriptors, DESCRIPTORS), outcomes, events)


def _known(row: Mapping[str, float | None], names: tuple[str, ...]) -> dict[str, float]:
    values = ((name, row.get(name)) for name in names)
    return {n: float(value) for n, value in values if value is not None and value != _MISSING}


def _number(text: str | None, path: Path, line: int) -> float | None:
    if text is None or not text.strip():
        return None
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{path}, line {line}: a value is not a number") from None


def _minute(text: str, path: Path, line: int) -> int:
    hours, _, minutes = text.strip().partition(":")
    if not (hours.isdecimal() and minutes.isdecimal()):
        raise DataError(f"{path}, line {line}: the time is not HH:MM")
    return int(hours) * 60 + int(minutes)
