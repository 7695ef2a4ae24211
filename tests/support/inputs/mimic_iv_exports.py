"""The MIMIC-IV demo as OMOP tables and as a bulk export of FHIR, with a few variables.

Both hold the same as the demo's MEDS edition: its stays, diagnoses, treatments in the unit, and the
measurements of VARIABLES in the unit and two days before.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from schemas.features import FeatureSpec
from schemas.variables import load_treatments, load_variables

DEMO, MEDS = "mimic-iv-demo-2.2", "mimic-iv-demo-meds-0.0.1"
VARIABLES = ("heart_rate", "temperature", "creatinine", "lactate", "sodium", "platelets")
TREATMENTS = ("norepinephrine", "propofol", "vasopressin", "mechanical_ventilation")
_WINDOW = pl.duration(hours=48)
_UCUM, _LOINC = "http://unitsofmeasure.org", "http://loinc.org"
_ICD = {9: "http://hl7.org/fhir/sid/icd-9-cm", 10: "http://hl7.org/fhir/sid/icd-10-cm"}


@dataclass(frozen=True)
class Demo:
    """The tables of the demo that both exports are made of. Times are wall times."""

    stays: pl.DataFrame
    patients: pl.DataFrame
    diagnoses: pl.DataFrame
    measured: pl.DataFrame
    given: pl.DataFrame

    def of_patients(self, half: int) -> "Demo":
        """The patients with an even (0) or odd (1) number."""
        own = pl.col("subject_id") % 2 == half
        return Demo(**{name: table.filter(own) for name, table in vars(self).items()})

    @classmethod
    def read(cls, data: Path) -> "Demo":
        def table(name: str) -> pl.DataFrame:
            return pl.read_csv(
                data / DEMO / f"{name}.csv.gz", try_parse_dates=True, infer_schema_length=None
            )

        events = pl.read_parquet(data / MEDS / "*.parquet")
        parts = pl.col("code").str.split("//").list
        events = events.select(
            "subject_id",
            "time",
            pl.col("value").cast(pl.Float64),
            kind=parts.get(0),
            item=parts.get(1, null_on_oob=True).cast(pl.Int64, strict=False),
            unit=parts.get(2, null_on_oob=True),
            item_of_course=parts.last().cast(pl.Int64, strict=False),
            code="code",
        )
        stays = table("icu/icustays").join(
            table("hosp/admissions").drop("subject_id"), on="hadm_id"
        )
        births = events.filter(pl.col("code") == "MEDS_BIRTH").select("subject_id", birth="time")
        return cls(
            stays=stays,
            patients=table("hosp/patients")
            .join(births, on="subject_id")
            .join(
                stays.group_by("subject_id").agg(pl.col("deathtime").max()),
                on="subject_id",
                how="left",
            ),
            diagnoses=table("hosp/diagnoses_icd").join(
                stays.select("hadm_id").unique(), on="hadm_id"
            ),
            measured=_measured(events, stays),
            given=_given(events),
        )


def _measured(events: pl.DataFrame, stays: pl.DataFrame) -> pl.DataFrame:
    """`subject_id`, `time`, `value`, `loinc`, `unit` as MIMIC-IV spells it, `ucum`."""
    spec = FeatureSpec.default()
    units = events.filter(pl.col("kind") == "LAB").select("item", "unit").unique().rows()
    rows = []
    for variable in (v for v in load_variables() if v.name in VARIABLES):
        for item, unit in units:
            conversion = spec.look_up(variable.name, unit)[1] if unit else None
            if item in variable.mimic_iv and conversion is not None:
                rows.append((item, unit, variable.loinc[0], conversion.unit))
    schema = {"item": pl.Int64, "unit": pl.String, "loinc": pl.String, "ucum": pl.String}
    spans = stays.select("subject_id", since=pl.col("intime") - _WINDOW, until="outtime")
    return (
        events.join(pl.DataFrame(rows, schema=schema, orient="row"), on=["item", "unit"])
        .drop_nulls("value")
        .join(spans, on="subject_id")
        .filter(pl.col("time").is_between("since", "until"))
        .select("subject_id", "time", "value", "loinc", "unit", "ucum")
        .unique()
        .sort("subject_id", "time", "loinc", "value")
    )


def _given(events: pl.DataFrame) -> pl.DataFrame:
    """`subject_id`, `name`, `start`, `end`: starts and ends paired in order."""
    items = [(i, t.name) for t in load_treatments() if t.name in TREATMENTS for i in t.mimic_iv]
    named = events.join(
        pl.DataFrame(items, schema=["item_of_course", "name"], orient="row"), on="item_of_course"
    )

    def numbered(pattern: str, name: str) -> pl.DataFrame:
        key = ["subject_id", "item_of_course", "name"]
        return (
            named.filter(pl.col("code").str.contains(pattern))
            .select(*key, pl.col("time").alias(name))
            .sort(*key, name)
            .with_columns(number=pl.int_range(pl.len()).over(key))
        )

    pairs = numbered("_START//|//START//", "start").join(
        numbered("_END//|//END//", "end"), on=["subject_id", "item_of_course", "name", "number"]
    )
    return pairs.filter(pl.col("end") >= pl.col("start"))


# ---- OMOP ----------------------------------------------------------------------------------------


class _Concepts:
    """Concepts with ids from two billion on, as OMOP prescribes for local ones."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], tuple[int, str]] = {
            ("Gender", "F"): (8532, "FEMALE"),
            ("Gender", "M"): (8507, "MALE"),
            ("Visit", "IP"): (9201, "Inpatient Visit"),
            ("Visit", "OMOP4822460"): (32037, "Intensive Care"),
        }

    def id(self, vocabulary: str, code: str, name: str = "") -> int:
        known = self.rows.setdefault((vocabulary, code), (2_000_000_000 + len(self.rows), name))
        return known[0]

    def table(self) -> pl.DataFrame:
        rows = [(i, code, name, v) for (v, code), (i, name) in self.rows.items()]
        columns = ["concept_id", "concept_code", "concept_name", "vocabulary_id"]
        return pl.DataFrame(rows, schema=columns, orient="row")

    def column(self, vocabulary: str, codes: pl.Series) -> pl.Series:
        return codes.replace_strict({code: self.id(vocabulary, code) for code in codes.unique()})


def write_omop(demo: Demo, folder: Path) -> Path:
    """Writes the tables: measurements as Parquet, the others as CSV."""
    folder.mkdir()
    concepts = _Concepts()
    visits = demo.stays.unique("hadm_id", maintain_order=True)
    measured, given, patients = demo.measured, demo.given, demo.patients
    gender = concepts.column("Gender", patients["gender"])
    codes = demo.diagnoses
    icd = [
        concepts.id(f"ICD{version}CM", code)
        for version, code in codes.select("icd_version", "icd_code").iter_rows()
    ]
    is_drug = pl.col("name") != "mechanical_ventilation"
    drugs, procedures = given.filter(is_drug), given.filter(~is_drug)
    tables = {
        "person": patients.select(
            person_id="subject_id",
            gender_concept_id=gender,
            year_of_birth=pl.col("birth").dt.year(),
            month_of_birth=pl.col("birth").dt.month(),
            day_of_birth=pl.col("birth").dt.day(),
        ),
        "visit_occurrence": visits.select(
            visit_occurrence_id="hadm_id",
            person_id="subject_id",
            visit_concept_id=9201,
            visit_start_datetime="admittime",
            visit_end_datetime="dischtime",
            discharged_to_source_value="discharge_location",
        ),
        "visit_detail": demo.stays.select(
            visit_detail_id="stay_id",
            person_id="subject_id",
            visit_detail_concept_id=32037,
            visit_detail_start_datetime="intime",
            visit_detail_end_datetime="outtime",
            visit_detail_source_value="first_careunit",
        ),
        "death": visits.drop_nulls("deathtime").select(
            person_id="subject_id",
            death_date=pl.col("deathtime").dt.date(),
            death_datetime="deathtime",
        ),
        "condition_occurrence": codes.select(
            person_id="subject_id",
            visit_occurrence_id="hadm_id",
            condition_concept_id=0,
            condition_source_concept_id=pl.Series(icd),
        ),
        "drug_exposure": drugs.select(
            person_id="subject_id",
            drug_concept_id=concepts.column("RxNorm", drugs["name"]),
            drug_type_concept_id=32818,
            drug_exposure_start_datetime="start",
            drug_exposure_end_datetime="end",
            drug_source_value="name",
        ),
        "procedure_occurrence": procedures.select(
            person_id="subject_id",
            procedure_concept_id=concepts.id("SNOMED", "243147009"),
            procedure_datetime="start",
            procedure_end_datetime="end",
        ),
    }
    measurement = measured.select(
        person_id="subject_id",
        measurement_concept_id=concepts.column("LOINC", measured["loinc"]),
        measurement_datetime="time",
        value_as_number="value",
        unit_concept_id=concepts.column("UCUM", measured["ucum"]),
        unit_source_value="unit",
    )
    measurement.write_parquet(folder / "measurement.parquet")
    for name, table in (tables | {"concept": concepts.table()}).items():
        table.write_csv(folder / f"{name}.csv", datetime_format="%Y-%m-%d %H:%M:%S")
    return folder


# ---- FHIR ----------------------------------------------------------------------------------------


def write_fhir(demo: Demo, folder: Path) -> Path:
    """Writes one NDJSON file for each type of resource."""
    folder.mkdir()
    for kind, resources in {
        "Patient": map(_patient, demo.patients.iter_rows(named=True)),
        "Location": _locations(demo.stays),
        "Encounter": _encounters(demo.stays),
        "Condition": map(_condition, demo.diagnoses.iter_rows(named=True)),
        "Observation": map(_observation, demo.measured.iter_rows(named=True)),
        "MedicationAdministration": _courses(demo.given, is_procedure=False),
        "Procedure": _courses(demo.given, is_procedure=True),
    }.items():
        with (folder / f"{kind}.ndjson").open("w", encoding="utf-8") as file:
            for resource in resources:
                file.write(json.dumps({"resourceType": kind, **resource}) + "\n")
    return folder


def _time(value: Any) -> str:
    return f"{value.isoformat()}Z"


def _subject(row: dict[str, Any]) -> dict[str, Any]:
    return {"subject": {"reference": f"Patient/{row['subject_id']}"}}


def _period(start: Any, end: Any) -> dict[str, str]:
    return {"start": _time(start), "end": _time(end)}


def _patient(row: dict[str, Any]) -> dict[str, Any]:
    deceased: dict[str, Any] = {"deceasedBoolean": False}
    if row["deathtime"] is not None:
        deceased = {"deceasedDateTime": _time(row["deathtime"])}
    elif row["dod"] is not None:
        deceased = {"deceasedDateTime": row["dod"].isoformat()}
    return {
        **deceased,
        "id": str(row["subject_id"]),
        "gender": {"F": "female", "M": "male"}[row["gender"]],
        "birthDate": row["birth"].date().isoformat(),
    }


def _locations(stays: pl.DataFrame) -> Iterator[dict[str, Any]]:
    for name in sorted(stays["first_careunit"].unique()):
        yield {"id": _location_id(name), "name": name}


def _location_id(name: str) -> str:
    return re.sub(r"\W+", "-", name)


def _encounters(stays: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """The hospital stay, and each stay in a unit as a part of it."""
    finished = {"status": "finished"}
    for row in stays.unique("hadm_id", maintain_order=True).iter_rows(named=True):
        disposition = {"dischargeDisposition": {"text": row["discharge_location"] or "unknown"}}
        yield {
            **finished,
            **_subject(row),
            "id": str(row["hadm_id"]),
            "class": {"code": "IMP"},
            "period": _period(row["admittime"], row["dischtime"]),
            "hospitalization": disposition,
        }
    for row in stays.iter_rows(named=True):
        period = _period(row["intime"], row["outtime"])
        location = {"reference": f"Location/{_location_id(row['first_careunit'])}"}
        yield {
            **finished,
            **_subject(row),
            "id": str(row["stay_id"]),
            "class": {"code": "ACUTE"},
            "partOf": {"reference": f"Encounter/{row['hadm_id']}"},
            "period": period,
            "location": [{"location": location, "period": period}],
        }


def _condition(row: dict[str, Any]) -> dict[str, Any]:
    return {
        **_subject(row),
        "encounter": {"reference": f"Encounter/{row['hadm_id']}"},
        "code": {"coding": [{"system": _ICD[row["icd_version"]], "code": row["icd_code"]}]},
    }


def _observation(row: dict[str, Any]) -> dict[str, Any]:
    unit = {"unit": row["unit"], "system": _UCUM, "code": row["ucum"]}
    return {
        **_subject(row),
        "status": "final",
        "code": {"coding": [{"system": _LOINC, "code": row["loinc"]}]},
        "effectiveDateTime": _time(row["time"]),
        "valueQuantity": {"value": row["value"], **unit},
    }


def _courses(given: pl.DataFrame, *, is_procedure: bool) -> Iterable[dict[str, Any]]:
    code, time = (
        ("code", "performedPeriod")
        if is_procedure
        else ("medicationCodeableConcept", "effectivePeriod")
    )
    for row in given.iter_rows(named=True):
        if (row["name"] == "mechanical_ventilation") == is_procedure:
            yield {
                **_subject(row),
                "status": "completed",
                code: {"text": row["name"]},
                time: _period(row["start"], row["end"]),
            }
