"""Recalibration: the local prevalence, an unchanged ranking, and sets that keep their coverage."""

import numpy as np
import onnx
import pytest
from scipy.special import expit, logit
from starlette.testclient import TestClient
from typer.testing import CliRunner

from export.cli import app
from export.outputs import run_samples
from export.recalibrate import RecalibrationError, recalibrate
from export.recalibrate.graph import (
    PRIOR,
    _replace_initializer,
    read_initializer,
    shift_prior,
)
from export.recalibrate.shifts import BinaryShifts, patient_weights, shift_classes
from model.cohorts import labels, synthetic
from model.cohorts.store import Cohort, write
from schemas.features import FeatureSpec
from schemas.manifest import BundleError, read_manifest
from schemas.tasks import load_tasks
from service.http.app import create_app
from service.runtime.bundle import Bundle
from service.runtime.engine import Engine
from service.settings import Settings

TASKS = {task.name: task for task in load_tasks()}


def cohort(folder, spec, patients):
    parts = {"name": "elsewhere", "source": "made", "made_by": (synthetic, labels), "spec": spec}
    for _ in write(patients, folder, **parts):
        pass
    return folder


def records(keep=lambda _: True, change=lambda outcomes: outcomes):
    """Patients of another hospital: those that `keep` selects, with changed outcomes."""
    for record in synthetic.patients(150, seed=5):
        if keep(record):
            outcomes = change(dict(record.outcomes))
            yield type(record)(**{**vars(record), "outcomes": outcomes})


@pytest.fixture(scope="module")
def local_cohort(tmp_path_factory):
    """A hospital where most patients have hypertension, few go home, and all stay very long."""

    def keep(record):
        return record.outcomes["hypertension"] or int(record.patient) % 5 == 0

    def change(outcomes):
        disposition = outcomes["discharge_disposition"]
        changed = "post_acute" if disposition == "home" else disposition
        stay = outcomes["length_of_stay"] * 30
        return outcomes | {"discharge_disposition": changed, "length_of_stay": stay}

    folder = tmp_path_factory.mktemp("elsewhere")
    return cohort(folder, FeatureSpec.default(), records(keep, change))


@pytest.fixture(scope="module")
def recalibrated(exported, local_cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("moved") / "elsewhere"
    recalibrate(exported[0], local_cohort, folder)
    return folder


@pytest.fixture(scope="module")
def both(exported, recalibrated, local_cohort):
    """Local patients, the two bundles, and the outputs of each."""
    local = Cohort.load(local_cohort)
    bundles = [Bundle.load(folder) for folder in (exported[0], recalibrated)]
    return local, bundles, [run_samples(b, local.samples) for b in bundles]


def outcome(local, name):
    column = next(i for i, t in enumerate(local.tasks) if t.name == name)
    return local.samples.outcomes[:, column].astype(float)


def facts_of(bundle, name):
    return next(f for f in bundle.manifest.tasks if f.task.name == name)


def test_probabilities_shift_towards_the_local_prevalence(both):
    local, bundles, outputs = both
    column = facts_of(bundles[0], "hypertension").column
    observed = outcome(local, "hypertension").mean()
    before, after = (p["binary"][:, column].mean() for p in outputs)
    assert abs(after - observed) < abs(before - observed) / 2


def test_all_probabilities_of_a_task_shift_by_the_same_number(both):
    _, bundles, outputs = both
    facts, shifts = facts_of(bundles[0], "hypertension"), bundles[1].manifest.recalibration.shift
    before, after = (logit(p["binary"][:, facts.column]) for p in outputs)
    np.testing.assert_allclose(after - before, shifts["hypertension"], atol=1e-3)
    assert shifts["hypertension"] > 0.2


def test_a_patient_without_inputs_gets_the_local_prevalence(both):
    local, bundles, _ = both
    (nothing,) = Engine(bundles[1]).run([{}])
    for facts in bundles[1].manifest.tasks:
        if facts.task.kind == "binary" and facts.abstains is None:
            assert nothing.fusion["binary"][facts.column] == pytest.approx(
                facts.prevalence, abs=1e-4
            )
    observed = outcome(local, "hypertension").mean()
    assert facts_of(bundles[1], "hypertension").prevalence == pytest.approx(observed, abs=0.15)


def test_a_modality_that_is_hidden_from_a_task_counts_as_no_input(exported):
    manifest, _ = read_manifest(exported[0])
    graph = onnx.load(exported[0] / "fusion.onnx")
    tasks = [f for f in manifest.tasks if f.task.kind == "binary"]
    blind = [
        f.model_copy(update={"visible_modalities": ("tabular",) if i else ()})
        for i, f in enumerate(tasks)
    ]
    prior, shift = np.full(len(tasks), -1.0), np.full(len(tasks), 20.0)
    names = tuple(f.task.name for f in tasks)
    binary = BinaryShifts(names, prior, shift, np.full(len(tasks), 6.0), tuple(range(len(tasks))))
    shift_prior(graph, binary, manifest.model_copy(update={"tasks": tuple(blind)}))
    # Without any evidence from the inputs.
    for scale in ("scale", "evidence_scale", "tree_scale"):
        _replace_initializer(graph, f"calibrate.{scale}", np.zeros(len(tasks)))
    import onnxruntime

    session = onnxruntime.InferenceSession(graph.SerializeToString())
    width = session.get_inputs()[0].shape[1]
    inputs = {m: np.zeros((2, width), np.float32) for m in ("tabular", "series", "notes", "image")}
    present = np.array([[1, 0, 0, 0], [0, 0, 0, 1]], np.bool_)
    (p,) = session.run(["binary"], inputs | {"present": present})
    free = [i for i, f in enumerate(tasks) if f.task.subset_of is None and i]
    assert p[0, 0] == pytest.approx(expit(-1), abs=1e-4)
    assert (p[0, free] > 0.9).all()
    np.testing.assert_allclose(p[1], expit(-1), atol=1e-4)


def test_intervals_shift_with_the_probabilities(both):
    _, bundles, _ = both
    before, after = (facts_of(b, "hypertension") for b in bundles)
    shift = bundles[1].manifest.recalibration.shift["hypertension"]
    for name in ("scores", "low", "high"):
        old, new = (np.array(getattr(f.interval, name)) for f in (before, after))
        np.testing.assert_allclose(logit(new), logit(old) + shift)


def test_shifted_probabilities_are_coherent(both):
    _, bundles, (_, outputs) = both
    columns = {f.task.name: f.column for f in bundles[1].manifest.tasks}
    p = outputs["binary"]
    for name, column in columns.items():
        if TASKS[name].subset_of:
            assert (p[:, column] <= p[:, columns[TASKS[name].subset_of]]).all()
    died = TASKS["discharge_disposition"].classes.index("died")
    mortality = p[:, columns["in_hospital_mortality"]]
    np.testing.assert_allclose(outputs["discharge_disposition"][:, died], mortality, atol=1e-6)


def test_the_disposition_shifts_towards_the_local_disposition(both):
    local, bundles, outputs = both
    went = outcome(local, "discharge_disposition")
    before, after = (p["discharge_disposition"][:, 0].mean() for p in outputs)
    observed = (went == 0).mean()
    assert abs(after - observed) < abs(before - observed) / 2
    shifts = bundles[1].manifest.recalibration.classes["discharge_disposition"]
    assert shifts["died"] == 0
    assert shifts["home"] < 0


def test_the_interval_of_the_stay_widens_and_its_value_is_unchanged(both):
    local, _, (before, after) = both
    days, weight = outcome(local, "length_of_stay"), patient_weights(local.samples)
    inside = [
        ((p["length_of_stay"][:, 1] <= days) & (days <= p["length_of_stay"][:, 2])) @ weight
        for p in (before, after)
    ]
    assert inside[0] < 0.5 * weight.sum()
    assert inside[1] >= 0.9 * weight.sum()
    np.testing.assert_allclose(before["length_of_stay"][:, 0], after["length_of_stay"][:, 0], 1e-4)


def test_the_new_graph_gives_the_probabilities_that_the_sets_were_made_from(both, exported):
    """Sets are made before the new graph runs, from shifted outputs of the old graph."""
    _, (old, new), (before, after) = both
    tasks = [f for f in old.manifest.tasks if f.task.kind == "binary"]
    shift = np.array([new.manifest.recalibration.shift[f.task.name] for f in tasks])
    names = tuple(f.task.name for f in tasks)
    parent = tuple(names.index(f.task.subset_of or f.task.name) for f in tasks)
    bound = read_initializer(onnx.load(exported[0] / "fusion.onnx"), "calibrate.bound").astype(
        float
    )
    binary = BinaryShifts(names, shift, shift, bound, parent)
    p = binary.apply(before["binary"])
    own = np.arange(len(names)) == np.array(parent)
    limited = ~own & np.isclose(before["binary"], before["binary"][:, parent], atol=1e-6)
    # The graph shifts log-odds that the old bundle limits to the bound.
    at_bound = np.isclose(np.abs(logit(before["binary"])), bound, atol=1e-3)
    exact = ~limited & ~at_bound
    assert exact.mean() > 0.9
    np.testing.assert_allclose(p[exact], after["binary"][exact], atol=1e-4)
    np.testing.assert_allclose(p[at_bound], after["binary"][at_bound], atol=0.01)
    # The graph shifts a larger probability, which the parent's limited in the old bundle.
    assert (after["binary"] >= p - 1e-4)[~at_bound].all()
    assert (after["binary"] <= p[:, parent] + 1e-4)[~at_bound].all()
    disposition = facts_of(old, "discharge_disposition")
    shifts = new.manifest.recalibration.classes["discharge_disposition"]
    shifted = shift_classes(disposition, before["discharge_disposition"], shifts, binary, p)
    np.testing.assert_allclose(shifted, after["discharge_disposition"], atol=1e-4)


def test_sets_are_made_from_enough_local_patients(both):
    local, (old, new), (_, outputs) = both
    weight, made = patient_weights(local.samples), 0
    for before, facts in zip(old.manifest.tasks, new.manifest.tasks, strict=True):
        y = outcome(local, facts.task.name)
        if facts.task.kind != "binary" or facts.abstains:
            continue
        enough = min((weight * (y == k)).sum() for k in (0, 1)) >= 20
        assert bool(facts.sets.thresholds) == (enough or bool(before.sets.thresholds))
        if enough:
            p = outputs["binary"][:, facts.column].astype(float)
            yes, no = (facts.sets.thresholds[k] for k in ("yes", "no"))
            assert (p >= yes - 1e-6)[y == 1].mean() >= 0.9
            assert (1 - p >= no - 1e-6)[y == 0].mean() >= 0.9
            made += 1
    assert made


def test_the_new_bundle_is_complete_and_names_the_local_patients(both, exported, recalibrated):
    local, (old, new), _ = both
    engine = Engine(new)
    engine.replay_golden()
    assert new.manifest.version == "0.0.1+recalibrated"
    recalibration = new.manifest.recalibration
    patients = len(np.unique(local.samples.patient))
    assert (recalibration.cohort, recalibration.patients) == ("elsewhere", patients)
    assert (recalibration.bundle, recalibration.digest) == (old.digest, local.digest)
    assert f"{patients} patients of elsewhere: made" in (recalibrated / "NOTICE").read_text()
    request = synthetic.examples()["vitals_only"].model_dump_json(exclude_unset=True)
    with TestClient(create_app(engine, Settings(bundle=recalibrated))) as client:
        answer = client.post(
            "/predict", content=request, headers={"Content-Type": "application/json"}
        ).json()
        card = client.get("/model-card").text
    assert answer["model"]["recalibrated_by"] == f"{patients} patients of elsewhere"
    assert f"Recalibrated for elsewhere\n\nBy {patients} patients" in card
    assert "Hypertension | +" in card
    assert "Recalibrated" not in (exported[0] / "MODEL_CARD.md").read_text()


# ---- refused inputs ------------------------------------------------------------------------------


def test_a_bundle_is_recalibrated_only_once(recalibrated, local_cohort, tmp_path):
    with pytest.raises(RecalibrationError, match="already recalibrated for elsewhere"):
        recalibrate(recalibrated, local_cohort, tmp_path / "again")


def test_a_cohort_with_other_features_is_refused_and_the_old_folder_stays(exported, tmp_path):
    spec = FeatureSpec.default().model_copy(update={"window_hours": 24.0})
    other = cohort(tmp_path / "other", spec, records())
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "kept").touch()
    with pytest.raises(RecalibrationError, match="other variables, units or tokens"):
        recalibrate(exported[0], other, tmp_path / "bundle")
    assert (tmp_path / "bundle" / "kept").exists()


def test_a_training_cohort_is_refused(learned, exported, tmp_path):
    with pytest.raises(RecalibrationError, match="learned from the cohort synthetic"):
        recalibrate(exported[0], learned, tmp_path / "new")


def test_a_cohort_without_labels_is_refused(exported, tmp_path):
    stays = ("length_of_stay", "discharge_disposition")
    unlabelled = records(change=lambda outcomes: {name: outcomes[name] for name in stays})
    unlabelled = cohort(tmp_path / "unlabelled", FeatureSpec.default(), unlabelled)
    with pytest.raises(RecalibrationError, match="no patient of the cohort elsewhere has a label"):
        recalibrate(exported[0], unlabelled, tmp_path / "new")


def test_a_task_without_local_labels_is_unchanged(exported, tmp_path):
    def without(outcomes):
        return {name: value for name, value in outcomes.items() if name != "diabetes"}

    partly = cohort(tmp_path / "partly", FeatureSpec.default(), records(change=without))
    recalibrate(exported[0], partly, tmp_path / "new")
    old, new = (Bundle.load(folder) for folder in (exported[0], tmp_path / "new"))
    assert facts_of(old, "diabetes") == facts_of(new, "diabetes")
    graphs = [onnx.load(folder / "fusion.onnx") for folder in (exported[0], tmp_path / "new")]
    column = facts_of(old, "diabetes").column
    assert read_initializer(graphs[0], PRIOR)[column] == read_initializer(graphs[1], PRIOR)[column]


def test_a_folder_without_a_bundle_is_refused(local_cohort, tmp_path):
    with pytest.raises(BundleError):
        recalibrate(local_cohort, local_cohort, tmp_path / "new")


def test_a_recalibrated_bundle_keeps_its_evaluation(exported, local_cohort, tmp_path):
    arguments = [str(exported[0]), str(tmp_path / "new"), "--recalibrate", str(local_cohort)]
    done = CliRunner().invoke(app, [*arguments, "--evaluation", "results.json"])
    assert done.exit_code == 2
    assert "keeps its evaluation" in done.output
    assert not (tmp_path / "new").exists()


def test_recalibration_needs_no_torch(exported, local_cohort, tmp_path, without_torch):
    arguments = [str(exported[0]), str(tmp_path / "new"), "--recalibrate", str(local_cohort)]
    assert "log-odds shifted by" in without_torch(*arguments)
