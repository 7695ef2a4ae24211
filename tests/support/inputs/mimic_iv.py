"""A made-up hospital in the official layout of MIMIC-IV, with one patient.

The patient was admitted to the unit at noon on the first of May.
"""

import gzip
from datetime import UTC, datetime, timedelta
from pathlib import Path

from model.cohorts import Record

NOON = datetime(2150, 5, 1, 12, tzinfo=UTC)

TABLES = {
    "hosp/patients": """
        subject_id,gender,anchor_age,anchor_year,anchor_year_group
        1,F,70,2148,2011 - 2013
    """,
    "hosp/admissions": """
        subject_id,hadm_id,dischtime,deathtime,admission_type,admission_location,discharge_location,hospital_expire_flag,race
        1,2,2150-05-11 12:00:00,,EW EMER.,EMERGENCY ROOM,HOME,0,BLACK/CAPE VERDEAN
    """,
    "hosp/transfers": """
        subject_id,hadm_id,careunit,intime
        1,2,PACU,2150-05-01 09:00:00
        1,2,Coronary Care Unit (CCU),2150-05-01 12:00:00
        1,2,,2150-05-11 12:00:00
    """,
    "hosp/diagnoses_icd": """
        subject_id,hadm_id,icd_code,icd_version
        1,2,4019,9
    """,
    "hosp/omr": """
        subject_id,chartdate,result_name,result_value
        1,2150-03-01,Height (Inches),65
        1,2150-03-01,Weight (Lbs),150
    """,
    "hosp/labevents": """
        subject_id,itemid,charttime,storetime,valuenum,valueuom
        1,50983,2150-05-01 10:00:00,2150-05-01 11:00:00,140,mEq/L
        1,50983,2150-05-01 17:00:00,2150-05-01 19:00:00,120,mEq/L
    """,
    "hosp/prescriptions": """
        subject_id,starttime,stoptime,drug,route
        1,2150-04-30 08:00:00,2150-05-05 08:00:00,Aspirin,PO
    """,
    "icu/icustays": """
        subject_id,hadm_id,stay_id,first_careunit,intime,outtime
        1,2,3,Coronary Care Unit (CCU),2150-05-01 12:00:00,2150-05-02 12:00:00
    """,
    "icu/chartevents": """
        subject_id,itemid,charttime,storetime,valuenum,valueuom
        1,220045,2150-05-01 13:00:00,2150-05-01 13:10:00,88,bpm
        1,223761,2150-05-01 14:00:00,2150-05-01 14:05:00,98.6,°F
    """,
    "icu/outputevents": """
        subject_id,itemid,charttime,storetime,value,valueuom
        1,226559,2150-05-01 14:00:00,2150-05-01 14:00:00,60,ml
    """,
    "icu/inputevents": """
        subject_id,itemid,starttime,endtime,rate,rateuom
        1,221906,2150-05-01 13:00:00,2150-05-01 16:00:00,0.05,mcg/kg/min
        1,221906,2150-05-01 16:00:00,2150-05-01 20:00:00,0.1,mcg/kg/min
    """,
    "icu/procedureevents": """
        subject_id,itemid,starttime,endtime
        1,225792,2150-05-01 12:30:00,2150-05-01 15:00:00
    """,
}


def hospital(folder: Path, **changed: str) -> Path:
    """Writes the tables; `changed` replaces the rows of a table (`hosp__omr="1,..."`)."""
    root = folder / "mimiciv" / "3.1"
    for name, text in TABLES.items():
        header, *rows = text.split("\n")[1:-1]
        rows = changed.get(name.replace("/", "__"), "\n".join(rows)).splitlines()
        write_gzip(root / f"{name}.csv.gz", "\n".join(line.strip() for line in [header, *rows]))
    return folder


def write_gzip(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(f"{text}\n".encode()))


def at(records: list[Record], hours: int) -> Record:
    """The record at a landmark."""
    [record] = [r for r in records if r.landmark_hours == hours]
    return record


def series(record: Record, variable: str) -> list[tuple[str | None, datetime, float]]:
    """The values of a variable: unit, time, value."""
    return [
        (s.unit, time, value)
        for s in record.payload.series
        if s.variable == variable
        for time, value in zip(s.times, s.values, strict=True)
    ]


def hour(hours: float) -> datetime:
    """The time so many hours after admission."""
    return NOON + timedelta(hours=hours)
