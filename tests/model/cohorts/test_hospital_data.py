"""The same patients as records.jsonl, MEDS, OMOP tables and FHIR: cohorts, models, a service."""

import json
from importlib import import_module

import numpy as np
import polars as pl
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from export.cli import app as export_app
from model.cli.main import app
from model.cohorts import meds, mimic_iv
from model.cohorts.store import Cohort
from model.cohorts.store import write as write_cohort
from schemas.features import STATISTICS, FeatureSpec
from service.http.app import create_app
from service.runtime.bundle import Bundle
from service.runtime.engine import Engine
from service.settings import Settings
from tests.support.inputs.mimic_iv_exports import (
    DEMO,
    MEDS,
    TREATMENTS,
    VARIABLES,
    Demo,
    write_fhir,
    write_omop,
)
from tests.support.inputs.records import as_line

SOURCES = ("records", "meds", "omop", "fhir")
SPEC = FeatureSpec.default()
QUICK = "epochs = 2\nmembers = 1\nbatch = 64\n[net]\nwidth = 8\ntask_width = 4\ntrees = {}\n"


@pytest.fixture(scope="module")
def data(open_data):
    return open_data(DEMO, MEDS)


@pytest.fixture(scope="module")
def demo(data):
    return Demo.read(data)


@pytest.fixture(scope="module")
def halves(data, demo, tmp_path_factory):
    """The `--data` of each source, for the patients with even and with odd numbers."""
    folder = tmp_path_factory.mktemp("halves")
    events = pl.read_parquet(data / MEDS / "*.parquet")
    paths = []
    for half in (0, 1):
        part = folder / str(half)
        (part / "meds").mkdir(parents=True)
        own = events.filter(pl.col("subject_id") % 2 == half)
        own.write_parquet(part / "meds/events.parquet")
        lines = map(as_line, meds.read(part / "meds", "mimic_iv"))
        (part / "records.jsonl").write_text("\n".join(lines), encoding="utf-8")
        demo_half = demo.of_patients(half)
        paths.append(
            {
                "records": part / "records.jsonl",
                "meds": part / "meds",
                "omop": write_omop(demo_half, part / "omop"),
                "fhir": write_fhir(demo_half, part / "fhir"),
            }
        )
    return paths


@pytest.fixture(scope="module")
def cohorts(halves, tmp_path_factory):
    """The records of the even patients by their moment, and their arrays, from each source."""
    made = {}
    for source in SOURCES:
        reader = import_module(f"model.cohorts.{source}")
        options = ("mimic_iv",) if source == "meds" else ()
        records = {moment(r): r for r in reader.read(halves[0][source], *options)}
        folder = tmp_path_factory.mktemp(source) / "cohort"
        arguments = {"name": source, "source": "", "made_by": (), "spec": SPEC}
        for _ in write_cohort(records.values(), folder, **arguments):
            pass
        made[source] = records, Cohort.load(folder).samples
    return made


def moment(record):
    tabular = record.payload.tabular
    return record.patient, tabular.admitted_at.timestamp(), record.landmark_hours


def common(cohorts, *sources):
    """The moments of all these sources, and their rows in each."""
    keys = [list(cohorts[source][0]) for source in sources]
    shared = sorted(set.intersection(*map(set, keys)))
    return shared, [np.array([own.index(key) for key in shared]) for own in keys]


@pytest.mark.parametrize("source", ["records", "omop", "fhir"])
def test_the_arrays_agree_where_the_sources_hold_the_same(cohorts, source):
    shared, (first, other) = common(cohorts, "meds", source)
    assert len(shared) > 0.97 * len(cohorts["meds"][0]) == 0.97 * len(cohorts["omop"][0])
    expected, own = (cohorts[name][1].take(r) for name, r in (("meds", first), (source, other)))
    np.testing.assert_array_equal(own.outcomes, expected.outcomes)
    np.testing.assert_array_equal(own.patient, expected.patient)
    names = list(SPEC.tabular_names)
    same = [i for i, n in enumerate(names) if n.startswith(("age", "sex", "unit_type", "hours"))]
    np.testing.assert_allclose(own.tabular[:, same], expected.tabular[:, same], err_msg=str(names))
    variables = [SPEC.variable_index[name] for name in VARIABLES]
    np.testing.assert_allclose(
        own.statistics[:, variables], expected.statistics[:, variables], rtol=1e-4, atol=1e-4
    )
    assert np.isfinite(own.statistics[:, variables, STATISTICS.index("last")]).any(axis=0).all()
    treatments = [SPEC.treatment_index[name] for name in TREATMENTS]
    np.testing.assert_allclose(own.treatments[:, treatments], expected.treatments[:, treatments])
    assert (own.treatments[:, treatments] > 0).any(axis=(0, 2)).all()


def test_outcomes_and_vital_signs_are_those_of_the_reader_of_mimic_iv(cohorts, data):
    database = {moment(r): r for r in mimic_iv.read(data) if int(r.patient) % 2 == 0}
    own = cohorts["meds"][0]
    assert own.keys() == database.keys()
    rate = SPEC.variable_index["heart_rate"]
    for key, record in own.items():
        assert record.outcomes == database[key].outcomes
        assert record.payload.tabular.sex == database[key].payload.tabular.sex
        rates = [
            sorted(v for s in r.payload.series if s.variable == "heart_rate" for v in s.values)
            for r in (record, database[key])
        ]
        assert rates[0] == pytest.approx(rates[1]), rate


def run(command, *arguments):
    done = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output[-2000:]


def test_a_model_is_trained_exported_recalibrated_and_served(halves, tmp_path):
    """From MEDS; the arrays of the other sources agree with it, as shown above."""
    source, codes = "meds", ("--codes", "mimic_iv")
    learned, local = (("--data", half[source], *codes) for half in halves)
    config = tmp_path / "quick.toml"
    config.write_text(QUICK)
    model, bundle = tmp_path / "model", tmp_path / "bundle"
    run(app, "cohort", source, *learned, "--out", tmp_path / "learned")
    run(app, "train", "--cohort", tmp_path / "learned", "--out", model, "--config", config)
    run(export_app, model, bundle, "--behaviour-gate", 0)
    run(app, "cohort", source, *local, "--like", bundle, "--out", tmp_path / "local")
    recalibrated = tmp_path / "recalibrated"
    gate = ("--behaviour-gate", 0)
    run(export_app, bundle, recalibrated, "--recalibrate", tmp_path / "local", *gate)
    line = halves[1]["records"].read_text(encoding="utf-8").splitlines()[0]
    payload = json.loads(line)["payload"]
    engine = Engine(Bundle.load(recalibrated, "cpu", threads=1))
    engine.replay_golden()
    with TestClient(create_app(engine, Settings(bundle=recalibrated))) as client:
        answer = client.post("/predict", json=payload)
    assert answer.status_code == 200, answer.text
    assert "heart_rate" not in str(answer.json()["receipt"].get("unknown_variables"))
    predictions = {p["task"]: p for p in answer.json()["predictions"]}
    assert 0 < predictions["in_hospital_mortality"]["probability"] < 1
