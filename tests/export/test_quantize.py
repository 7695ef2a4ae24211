"""A bundle of reduced precision says what the one before it said, and tells how nearly."""

import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from starlette.testclient import TestClient
from typer.testing import CliRunner

from export.accuracy_loss import FEWEST, LIMITS, MOST_MOVED, ReductionError, _change, judged, said
from export.cli import app
from export.precision import as_bytes, as_halves
from export.quantize import reduce_precision
from export.recalibrate import RecalibrationError, recalibrate
from model.cohorts import labels, synthetic
from model.cohorts.store import Cohort, write
from schemas.features import FeatureSpec
from schemas.manifest import BundleError, read_manifest, sha256
from service.http.app import create_app
from service.runtime.bundle import Bundle
from service.runtime.engine import Engine
from service.settings import Settings

PRECISIONS = ("fp16", "int8")
# So small a model is hardly faster, and so few patients tell a loss from chance hardly better.
ANY = {"worth": float("inf"), "limits": dict.fromkeys(LIMITS, 0.02)}


def cohort(folder, name="elsewhere", spec=None, keep=lambda _: True):
    records = filter(keep, synthetic.patients(150, seed=7))
    made = {"made_by": (synthetic, labels), "spec": spec or FeatureSpec.default()}
    for _ in write(records, folder, name=name, source="made", **made):
        pass
    return folder


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Patients that the small model did not learn from."""
    return cohort(tmp_path_factory.mktemp("held_out"))


@pytest.fixture(scope="module", params=PRECISIONS)
def reduced(request, exported, elsewhere, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reduced") / request.param
    reduce_precision(exported[0], [elsewhere], folder, request.param, **ANY)
    return folder


@pytest.fixture(scope="module")
def both(exported, reduced, elsewhere):
    """The bundles before and after, and what each says of the patients."""
    bundles = [Bundle.load(folder, "cpu") for folder in (exported[0], reduced)]
    samples = Cohort.load(elsewhere).samples
    return bundles, samples, [said(bundle, samples) for bundle in bundles]


def test_each_answer_is_nearly_what_it_was(both):
    _, _, (before, after) = both
    for name, values in before.items():
        if name != "length_of_stay":
            np.testing.assert_allclose(after[name], values, atol=MOST_MOVED)
    assert any((before[name] != after[name]).any() for name in before)


def test_the_manifest_tells_what_was_done_and_what_it_changed(both, reduced, exported):
    (old, new), samples, (before, after) = both
    found = new.manifest.reduction
    assert found.precision == reduced.name
    assert found.bundle == old.digest == exported[1]
    assert new.manifest.version == f"0.0.1+{reduced.name}"
    (held_out,) = found.held_out
    assert (held_out.cohort, held_out.samples) == ("elsewhere", len(samples))
    assert held_out.patients == len(np.unique(samples.patient))
    assert {name for name, graph in found.graphs.items() if graph.reason is None} >= {"fusion"}
    probabilities = [k for k in before if k not in ("length_of_stay", "unusual")]
    largest = max(np.abs(before[k] - after[k]).max() for k in probabilities)
    assert found.largest_difference == pytest.approx(largest)
    assert set(found.tasks) == {f.task.name for f in new.manifest.tasks if f.abstains is None}


def test_a_tasks_metric_is_that_of_the_evaluation(both):
    from model.evaluation.evaluate import score_tasks

    (_, new), samples, (_, after) = both
    table = score_tasks(
        [f.task for f in new.manifest.tasks], samples.outcomes, after, np.zeros(len(samples), int)
    )
    compared = 0
    for score in table:
        change = new.manifest.reduction.tasks.get(score.task)
        if change is not None and score.kind in ("binary", "regression"):
            assert change.after == pytest.approx(score.metrics[change.metric], abs=1e-6)
            compared += 1
    assert compared > FEWEST


def test_its_golden_answers_are_those_of_full_precision_and_it_gives_them(both, exported, reduced):
    (old, new), _, _ = both
    assert new.golden == old.golden
    assert new.manifest.golden_tolerance == new.manifest.golden_tolerances["cpu"]
    engine = Engine(new)
    engine.replay_golden()
    assert engine.verified


def test_a_device_has_the_tolerance_that_was_measured_on_it(both):
    manifest = both[0][1].manifest.model_copy(
        update={"golden_tolerance": 3.0, "golden_tolerances": {"cpu": 2.0}}
    )
    assert manifest.on("cpu").golden_tolerance == 2.0
    assert manifest.on("cuda").golden_tolerance == 3.0


def test_it_is_served_as_any_other(both, reduced):
    engine = Engine(both[0][1])
    engine.replay_golden()
    request = synthetic.examples()["septic_shock"].model_dump_json(exclude_unset=True)
    with TestClient(create_app(engine, Settings(bundle=reduced))) as client:
        json_type = {"Content-Type": "application/json"}
        answer = client.post("/predict", content=request, headers=json_type)
        card = client.get("/model-card").text
    assert answer.status_code == 200
    assert answer.json()["model"]["version"] == f"0.0.1+{reduced.name}"
    assert f"### Reduced to {reduced.name}" in card
    assert "patients of elsewhere (made), who are no part of the training data" in card


def test_what_is_said_of_a_patient_does_not_depend_on_whom_else_a_batch_holds(both):
    (_, new), samples, _ = both
    engine = Engine(new)
    extreme = samples.arrays(1)
    extreme["series"] = {
        name: np.where(np.isnan(values), np.float32(1e6), values * np.float32(1e6))
        for name, values in extreme["series"].items()
    }
    (alone,) = engine.run([samples.arrays(0)])
    beside = engine.run([samples.arrays(0), extreme, *map(samples.arrays, range(2, 9))])[0]
    for name, values in alone.fusion.items():
        np.testing.assert_allclose(beside.fusion[name], values, rtol=1e-3, atol=1e-5)


def test_inputs_and_outputs_stay_as_they_are(both, exported, reduced):
    old, new = (read_manifest(folder)[0] for folder in (exported[0], reduced))
    assert (old.encoders, old.fusion) == (new.encoders, new.fusion)


def test_a_graph_of_a_modality_that_nobody_has_stays(exported, tmp_path):
    def keep(record):
        return not record.payload.images

    without = cohort(tmp_path / "without", keep=keep)
    reduce_precision(exported[0], [without], tmp_path / "new", "int8", **ANY)
    old, new = (read_manifest(folder)[0] for folder in (exported[0], tmp_path / "new"))
    image = new.reduction.graphs["image"]
    assert (image.precision, image.reason) == ("fp32", "no patient held out has it")
    assert new.files["image.onnx"] == old.files["image.onnx"]
    assert new.files["series.onnx"] != old.files["series.onnx"]


# ---- graphs --------------------------------------------------------------------------------------


def graph_of(path, nodes, weights, inputs, outputs):
    values = [
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", w]) for n, w in some]
        for some in (inputs, outputs)
    ]
    initializers = [numpy_helper.from_array(w, n) for n, w in weights.items()]
    graph = helper.make_graph(nodes, "g", *values, initializers)
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)


@pytest.fixture
def layers(tmp_path):
    """Values beyond half precision, two products with one step between them, and log-odds."""
    draw = np.random.default_rng(0)
    weights = {
        "spread": np.full(64, 1e-6, np.float32),
        "first": draw.normal(size=(64, 64)).astype(np.float32),
        "scale": draw.normal(size=64).astype(np.float32),
        "second": draw.normal(size=(64, 64)).astype(np.float32),
        "rare": np.full(64, 1e-2, np.float32),
        "directions": draw.normal(size=(64, 64)).astype(np.float32),
    }
    node = helper.make_node
    nodes = [
        node("Mul", ["values", "spread"], ["normal"], "normalise"),
        node("MatMul", ["normal", "first"], ["hidden"], "product"),
        node("Mul", ["hidden", "scale"], ["moved"], "between"),
        node("MatMul", ["moved", "second"], ["odds"], "another"),
        node("Mul", ["odds", "rare"], ["embedding"], "calibrate"),
        node("MatMul", ["normal", "directions"], ["far"], "of_unusual"),
        node("ReduceSum", ["far"], ["unusual"], "sum"),
    ]
    path = tmp_path / "layers.onnx"
    graph_of(path, nodes, weights, [("values", 64)], [("embedding", 64), ("unusual", 1)])
    return path


def ran(path, values):
    import onnxruntime

    return onnxruntime.InferenceSession(path).run(None, {"values": values})


def test_half_precision_is_between_products_and_nowhere_else(layers):
    values = np.random.default_rng(1).normal(size=(5, 64)).astype(np.float32) * 1e6
    before = ran(layers, values)
    assert as_halves(layers)
    after = ran(layers, values)
    np.testing.assert_allclose(after[0], before[0], atol=0.01)  # of up to 5
    np.testing.assert_array_equal(after[1], before[1])
    graph = onnx.load(layers).graph
    kinds = {t.name: t.data_type for t in graph.initializer}
    halves = {name for name, kind in kinds.items() if kind == TensorProto.FLOAT16}
    assert halves == {"first.half", "scale.half", "second.half"}
    assert {"spread", "rare", "directions"} <= set(kinds)
    assert sum(n.op_type == "Cast" for n in graph.node) == 2


def test_in_8_bits_are_the_products_that_more_than_unusual_depends_on(layers):
    values = np.random.default_rng(1).normal(size=(5, 64)).astype(np.float32) * 1e6
    before = ran(layers, values)
    assert as_bytes(layers)
    after = ran(layers, values)
    assert 0 < np.abs(after[0] - before[0]).max() < 0.02 * np.abs(before[0]).max()
    np.testing.assert_array_equal(after[1], before[1])
    kinds = [n.op_type for n in onnx.load(layers).graph.node]
    assert kinds.count("MatMulNBits") == 2
    assert kinds.count("MatMul") == 1


@pytest.mark.parametrize("convert", [as_halves, as_bytes])
def test_a_graph_without_a_product_has_nothing_to_convert(tmp_path, convert):
    path = tmp_path / "sum.onnx"
    nodes = [helper.make_node("Add", ["values", "one"], ["embedding"])]
    one = {"one": np.ones(4, np.float32)}
    graph_of(path, nodes, one, [("values", 4)], [("embedding", 4)])
    assert not convert(path)


# ---- what is too much ----------------------------------------------------------------------------


def test_a_task_that_would_lose_too_much_is_named_and_nothing_is_lost(
    exported, elsewhere, tmp_path
):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "kept").touch()
    limits = ANY | {"limits": LIMITS | {"auroc": -1.0}}
    with pytest.raises(ReductionError, match=r"hypertension .* of auroc, more than -1"):
        reduce_precision(exported[0], [elsewhere], tmp_path / "new", "int8", **limits)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert (tmp_path / "new" / "kept").exists()


def test_a_loss_is_judged_by_enough_patients_alone(both):
    (old, _), samples, (before, _) = both
    draw = np.random.default_rng(0)
    noise = {name: p + draw.normal(0, 0.3, p.shape) for name, p in before.items()}
    changes, largest, too_much = judged(old.manifest, samples, LIMITS, before, noise)
    assert largest > MOST_MOVED
    assert any("unusual moves by" in one for one in too_much)
    named = {one.partition(" ")[0] for one in too_much}
    for i, facts in enumerate(old.manifest.tasks):
        y = samples.outcomes[:, i]
        if facts.task.kind == "binary" and facts.abstains is None:
            change = changes[facts.task.name]
            assert change.judged == (min((y == 1).sum(), (y == 0).sum()) >= FEWEST)
            assert (facts.task.name in named) == (change.judged and change.loss > LIMITS["auroc"])
    assert not all(change.judged for change in changes.values())


def test_an_answer_that_is_no_number_is_too_much(both):
    (old, _), samples, (before, _) = both
    broken = before | {"binary": before["binary"].copy()}
    broken["binary"][0, 0] = np.nan
    *_, too_much = judged(old.manifest, samples, dict.fromkeys(LIMITS, 9.0), before, broken)
    assert too_much == ["binary is no number"]


def test_a_longer_stay_off_is_a_loss_and_so_is_a_phenotype_that_changes(both):
    (old, _), samples, (before, _) = both
    facts = {f.task.name: (i, f) for i, f in enumerate(old.manifest.tasks)}
    i, stay = facts["length_of_stay"]
    days = before["length_of_stay"]
    change = _change(stay, samples.outcomes[:, i], days, days + 100)
    assert (change.metric, change.judged) == ("mae_days", True)
    assert change.loss > 50
    i, phenotype = facts["phenotype"]
    change = _change(phenotype, samples.outcomes[:, i], before["phenotype"], -before["phenotype"])
    assert change.metric == "agreement"
    assert change.loss > 0.5


def test_what_is_not_faster_is_not_made(exported, elsewhere, tmp_path):
    with pytest.raises(ReductionError, match="fusion: it is not faster"):
        reduce_precision(exported[0], [elsewhere], tmp_path / "new", "int8", worth=0.0)
    assert not (tmp_path / "new").exists()


# ---- what is refused -----------------------------------------------------------------------------


def test_patients_that_it_learned_from_are_refused(learned, exported, tmp_path):
    options = ["--precision", "fp16", "--cohort", str(learned)]
    done = CliRunner().invoke(app, [str(exported[0]), str(tmp_path / "new"), *options])
    assert done.exit_code == 2
    said = (
        "m3h-export: the bundle learned from the cohort synthetic: take patients that it never saw"
    )
    assert done.output.strip() == said


@pytest.mark.parametrize("name", ["synthetic", "synthetic, masked"])
def test_so_are_they_when_their_cohort_was_made_again(exported, tmp_path, name):
    again = cohort(tmp_path / "again", name=name)
    with pytest.raises(ReductionError, match="learned from the cohort synthetic"):
        reduce_precision(exported[0], [again], tmp_path / "new", "fp16")


def test_a_cohort_of_other_features_is_refused(exported, tmp_path):
    spec = FeatureSpec.default().model_copy(update={"window_hours": 24.0})
    other = cohort(tmp_path / "other", spec=spec)
    with pytest.raises(ReductionError, match="other variables, units or tokens"):
        reduce_precision(exported[0], [other], tmp_path / "new", "fp16")


def test_a_cohort_without_a_tasks_outcome_is_refused(exported, elsewhere, tmp_path):
    fewer = tmp_path / "fewer"
    shutil.copytree(elsewhere, fewer)
    described = json.loads((fewer / "cohort.json").read_text())
    described["tasks"] = described["tasks"][1:]
    for name in described["shards"]:
        arrays = dict(np.load(fewer / name))
        arrays |= {part: arrays[part][:, 1:] for part in ("outcomes", "charted")}
        np.savez(fewer / name, **arrays)
        described["shards"][name] = sha256((fewer / name).read_bytes())
    (fewer / "cohort.json").write_text(json.dumps(described))
    with pytest.raises(ReductionError, match="no outcome for hypertension"):
        reduce_precision(exported[0], [fewer], tmp_path / "new", "fp16")


def test_what_was_reduced_is_not_reduced_or_recalibrated_again(reduced, elsewhere, tmp_path):
    with pytest.raises(ReductionError, match="already; take the one before it"):
        reduce_precision(reduced, [elsewhere], tmp_path / "new", "fp16")
    with pytest.raises(RecalibrationError, match="recalibrate the one before it"):
        recalibrate(reduced, elsewhere, tmp_path / "new")


def test_what_was_recalibrated_can_be_reduced(exported, elsewhere, tmp_path):
    recalibrate(exported[0], elsewhere, tmp_path / "moved")
    reduce_precision(tmp_path / "moved", [elsewhere], tmp_path / "new", "fp16")
    manifest, _ = read_manifest(tmp_path / "new")
    assert manifest.version == "0.0.1+recalibrated.fp16"
    assert manifest.recalibration.cohort == "elsewhere"


def test_what_is_no_bundle_is_not_reduced(elsewhere, tmp_path):
    with pytest.raises(BundleError):
        reduce_precision(elsewhere, [elsewhere], tmp_path / "new", "fp16")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--precision", "fp16"], "need each other"),
        (["--cohort", "."], "need each other"),
        (["--precision", "fp16", "--cohort", ".", "--evaluation", "x.json"], "keeps the"),
        (["--precision", "fp16", "--cohort", ".", "--recalibrate", "."], "recalibrate first"),
        (["--precision", "fp16", "--cohort", "nowhere"], "is not a cohort"),
    ],
)
def test_options_that_do_not_fit_are_one_line_and_exit_code_2(exported, tmp_path, options, why):
    done = CliRunner().invoke(app, [str(exported[0]), str(tmp_path / "new"), *options])
    assert done.exit_code == 2
    assert why in " ".join(done.output.split())
    assert not (tmp_path / "new").exists()


def test_it_needs_no_torch(exported, elsewhere, tmp_path, without_torch):
    options = ["--precision", "fp16", "--cohort", str(elsewhere)]
    assert "in fp16; by " in without_torch(str(exported[0]), str(tmp_path / "new"), *options)
