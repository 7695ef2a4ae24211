"""ICU stays of MIMIC-IV with their admission, patient and diagnoses."""

import polars as pl

from model.cohorts import LANDMARKS_HOURS
from model.cohorts.mimic_iv.database import TIME, Database
from model.cohorts.stay_events.columns import ID, NUMBER, TEXT
from model.cohorts.stay_events.stays import is_external_cause

_UNIT_TYPES = {
    "Medical Intensive Care Unit (MICU)": "medical_icu",
    "Surgical Intensive Care Unit (SICU)": "surgical_icu",
    "Medical/Surgical Intensive Care Unit (MICU/SICU)": "mixed_icu",
    "Coronary Care Unit (CCU)": "cardiac_icu",
    "Cardiac Vascular Intensive Care Unit (CVICU)": "cardiac_surgery_icu",
    "Neuro Surgical Intensive Care Unit (Neuro SICU)": "neuro_icu",
    "Neuro Intermediate": "neuro_icu",
    "Neuro Stepdown": "neuro_icu",
    "Trauma SICU (TSICU)": "trauma_icu",
}

_ADMITTED_FROM = {
    "EMERGENCY ROOM": "emergency",
    "PACU": "operating_room",
    "PROCEDURE SITE": "operating_room",
    "AMBULATORY SURGERY TRANSFER": "operating_room",
    "INTERNAL TRANSFER TO OR FROM PSYCH": "ward",
    "TRANSFER FROM HOSPITAL": "other_hospital",
    "TRANSFER FROM SKILLED NURSING FACILITY": "direct",
    "PHYSICIAN REFERRAL": "direct",
    "CLINIC REFERRAL": "direct",
    "WALK-IN/SELF REFERRAL": "direct",
}

# Other locations (hospice, against advice, none) match no class: such stays have no label.
_DISPOSITIONS = {
    "HOME": "home",
    "HOME HEALTH CARE": "home",
    "SKILLED NURSING FACILITY": "post_acute",
    "CHRONIC/LONG TERM ACUTE CARE": "post_acute",
    "REHAB": "post_acute",
    "ACUTE HOSPITAL": "other_facility",
    "PSYCH FACILITY": "other_facility",
    "DIED": "died",
}


def icu_stays(database: Database) -> pl.DataFrame:
    """One row for each stay that reaches the first landmark.

    The columns are those of `icustays`, `admissions` and `patients`, and STAY_SCHEMA.
    """
    stays = _stays_reaching(database, LANDMARKS_HOURS[0])
    age = pl.col("anchor_age") + pl.col("intime").dt.year() - pl.col("anchor_year")
    return (
        stays.join(_previous_unit(database, stays), on="stay_id", how="left")
        .join(_diagnosis_codes(database, stays), on="hadm_id", how="left", maintain_order="left")
        .with_columns(
            site=pl.lit("mimic_iv"),
            age=age.clip(upper_bound=91),  # the oldest patients are one group, for privacy
            sex=pl.col("gender").replace_strict({"F": "female", "M": "male"}, default=None),
            admission_source=_admission_source(),
            unit_type=pl.col("first_careunit").replace_strict(_UNIT_TYPES, default=None),
            died=pl.col("hospital_expire_flag") == "1",
            disposition=pl.col("discharge_location").replace_strict(_DISPOSITIONS, default=None),
            coding_complete=pl.lit(True),
        )
    )


def _stays_reaching(database: Database, landmark: int) -> pl.DataFrame:
    """The stays of at least `landmark` hours, joined with their admission and patient."""
    stays = database.scan(
        "icu/icustays",
        {
            "subject_id": ID,
            "hadm_id": ID,
            "stay_id": ID,
            "first_careunit": TEXT,
            "intime": TIME,
            "outtime": TIME,
        },
    )
    admissions = database.scan(
        "hosp/admissions",
        {
            "hadm_id": ID,
            "dischtime": TIME,
            "deathtime": TIME,
            "admission_type": TEXT,
            "admission_location": TEXT,
            "discharge_location": TEXT,
            "hospital_expire_flag": TEXT,
            "race": TEXT,
        },
    )
    patients = database.scan(
        "hosp/patients",
        {
            "subject_id": ID,
            "gender": TEXT,
            "anchor_age": NUMBER,
            "anchor_year": NUMBER,
            "anchor_year_group": TEXT,
        },
    )
    # Some patients are signed out of the unit hours after death: no record is made after death.
    present_until = pl.min_horizontal("outtime", "deathtime")
    return (
        stays.join(admissions, on="hadm_id")
        .join(patients, on="subject_id")
        .filter(pl.col("outtime").is_not_null())
        .with_columns(present_until=present_until)
        .filter(pl.col("present_until") >= pl.col("intime") + pl.duration(hours=landmark))
        .collect(engine="streaming")
    )


def _previous_unit(database: Database, stays: pl.DataFrame) -> pl.DataFrame:
    """The hospital unit of each patient just before the stay: `stay_id`, `previous_unit`."""
    transfers = database.scan("hosp/transfers", {"hadm_id": ID, "careunit": TEXT, "intime": TIME})
    return (
        transfers.drop_nulls()
        .rename({"intime": "moved"})
        .join(stays.lazy().select("hadm_id", "stay_id", "intime"), on="hadm_id")
        .filter(pl.col("moved") < pl.col("intime"))
        .group_by("stay_id")
        .agg(previous_unit=pl.col("careunit").sort_by("moved", "careunit").last())
        .collect(engine="streaming")
    )


def _admission_source() -> pl.Expr:
    """From the previous unit; for patients without one, from the hospital's admission location."""
    unit = pl.col("previous_unit")
    no_unit = unit.is_in(["Discharge Lounge", "Unknown"])  # a lounge to wait in for surgery
    same_day = pl.col("admission_type") == "SURGICAL SAME DAY ADMISSION"
    return (
        pl.when(unit.str.starts_with("Emergency Department"))
        .then(pl.lit("emergency"))
        .when(unit == "PACU")
        .then(pl.lit("operating_room"))
        .when(unit.str.contains("Intermediate|Stepdown"))
        .then(pl.lit("step_down_unit"))
        .when(unit.str.contains("Intensive Care|Coronary Care|ICU"))
        .then(pl.lit("other_icu"))
        .when(unit.is_not_null() & ~no_unit)
        .then(pl.lit("ward"))
        .when(same_day)
        .then(pl.lit("operating_room"))
        .otherwise(pl.col("admission_location").replace_strict(_ADMITTED_FROM, default=None))
    )


def _diagnosis_codes(database: Database, stays: pl.DataFrame) -> pl.DataFrame:
    """Diagnosis codes of each hospital stay: `hadm_id`, `codes`.

    External causes are dropped.
    """
    version, code = pl.col("icd_version"), pl.col("icd_code")
    external = ((version == 9) & is_external_cause(code, 9)) | (
        (version == 10) & is_external_cause(code, 10)
    )
    return (
        database.scan("hosp/diagnoses_icd", {"hadm_id": ID, "icd_code": TEXT, "icd_version": ID})
        .join(stays.lazy().select("hadm_id").unique(), on="hadm_id", how="semi")
        .group_by("hadm_id")
        .agg(codes=code.filter(~external))
        .collect(engine="streaming")
    )
