"""SUPPORT2: 9,105 seriously ill adults in five US hospitals, 1989 to 1994 (Knaus et al., 1995).

One record for each patient, at the end of the third day after entry into the study, when the vital
signs and laboratory values were measured. Patients who left or died by then are left out. The
reader takes `support2.csv`, gzipped or not; the file does not name the hospitals.

Labels only where the data set can say no:

- In-hospital mortality and the remaining length of stay.
- Diabetes and malignancy, which were recorded as present or absent for everyone.
- Every patient entered with one of nine grave diseases (`dzgroup`). Absence of a group does not
  mean absence of the disease, so that the groups are no labels. `dementia` does not
  cover delirium, which is in the same task.

Never an input: scores (`sps`, `aps`), estimates of survival, orders not to resuscitate, costs, and
everything that is known later. `pafi` and `scoma` have no variable, and the urine of a day is not
comparable with charted amounts. The time of admission to the unit is known only of patients who
entered on their first day in hospital.

The data set holds no dates: every study day begins on January 1, 1992, in UTC.
"""

import csv
import gzip
import zlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

from model.cohorts import DataError, DataMissing, Outcomes, Record
from model.errors import wrap_file_errors
from schemas.payload import as_payload
from schemas.tasks import MORTALITY

SOURCE = (
    "SUPPORT2 (Vanderbilt University; UCI Machine Learning Repository, data set 880), CC BY 4.0"
)
_FILES = ("support2.csv", "support2.csv.gz", "support/support2.csv", "support/support2.csv.gz")
_ENTERED = datetime(1992, 1, 1, tzinfo=UTC)
DAYS = 3  # from entry to the prediction
# Variable and unit of each column.
VARIABLES: Mapping[str, tuple[str, str]] = {
    "meanbp": ("mean_arterial_pressure", "mm[Hg]"),
    "hrt": ("heart_rate", "/min"),
    "resp": ("respiratory_rate", "/min"),
    "temp": ("temperature", "Cel"),
    "wblc": ("white_blood_cells", "10*3/uL"),
    "alb": ("albumin", "g/dL"),
    "bili": ("bilirubin_total", "mg/dL"),
    "crea": ("creatinine", "mg/dL"),
    "sod": ("sodium", "mmol/L"),
    "ph": ("ph", "[pH]"),
    "glucose": ("glucose", "mg/dL"),
    "bun": ("blood_urea_nitrogen", "mg/dL"),
}
# A 0 of these is a missing measurement.
_NEVER_ZERO = ("hrt", "resp", "wblc")
_COLUMNS = (
    *("id", "age", "sex", "race", "hday", "slos", "hospdead", "diabetes", "ca"),
    *VARIABLES,
)
_MISSING = ("", "NA", "NaN")
_SEX = {"female": "female", "male": "male"}
_ETHNICITY = {"white": "White", "black": "Black", "hispanic": "Hispanic", "asian": "Asian"}
_YES = {"0": False, "1": True}
_CANCER = {"no": False, "yes": True, "metastatic": True}


def read(data: Path) -> Iterator[Record]:
    """One record for each patient who was in hospital at the end of the third day.

    Raises DataMissing if the file is missing, DataError if it is damaged.
    """
    path = next((data / name for name in _FILES if (data / name).is_file()), None)
    if path is None:
        raise DataMissing(f"{data / _FILES[-1]} is missing")
    # A damaged gzip file raises EOFError or zlib.error.
    caught = (OSError, ValueError, EOFError, zlib.error, csv.Error)
    with wrap_file_errors(path, DataError, caught), _open(path) as file:
        reader = csv.DictReader(file)
        if missing := [name for name in _COLUMNS if name not in (reader.fieldnames or ())]:
            raise DataError(f"{path} has no column {', '.join(missing)}")
        for row in reader:
            known = {n: v.strip() for n in _COLUMNS if (v := row[n] or "").strip() not in _MISSING}
            position = f"{path}, line {reader.line_num}"
            numbers = _numbers(known, position)
            if "id" not in known:
                raise DataError(f"{position}: id is missing")
            if numbers.get("slos", 0.0) > DAYS:
                yield _record(known, numbers, position)


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _numbers(known: Mapping[str, str], position: str) -> dict[str, float]:
    """The known numeric columns. Raises DataError that quotes no value."""
    numbers = {}
    for name in ("age", "hday", "slos", *VARIABLES):
        if name in known:
            try:
                numbers[name] = float(known[name])
            except ValueError:
                raise DataError(f"{position}: {name} is not a number") from None
    return numbers


def _record(known: Mapping[str, str], numbers: Mapping[str, float], position: str) -> Record:
    as_of = _ENTERED + timedelta(days=DAYS)
    return Record(
        payload=as_payload(
            {
                "as_of": as_of,
                "tabular": {
                    "age": numbers.get("age"),
                    "sex": _SEX.get(known.get("sex", "")),
                    "admitted_at": _ENTERED if numbers.get("hday") == 1 else None,
                },
                "series": [
                    {"variable": name, "unit": unit, "times": [as_of], "values": [numbers[column]]}
                    for column, (name, unit) in VARIABLES.items()
                    if column in numbers and not (column in _NEVER_ZERO and not numbers[column])
                ],
            }
        ),
        outcomes=_outcomes(known, numbers["slos"]),
        patient=known["id"],
        site="support2",
        stay=known["id"],
        landmark_hours=24.0 * DAYS,
        groups={
            "ethnicity": _ETHNICITY.get(known.get("race", ""), "other or unknown"),
            "years": "1989-1994",
        },
        file=position,
    )


def _outcomes(known: Mapping[str, str], stay_days: float) -> Outcomes:
    labels = {
        MORTALITY: _YES.get(known.get("hospdead", "")),
        "diabetes": _YES.get(known.get("diabetes", "")),
        "malignancy": _CANCER.get(known.get("ca", "")),
    }
    known_labels = {name: value for name, value in labels.items() if value is not None}
    return {**known_labels, "length_of_stay": stay_days - DAYS}
