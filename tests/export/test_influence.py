"""The export measures which variables and treatments change no output of a bundle."""

import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from export.influence import LEAST_CHANGE, measure_not_learned
from export.recalibrate import recalibrate
from model.evaluation.behaviour.pairs import with_series
from model.evaluation.behaviour.patients import made_patients
from schemas.features import extract_features
from schemas.manifest import read_manifest, sha256
from schemas.response import NotLearned
from service.runtime.bundle import Bundle
from service.runtime.engine import Engine

BLIND = {"statistics": ("lactate", "heart_rate"), "treatments": ("norepinephrine",)}


def hide(model: onnx.ModelProto, name: str, rows: list[int], count: int) -> None:
    """Makes a graph read 0 instead of some rows of its input [batch, count, columns]."""
    mask = np.zeros((count, 1), dtype=bool)
    mask[rows] = True
    for node in model.graph.node:
        node.input[:] = [f"{name}_seen" if i == name else i for i in node.input]
    constants = {f"{name}_mask": mask, f"{name}_zero": np.array(0, dtype=np.float32)}
    model.graph.initializer.extend(
        numpy_helper.from_array(array, label) for label, array in constants.items()
    )
    where = helper.make_node("Where", [*constants, name], [f"{name}_seen"])
    model.graph.node.insert(0, where)


@pytest.fixture(scope="module")
def half_blind(bundle_dir, tmp_path_factory):
    """The shipped bundle with a series encoder that does not read the BLIND inputs."""
    folder = tmp_path_factory.mktemp("blind") / "bundle"
    shutil.copytree(bundle_dir, folder)
    spec = read_manifest(folder)[0].spec
    names = {
        "statistics": [v.name for v in spec.variables],
        "treatments": [t.name for t in spec.treatments],
    }
    path = folder / "series.onnx"
    model = onnx.load(path)
    for name, blind in BLIND.items():
        hide(model, name, [names[name].index(b) for b in blind], len(names[name]))
    onnx.save(model, path)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"]["series.onnx"] = sha256(path.read_bytes())
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_inputs_that_the_graphs_do_not_read_are_not_learned(bundle_dir, half_blind):
    patients = dict([*made_patients().items()][:4])
    seeing, blind = (
        measure_not_learned(Bundle.load(folder, "cpu"), patients)
        for folder in (bundle_dir, half_blind)
    )
    assert not {*BLIND["statistics"]} & {*seeing.variables}
    assert not {*BLIND["treatments"]} & {*seeing.treatments}
    assert {*blind.variables} == {*seeing.variables, *BLIND["statistics"]}
    assert {*blind.treatments} == {*seeing.treatments, *BLIND["treatments"]}


def test_the_names_are_in_the_order_of_the_spec(half_blind):
    manifest, _ = read_manifest(half_blind)
    patients = dict([*made_patients().items()][:1])
    measured = measure_not_learned(Bundle.load(half_blind, "cpu"), patients)
    order = [v.name for v in manifest.spec.variables]
    assert [*measured.variables] == sorted(measured.variables, key=order.index)


def test_the_export_writes_what_it_measures(exported):
    manifest, _ = read_manifest(exported[0])
    measured = measure_not_learned(Bundle.load(exported[0], "cpu"), made_patients())
    assert manifest.not_learned == measured


def test_a_variable_without_influence_changes_no_answer(half_blind):
    """Asks with whole requests, as a client does."""
    bundle = Bundle.load(half_blind, "cpu")
    engine, spec = Engine(bundle), bundle.manifest.spec
    patient = made_patients()["healthy"]

    def log_odds(variable: str, unit: str, value: float) -> np.ndarray:
        payload = with_series(patient, variable, unit, value)
        (outputs,) = engine.run([extract_features(payload, spec).arrays])
        p = outputs.fusion["binary"].astype(float).clip(1e-6, 1 - 1e-6)
        return np.log(p / (1 - p))

    def change(variable: str, unit: str, low: float, high: float) -> float:
        difference = log_odds(variable, unit, high) - log_odds(variable, unit, low)
        return float(np.abs(difference).max())

    assert change("lactate", "mmol/L", 1, 15) < LEAST_CHANGE
    assert change("creatinine", "mg/dL", 0.8, 8) >= LEAST_CHANGE


def test_the_body_weight_counts_as_learned_because_it_converts_rates(bundle_dir):
    bundle = Bundle.load(bundle_dir, "cpu")
    # Without a patient, nothing has an influence.
    measured = measure_not_learned(bundle, {})
    names = {v.name for v in bundle.manifest.spec.variables}
    assert "body_weight" in names
    assert {*measured.variables} == names - {"body_weight"}


def test_a_recalibrated_bundle_keeps_the_measurement(exported, held_out_cohort, tmp_path):
    recalibrate(exported[0], held_out_cohort, tmp_path / "new")
    old, new = (read_manifest(f)[0].not_learned for f in (exported[0], tmp_path / "new"))
    assert old == new
    assert isinstance(new, NotLearned)


def test_the_golden_answers_do_not_depend_on_the_measurement(exported):
    Engine(Bundle.load(exported[0], "cpu")).replay_golden()
