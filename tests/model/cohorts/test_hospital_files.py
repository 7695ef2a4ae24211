"""MEDS, OMOP and FHIR files of one made patient: rules of reading, and malformed files."""

import json
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from typer.testing import CliRunner

from model.cli.main import app
from model.cohorts import DataError, DataMissing, fhir, meds, omop

NOON = datetime(2031, 5, 1, 12, tzinfo=UTC)
SECRET = "Jane Doe"


def at(hours):
    return NOON + timedelta(hours=hours)


# ---- MEDS ----------------------------------------------------------------------------------------

EVENTS = [
    (None, "GENDER//F", None),
    (datetime(1961, 1, 1, tzinfo=UTC), "MEDS_BIRTH", None),
    (at(-3), "HOSPITAL_ADMISSION//URGENT//EMERGENCY ROOM", None),
    (NOON, "ICU_ADMISSION//MICU", None),
    (at(2), "LOINC//2524-7//mmol/L", 4.5),
    (at(3), "LOINC//2524-7//mg", 40.0),
    (at(30), "ICU_DISCHARGE//MICU", None),
    (at(100), "DIAGNOSIS//ICD//10//I509", None),
    (at(100), "DIAGNOSIS//ICD//9//E8120", None),
    (at(100), "HOSPITAL_DISCHARGE//HOME", None),
]


def write_meds(folder, events=EVENTS):
    table = pl.DataFrame(
        [(1, *event) for event in events],
        schema={
            "subject_id": pl.Int64,
            "time": pl.Datetime("us", "UTC"),
            "code": pl.String,
            "numeric_value": pl.Float32,
        },
        orient="row",
    )
    (folder / "data").mkdir(parents=True)
    table.write_parquet(folder / "data/0.parquet")
    return folder


def test_loinc_codes_of_meds_need_no_map(tmp_path):
    records = list(meds.read(write_meds(tmp_path)))
    assert [r.landmark_hours for r in records] == [6, 12, 24]
    (series,) = records[0].payload.series
    assert (series.variable, series.unit, list(series.values)) == ("lactate", "mmol/L", [4.5])
    tabular = records[0].payload.tabular
    assert (tabular.age, tabular.sex) == (70, "female")
    assert (tabular.unit_type, tabular.admission_source) == ("medical_icu", "emergency")
    outcomes = records[0].outcomes
    assert outcomes["heart_failure"] is True
    assert outcomes["sepsis"] is False
    assert outcomes["discharge_disposition"] == "home"
    assert outcomes["length_of_stay"] == pytest.approx(94 / 24)


def test_a_value_in_an_unknown_unit_is_counted_and_dropped(tmp_path, caplog):
    list(meds.read(write_meds(tmp_path)))
    assert "1 of LOINC//2524-7//mg in mg" in caplog.text


def test_without_diagnoses_and_deaths_diseases_and_mortality_have_no_label(tmp_path):
    kept = [e for e in EVENTS if not e[1].startswith(("DIAGNOSIS", "HOSPITAL_DISCHARGE"))]
    path = write_meds(tmp_path, [*kept, (at(100), "HOSPITAL_DISCHARGE", None)])
    assert {name for r in meds.read(path) for name in r.outcomes} == {"length_of_stay"}


def test_a_parent_code_names_the_loinc(tmp_path):
    local = [(t, c.replace("LOINC//2524-7//mmol/L", "LAB//1"), v) for t, c, v in EVENTS]
    path = write_meds(tmp_path, local)
    (path / "metadata").mkdir()
    codes = pl.DataFrame({"code": ["LAB//1"], "parent_codes": [["LOINC/2524-7"]]})
    codes.write_parquet(path / "metadata/codes.parquet")
    codes_file = tmp_path / "codes.toml"
    codes_file.write_text('[variables]\n"LAB//1" = {variable = "lactate", unit = "mmol/L"}\n')
    assert not next(meds.read(path)).payload.series  # the unit is not known
    (series,) = next(meds.read(path, str(codes_file))).payload.series
    assert (series.variable, list(series.values)) == ("lactate", [4.5])


def write_labels(folder, name, **columns):
    (folder / "labels").mkdir(exist_ok=True)
    table = pl.DataFrame({"subject_id": [1], "prediction_time": [at(10)], **columns})
    table.write_parquet(folder / f"labels/{name}.parquet")


def test_labels_are_read_at_their_prediction_times_and_precede_the_codes(tmp_path):
    path = write_meds(tmp_path)
    write_labels(path, "heart_failure", boolean_value=[False])
    write_labels(path, "septic_shock", boolean_value=[True])
    (record,) = meds.read(path)
    assert record.payload.as_of == at(10)
    assert record.landmark_hours == 10
    assert record.outcomes["heart_failure"] is False
    assert record.outcomes["septic_shock"] is record.outcomes["sepsis"] is True


@pytest.mark.parametrize(
    ("name", "columns", "message"),
    [
        ("readmission", {"boolean_value": [True]}, "readmission is not the name of a task"),
        ("length_of_stay", {"float_value": [-1.0]}, "row 1: float_value must be null or days"),
        ("sepsis", {"boolean_value": [SECRET]}, "boolean_value must hold true or false"),
    ],
)
def test_a_wrong_label_is_named(tmp_path, name, columns, message):
    path = write_meds(tmp_path)
    write_labels(path, name, **columns)
    with pytest.raises(DataError, match=message):
        next(meds.read(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[variables", "codes.toml"),
        ("observation = []", "observation"),
        ("observations = ['LAB//.*']", "needs a group"),
        ("unit_admission = '('", "unit_admission"),
    ],
)
def test_a_wrong_map_of_codes_is_named(tmp_path, text, message):
    file = tmp_path / "codes.toml"
    file.write_text(text)
    with pytest.raises(DataError, match=message) as error:
        next(meds.read(write_meds(tmp_path / "data"), str(file)))
    assert "\n" not in str(error.value)


# ---- OMOP ----------------------------------------------------------------------------------------

TABLES = {
    "person": "person_id,gender_concept_id,year_of_birth\n1,8532,1961",
    "visit_occurrence": (
        "visit_occurrence_id,person_id,visit_concept_id,visit_start_datetime,visit_end_datetime,"
        "discharged_to_concept_id,care_site_id\n"
        "5,1,9201,2031-05-01 12:00:00,2031-05-03 12:00:00,4216643,7"
    ),
    "measurement": (
        "person_id,measurement_concept_id,measurement_datetime,value_as_number,unit_concept_id,"
        "unit_source_value\n"
        "1,9,2031-05-01 13:00:00,4.5,8,mmol/L\n"
        "1,9,2031-05-01 14:00:00,4.5,8,mg/dL"
    ),
    "condition_occurrence": (
        "visit_occurrence_id,condition_concept_id,condition_source_concept_id\n5,10,11\n5,10,"
    ),
    "drug_exposure": (
        "person_id,drug_concept_id,drug_type_concept_id,drug_exposure_start_datetime,"
        "drug_exposure_end_datetime\n"
        "1,12,32818,2031-05-01 12:00:00,2031-05-01 14:00:00\n"
        "1,13,32838,2031-05-01 12:00:00,2031-05-01 14:00:00"
    ),
    "note": "person_id,note_date,note_text\n1,2031-05-01,Unwell.",
    "concept": """concept_id\tconcept_code\tconcept_name\tvocabulary_id
8532\tF\tFEMALE\tGender
4216643\t1\tPatient died\tSNOMED
8\tmmol/L\tmillimole per liter\tUCUM
9\t2524-7\tLactate\tLOINC
10\t84114007\tHeart failure\tSNOMED
11\tI50.9\tHeart failure\tICD10CM
12\t7512\tnorepinephrine 1 MG/ML Injection\tRxNorm
13\t8782\tpropofol\tRxNorm""",
}


def write_omop(folder, **changed):
    folder.mkdir(exist_ok=True)
    for name, text in (TABLES | changed).items():
        (folder / f"{name}.csv").write_text(text + "\n", encoding="utf-8")
    return folder


def test_omop_is_read_by_concept_and_vocabulary(tmp_path, caplog):
    records = list(omop.read(write_omop(tmp_path)))
    assert [r.landmark_hours for r in records] == [6, 12, 24, 48]
    first, _, next_day, _ = records
    (series,) = first.payload.series
    assert (series.variable, series.unit, list(series.values)) == ("lactate", "mmol/L", [4.5])
    assert "1 of loinc:2524-7 in contradictory" in caplog.text
    (treatment,) = first.payload.treatments
    assert treatment.name == "norepinephrine"
    assert "1 drug exposures that are not administrations" in caplog.text
    assert first.site == "care site 7"
    assert first.payload.tabular.sex == "female"
    assert not first.payload.notes  # known from the next day
    assert [note.text for note in next_day.payload.notes] == ["Unwell."]


def test_a_diagnosis_of_snomed_ct_alone_makes_other_diseases_unknown(tmp_path):
    outcomes = next(omop.read(write_omop(tmp_path))).outcomes
    assert outcomes["heart_failure"] is True
    assert "sepsis" not in outcomes
    assert outcomes["in_hospital_mortality"] is True
    assert outcomes["discharge_disposition"] == "died"


@pytest.mark.parametrize(
    ("table", "old", "new", "message"),
    [
        ("person", "1961", SECRET, "row 1: the column year_of_birth must hold an integer"),
        ("measurement", "14:00:00,4.5", f"14:00:00,{SECRET}", "row 2: the column value_as_number"),
        ("visit_occurrence", "2031-05-03 12:00:00", "03.05.2031", "visit_end_datetime must hold a"),
        ("concept", "concept_code", "code", "has no column concept_code"),
        ("drug_exposure", TABLES["drug_exposure"], "", "drug_exposure.csv"),
    ],
)
def test_a_wrong_table_of_omop_is_named(tmp_path, table, old, new, message):
    path = write_omop(tmp_path, **{table: TABLES[table].replace(old, new)})
    with pytest.raises(DataError, match=message) as error:
        list(omop.read(path))
    assert f"{path / table}.csv" in str(error.value)
    assert SECRET not in str(error.value)
    assert "\n" not in str(error.value)


# ---- FHIR ----------------------------------------------------------------------------------------


def fhir_resources():
    subject = {"reference": "Patient/1"}
    stay = {"start": "2031-05-01T12:00:00Z", "end": "2031-05-03T12:00:00Z"}
    icd = {"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "I50.9"}
    condition = {"subject": subject, "encounter": {"reference": "Encounter/5"}}
    return {
        "Patient": [{"id": "1", "gender": "female", "birthDate": "1961-01-01"}],
        "Encounter": [
            {
                "id": "5",
                "status": "finished",
                "class": {"code": "IMP"},
                "subject": subject,
                "period": stay,
                "hospitalization": {"dischargeDisposition": {"coding": [{"code": "exp"}]}},
                "serviceProvider": {"reference": "Organization/7"},
            }
        ],
        "Condition": [condition | {"code": {"coding": [icd]}}],
        "Observation": [
            {
                "status": "final",
                "subject": subject,
                "code": {"coding": [{"system": "http://loinc.org", "code": "2524-7"}]},
                "effectiveDateTime": "2031-05-01T13:00:00Z",
                "valueQuantity": {"value": 4.5, "unit": "mmol/L", "code": "mmol/L"},
            }
        ],
    }


def write_fhir(folder, resources):
    folder.mkdir(exist_ok=True)
    for kind, listed in resources.items():
        lines = [json.dumps({"resourceType": kind, **resource}) for resource in listed]
        (folder / f"{kind}.ndjson").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_a_bulk_export_is_read_as_the_service_reads_a_bundle(tmp_path):
    records = list(fhir.read(write_fhir(tmp_path, fhir_resources())))
    assert [r.landmark_hours for r in records] == [6, 12, 24, 48]
    record = records[0]
    (series,) = record.payload.series
    assert (series.variable, series.unit, list(series.values)) == ("loinc:2524-7", "mmol/L", [4.5])
    assert record.payload.tabular.age == 70
    assert record.site == "Organization/7"
    assert record.outcomes["heart_failure"] is True
    assert record.outcomes["sepsis"] is False
    assert record.outcomes["in_hospital_mortality"] is True
    assert "length_of_stay" not in records[-1].outcomes


def test_a_problem_list_and_an_open_stay_give_no_labels(tmp_path):
    resources = fhir_resources()
    resources["Condition"][0]["category"] = [{"coding": [{"code": "problem-list-item"}]}]
    del resources["Encounter"][0]["hospitalization"]
    outcomes = next(fhir.read(write_fhir(tmp_path, resources))).outcomes
    assert set(outcomes) == {"length_of_stay"}
    resources["Encounter"][0]["status"] = "in-progress"
    assert not list(fhir.read(write_fhir(tmp_path, resources)))


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("Observation", {"subject": {"display": SECRET}}, "line 1: subject.reference: must"),
        ("Observation", {"effectiveDateTime": SECRET}, "line 1: effective: "),
        ("Observation", {"valueQuantity": {"value": SECRET}}, "line 1: value.value: must be"),
        ("Patient", {"birthDate": SECRET}, "line 1: birthDate: must be a date"),
        ("Patient", {"id": 7}, "line 1: id: is required"),
    ],
)
def test_a_wrong_resource_is_named_by_file_and_line(tmp_path, kind, change, message):
    resources = fhir_resources()
    resources[kind][0] |= change
    path = write_fhir(tmp_path, resources)
    with pytest.raises(DataError, match=message) as error:
        list(fhir.read(path))
    assert str(error.value).startswith(f"{path / kind}.ndjson, line 1: ")
    assert SECRET not in str(error.value)


def test_a_line_that_is_not_json_is_named(tmp_path):
    path = write_fhir(tmp_path, fhir_resources())
    with (path / "Observation.ndjson").open("a") as file:
        file.write(f"{{{SECRET}\n")
    with pytest.raises(DataError, match=r"Observation\.ndjson, line 2: is not JSON$"):
        list(fhir.read(path))


# ---- all -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", [meds, omop, fhir])
def test_an_empty_folder_is_refused(tmp_path, reader):
    with pytest.raises(DataMissing, match=str(tmp_path)):
        next(reader.read(tmp_path))


@pytest.mark.parametrize("content", [b"", b"no parquet", b"PAR1 cut"])
def test_a_damaged_file_of_meds_is_named(tmp_path, content):
    path = write_meds(tmp_path)
    (path / "data/1.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"1\.parquet") as error:
        list(meds.read(path))
    assert "\n" not in str(error.value)


def test_the_command_ends_with_one_line(tmp_path):
    path = write_omop(tmp_path / "data", person=TABLES["person"].replace("1961", SECRET))
    command = ["cohort", "omop", "--data", str(path), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1].startswith(f"m3h-model: {path / 'person.csv'}, row 1: ")
    refused = CliRunner().invoke(app, [*command, "--codes", "mimic_iv"])
    assert refused.exit_code == 2
