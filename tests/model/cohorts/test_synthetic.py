"""The synthetic cohort and the example requests."""

import io
from datetime import timedelta
from itertools import combinations
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from model.cohorts.synthetic import (
    DISEASES,
    FACTORS,
    MEASUREMENTS,
    PATIENTS,
    TREATMENTS,
    examples,
    patients,
    read,
    shared_factors,
    write_examples,
)
from schemas.features import FeatureSpec, extract_features
from schemas.payload import parse_payload
from schemas.response import MODALITIES
from schemas.tasks import load_tasks
from schemas.variables import load_treatments, load_variables

EXAMPLES = Path(__file__).parents[3] / "examples"
SPEC = FeatureSpec.default()
TASKS = {task.name: task for task in load_tasks()}


@pytest.fixture(scope="module")
def records():
    return list(patients(600, seed=7))


def share(records, task):
    return np.mean([record.outcomes[task] for record in records])


def test_a_seed_gives_the_same_patients_for_any_count(records):
    assert list(patients(20, seed=7)) == records[:20]


def test_another_seed_gives_other_patients(records):
    assert next(patients(1, seed=8)) != records[0]


def test_reading_needs_no_data(records):
    assert PATIENTS == 1600
    assert next(read(Path("does/not/exist"))) != records[0]


def test_every_record_is_24_hours_after_admission(records):
    assert {record.landmark_hours for record in records} == {24}
    for record in records:
        tabular = record.payload.tabular
        if tabular is not None:
            assert record.payload.as_of - tabular.admitted_at == timedelta(hours=24)


def test_patients_differ_and_come_from_many_hospitals(records):
    assert len({record.patient for record in records}) == len(records)
    assert len({record.site for record in records}) >= 10


def test_every_task_except_the_phenotype_is_labelled(records):
    labelled = {name for name, task in TASKS.items() if task.kind != "clustering"}
    assert all(set(record.outcomes) == labelled for record in records)


def test_outcomes_have_the_type_of_their_task(records):
    for record in records:
        for name, outcome in record.outcomes.items():
            match TASKS[name].kind:
                case "binary":
                    assert isinstance(outcome, bool)
                case "regression":
                    assert isinstance(outcome, float)
                    assert outcome > 0
                case "multiclass":
                    assert outcome in TASKS[name].classes


@pytest.mark.parametrize("name", [n for n, task in TASKS.items() if task.kind == "binary"])
def test_a_disease_is_as_common_as_declared(records, name):
    declared = DISEASES[name].prevalence
    assert 0.02 <= declared <= 0.40
    margin = 4 * np.sqrt(declared * (1 - declared) / len(records))
    children = sum(DISEASES[n].prevalence for n, task in TASKS.items() if task.subset_of == name)
    assert declared - margin <= share(records, name) <= declared + children + margin


def test_a_subset_implies_its_parent(records):
    pairs = [(name, task.subset_of) for name, task in TASKS.items() if task.subset_of]
    assert pairs
    for child, parent in pairs:
        assert all(record.outcomes[parent] for record in records if record.outcomes[child])


def test_the_disposition_is_died_for_exactly_the_patients_who_die(records):
    for record in records:
        died = record.outcomes["discharge_disposition"] == "died"
        assert died == record.outcomes["in_hospital_mortality"]


def test_every_disposition_occurs(records):
    dispositions = {record.outcomes["discharge_disposition"] for record in records}
    assert dispositions == set(TASKS["discharge_disposition"].classes)


def test_patients_with_septic_shock_stay_longer(records):
    days = {shock: [] for shock in (False, True)}
    for record in records:
        days[record.outcomes["septic_shock"]].append(record.outcomes["length_of_stay"])
    assert np.median(days[True]) > 1.2 * np.median(days[False])


def test_features_ignore_nothing_of_a_payload(records):
    present = []
    for record in records[:200]:
        made = extract_features(record.payload, SPEC)
        assert made.receipt.ignored == ()
        present.append([modality in made.arrays for modality in MODALITIES])
    assert all(np.any(present, axis=0))
    assert not any(np.all(present, axis=0)), "every modality is sometimes absent"


def test_a_payload_is_unchanged_by_a_round_trip_through_json(records):
    payload = records[0].payload
    assert parse_payload(payload.model_dump_json()) == payload


@pytest.mark.parametrize(
    ("task", "variable", "direction"),
    [
        ("septic_shock", "lactate", 1),
        ("acute_kidney_injury", "creatinine", 1),
        ("liver_disease", "bilirubin_total", 1),
        ("thrombocytopenia", "platelets", -1),
        ("anemia", "hemoglobin", -1),
        ("diabetes", "glucose", 1),
    ],
)
def test_a_disease_shifts_its_laboratory_value_in_the_medical_direction(
    records, task, variable, direction
):
    means = {ill: [] for ill in (False, True)}
    for record in records:
        for series in record.payload.series:
            if series.variable == variable:
                means[record.outcomes[task]].append(np.mean(series.values))
    assert direction * (np.median(means[True]) - np.median(means[False])) > 0


def test_notes_mention_a_disease_more_often_if_the_patient_has_it(records):
    mentioned = {ill: [] for ill in (False, True)}
    for record in records:
        for note in record.payload.notes:
            findings = note.text.split("Not found")[0]
            for name, disease in DISEASES.items():
                mentioned[record.outcomes[name]].append(disease.phrase in findings)
    assert np.mean(mentioned[True]) > 3 * np.mean(mentioned[False]) > 0


def test_an_effusion_brightens_the_base_of_an_x_ray(records):
    brightness = {ill: [] for ill in (False, True)}
    for record in records:
        for image in record.payload.images:
            pixels = np.asarray(PIL.Image.open(io.BytesIO(image.data)), np.float64)
            height = len(pixels)
            base = pixels[height // 2 : height * 3 // 4]
            brightness[record.outcomes["pleural_effusion"]].append(base.mean() / pixels.mean())
    assert np.mean(brightness[True]) > np.mean(brightness[False])


def test_the_graph_refers_only_to_declared_tasks_variables_and_treatments():
    assert {name for factor in FACTORS.values() for name in factor.loadings} <= set(TASKS)
    assert set(DISEASES) == {name for name, task in TASKS.items() if task.kind == "binary"}
    assert set(MEASUREMENTS) <= {variable.name for variable in load_variables()}
    assert set(TREATMENTS) <= {treatment.name for treatment in load_treatments()}


def test_every_task_has_a_part_of_its_own():
    for name in TASKS:
        assert sum(factor.loadings.get(name, 0) ** 2 for factor in FACTORS.values()) < 1


def test_tasks_that_share_a_factor_occur_together(records):
    """Over all pairs, the outcomes of linked tasks correlate and those of other pairs do not."""
    outcomes = np.array([[record.outcomes[name] for name in DISEASES] for record in records])
    correlation = np.corrcoef(outcomes.T)
    linked = {edge: [] for edge in (False, True)}
    for (i, first), (j, second) in combinations(enumerate(DISEASES), 2):
        assert shared_factors(first, second) == shared_factors(second, first)
        linked[bool(shared_factors(first, second))].append(correlation[i, j])
    assert np.mean(linked[True]) > 0.08
    assert abs(np.mean(linked[False])) < 0.02


@pytest.fixture(scope="module")
def made_examples():
    return examples()


def test_the_example_files_are_up_to_date(made_examples, tmp_path):
    write_examples(tmp_path)
    assert {path.stem for path in EXAMPLES.glob("*.json")} == set(made_examples)
    for name in made_examples:
        on_file, made = (
            without_images(parse_payload((folder / f"{name}.json").read_bytes()))
            for folder in (EXAMPLES, tmp_path)
        )
        assert on_file == made


def without_images(payload):
    """The payload and the pixels apart: compressed bytes differ between zlib builds."""
    pixels = [PIL.Image.open(io.BytesIO(image.data)).tobytes() for image in payload.images]
    images = [image.model_copy(update={"data": b""}) for image in payload.images]
    return payload.model_copy(update={"images": images}), pixels


def test_examples_cause_no_warning_and_nothing_is_ignored(made_examples):
    for payload in made_examples.values():
        receipt = extract_features(payload, SPEC).receipt
        assert receipt.ignored == ()
        assert receipt.warnings == ()


def test_examples_have_one_three_and_four_modalities(made_examples):
    used = {name: set(extract_features(p, SPEC).arrays) for name, p in made_examples.items()}
    assert used == {
        "septic_shock": {"tabular", "series", "notes", "image"},
        "heart_failure": {"tabular", "series", "notes"},
        "chest_xray_only": {"image"},
        "vitals_only": {"series"},
        "minimal": {"tabular"},
    }


def test_the_septic_shock_example_mixes_units_and_names(made_examples):
    payload = made_examples["septic_shock"]
    converted = {
        conversion.from_unit for conversion in extract_features(payload, SPEC).receipt.converted
    }
    assert {"kPa", "[degF]", "umol/L", "mg/dL", "ug/min"} <= converted
    assert any(series.variable.startswith("loinc:") for series in payload.series)
    assert any("loinc" not in series.variable for series in payload.series)


def test_example_images_are_small(made_examples):
    sizes = [len(image.data) for p in made_examples.values() for image in p.images]
    assert sizes
    assert max(sizes) * 4 / 3 <= 15_000
