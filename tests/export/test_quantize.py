"""Bundles of reduced precision: nearly the same answers, and a measured loss of accuracy."""

import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from starlette.testclient import TestClient
from typer.testing import CliRunner

from export.cli import app
from export.outputs import run_samples
from export.precision.accuracy_loss import (
    LOSS_LIMITS,
    MAX_PROBABILITY_CHANGE,
    MIN_SAMPLES,
    ReductionError,
    _change,
    compare_outputs,
)
from export.precision.convert import to_half_precision, to_int8
from export.precision.quantize import quantize_bundle
from export.recalibrate import RecalibrationError, recalibrate
from model.cohorts import synthetic
from model.cohorts.store import Cohort
from schemas.features import FeatureSpec
from schemas.manifest import BundleError, read_manifest, sha256
from service.http.app import create_app
from service.runtime.bundle import Bundle
from service.runtime.engine import Engine
from service.settings import Settings
from tests.export.conftest import write_held_out_cohort

PRECISIONS = ("fp16", "int8")
# The small model is hardly faster, and few patients cannot separate a loss from chance.
LENIENT = {"max_time": float("inf"), "limits": dict.fromkeys(LOSS_LIMITS, 0.02)}


@pytest.fixture(scope="module", params=PRECISIONS)
def reduced(request, exported, held_out_cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reduced") / request.param
    quantize_bundle(exported[0], [held_out_cohort], folder, request.param, **LENIENT)
    return folder


@pytest.fixture(scope="module")
def both(exported, reduced, held_out_cohort):
    """The bundles before and after, the samples, and the outputs of each bundle."""
    bundles = [Bundle.load(folder, "cpu") for folder in (exported[0], reduced)]
    samples = Cohort.load(held_out_cohort).samples
    return bundles, samples, [run_samples(bundle, samples) for bundle in bundles]


def test_answers_are_nearly_unchanged(both):
    _, _, (before, after) = both
    for name, values in before.items():
        if name != "length_of_stay":
            np.testing.assert_allclose(after[name], values, atol=MAX_PROBABILITY_CHANGE)
    assert any((before[name] != after[name]).any() for name in before)


def test_the_manifest_describes_the_reduction_and_its_loss(both, reduced, exported):
    (old, new), samples, (before, after) = both
    reduction = new.manifest.reduction
    assert reduction.precision == reduced.name
    assert reduction.bundle == old.digest == exported[1]
    assert new.manifest.version == f"0.0.1+{reduced.name}"
    (held_out,) = reduction.held_out
    assert (held_out.cohort, held_out.samples) == ("elsewhere", len(samples))
    assert held_out.patients == len(np.unique(samples.patient))
    assert {name for name, graph in reduction.graphs.items() if graph.reason is None} >= {"fusion"}
    probabilities = [k for k in before if k not in ("length_of_stay", "unusual")]
    largest = max(np.abs(before[k] - after[k]).max() for k in probabilities)
    assert reduction.largest_difference == pytest.approx(largest)
    assert set(reduction.tasks) == {f.task.name for f in new.manifest.tasks if f.abstains is None}


def test_metrics_equal_those_of_the_evaluation(both):
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
    assert compared > MIN_SAMPLES


def test_the_golden_answers_of_full_precision_are_reproduced(both, exported, reduced):
    (old, new), _, _ = both
    assert new.golden == old.golden
    assert new.manifest.golden_tolerance == new.manifest.golden_tolerances["cpu"]
    engine = Engine(new)
    engine.replay_golden()
    assert engine.verified


def test_each_device_has_its_own_tolerance(both):
    manifest = both[0][1].manifest.model_copy(
        update={"golden_tolerance": 3.0, "golden_tolerances": {"cpu": 2.0}}
    )
    assert manifest.for_device("cpu").golden_tolerance == 2.0
    assert manifest.for_device("cuda").golden_tolerance == 3.0


def test_a_reduced_bundle_is_served(both, reduced):
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
    assert "patients of elsewhere (made), who are not in the training\ndata" in card


def test_an_answer_does_not_depend_on_the_other_patients_of_a_batch(both):
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


def test_inputs_and_outputs_are_unchanged(both, exported, reduced):
    old, new = (read_manifest(folder)[0] for folder in (exported[0], reduced))
    assert (old.encoders, old.fusion) == (new.encoders, new.fusion)


def test_a_graph_without_held_out_inputs_is_not_converted(exported, tmp_path):
    def keep(record):
        return not record.payload.images

    without = write_held_out_cohort(tmp_path / "without", keep=keep)
    quantize_bundle(exported[0], [without], tmp_path / "new", "int8", **LENIENT)
    old, new = (read_manifest(folder)[0] for folder in (exported[0], tmp_path / "new"))
    image = new.reduction.graphs["image"]
    assert (image.precision, image.reason) == ("fp32", "no held-out patient has this modality")
    assert new.files["image.onnx"] == old.files["image.onnx"]
    assert new.files["series.onnx"] != old.files["series.onnx"]


# ---- graphs --------------------------------------------------------------------------------------


def graph_of(path, nodes, weights, inputs, outputs):
    values = [
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", w]) for n, w in tensors]
        for tensors in (inputs, outputs)
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


def test_only_products_and_nodes_between_them_are_in_half_precision(layers):
    values = np.random.default_rng(1).normal(size=(5, 64)).astype(np.float32) * 1e6
    before = ran(layers, values)
    assert to_half_precision(layers)
    after = ran(layers, values)
    np.testing.assert_allclose(after[0], before[0], atol=0.01)  # of up to 5
    np.testing.assert_array_equal(after[1], before[1])
    graph = onnx.load(layers).graph
    kinds = {t.name: t.data_type for t in graph.initializer}
    halves = {name for name, kind in kinds.items() if kind == TensorProto.FLOAT16}
    assert halves == {"first.half", "scale.half", "second.half"}
    assert {"spread", "rare", "directions"} <= set(kinds)
    assert sum(n.op_type == "Cast" for n in graph.node) == 2


def test_products_that_only_unusual_depends_on_are_not_in_8_bits(layers):
    values = np.random.default_rng(1).normal(size=(5, 64)).astype(np.float32) * 1e6
    before = ran(layers, values)
    assert to_int8(layers)
    after = ran(layers, values)
    assert 0 < np.abs(after[0] - before[0]).max() < 0.02 * np.abs(before[0]).max()
    np.testing.assert_array_equal(after[1], before[1])
    kinds = [n.op_type for n in onnx.load(layers).graph.node]
    assert kinds.count("MatMulNBits") == 2
    assert kinds.count("MatMul") == 1


@pytest.mark.parametrize("convert", [to_half_precision, to_int8])
def test_a_graph_without_a_product_is_not_converted(tmp_path, convert):
    path = tmp_path / "sum.onnx"
    nodes = [helper.make_node("Add", ["values", "one"], ["embedding"])]
    weights = {"one": np.ones(4, np.float32)}
    graph_of(path, nodes, weights, [("values", 4)], [("embedding", 4)])
    assert not convert(path)


# ---- too much loss -------------------------------------------------------------------------------


def test_a_task_that_would_lose_too_much_is_named_and_the_old_folder_stays(
    exported, held_out_cohort, tmp_path
):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "kept").touch()
    limits = LENIENT | {"limits": LOSS_LIMITS | {"auroc": -1.0}}
    with pytest.raises(ReductionError, match=r"hypertension .* of auroc, more than -1"):
        quantize_bundle(exported[0], [held_out_cohort], tmp_path / "new", "int8", **limits)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert (tmp_path / "new" / "kept").exists()


def test_a_loss_only_counts_with_enough_patients(both):
    (old, _), samples, (before, _) = both
    draw = np.random.default_rng(0)
    noise = {name: p + draw.normal(0, 0.3, p.shape) for name, p in before.items()}
    loss = compare_outputs(old.manifest, samples, LOSS_LIMITS, before, noise)
    assert loss.largest_difference > MAX_PROBABILITY_CHANGE
    assert any("unusual changes by" in violation for violation in loss.violations)
    named = {violation.partition(" ")[0] for violation in loss.violations}
    for i, facts in enumerate(old.manifest.tasks):
        y = samples.outcomes[:, i]
        if facts.task.kind == "binary" and facts.abstains is None:
            change = loss.changes[facts.task.name]
            assert change.judged == (min((y == 1).sum(), (y == 0).sum()) >= MIN_SAMPLES)
            assert (facts.task.name in named) == (
                change.judged and change.loss > LOSS_LIMITS["auroc"]
            )
    assert not all(change.judged for change in loss.changes.values())


def test_an_output_that_is_not_a_number_is_refused(both):
    (old, _), samples, (before, _) = both
    broken = before | {"binary": before["binary"].copy()}
    broken["binary"][0, 0] = np.nan
    loss = compare_outputs(old.manifest, samples, dict.fromkeys(LOSS_LIMITS, 9.0), before, broken)
    assert loss.violations == ["binary is not a number"]


def test_a_larger_error_of_the_stay_and_a_changed_phenotype_are_losses(both):
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


def test_a_bundle_that_is_not_faster_is_refused(exported, held_out_cohort, tmp_path):
    with pytest.raises(ReductionError, match="fusion: it is not faster"):
        quantize_bundle(exported[0], [held_out_cohort], tmp_path / "new", "int8", max_time=0.0)
    assert not (tmp_path / "new").exists()


# ---- refused inputs ------------------------------------------------------------------------------


def test_a_training_cohort_is_refused(learned, exported, tmp_path):
    options = ["--precision", "fp16", "--cohort", str(learned)]
    done = CliRunner().invoke(app, [str(exported[0]), str(tmp_path / "new"), *options])
    assert done.exit_code == 2
    message = (
        "m3h-export: the bundle learned from the cohort synthetic: use patients that it never saw"
    )
    assert done.output.strip() == message


@pytest.mark.parametrize("name", ["synthetic", "synthetic, masked"])
def test_a_training_cohort_that_was_made_again_is_refused(exported, tmp_path, name):
    again = write_held_out_cohort(tmp_path / "again", name=name)
    with pytest.raises(ReductionError, match="learned from the cohort synthetic"):
        quantize_bundle(exported[0], [again], tmp_path / "new", "fp16")


def test_a_cohort_with_other_features_is_refused(exported, tmp_path):
    spec = FeatureSpec.default().model_copy(update={"window_hours": 24.0})
    other = write_held_out_cohort(tmp_path / "other", spec=spec)
    with pytest.raises(ReductionError, match="other variables, units or tokens"):
        quantize_bundle(exported[0], [other], tmp_path / "new", "fp16")


def test_a_cohort_without_a_tasks_outcome_is_refused(exported, held_out_cohort, tmp_path):
    fewer = tmp_path / "fewer"
    shutil.copytree(held_out_cohort, fewer)
    described = json.loads((fewer / "cohort.json").read_text())
    described["tasks"] = described["tasks"][1:]
    for name in described["shards"]:
        arrays = dict(np.load(fewer / name))
        arrays |= {part: arrays[part][:, 1:] for part in ("outcomes", "charted")}
        np.savez(fewer / name, **arrays)
        described["shards"][name] = sha256((fewer / name).read_bytes())
    (fewer / "cohort.json").write_text(json.dumps(described))
    with pytest.raises(ReductionError, match="no outcome for hypertension"):
        quantize_bundle(exported[0], [fewer], tmp_path / "new", "fp16")


def test_a_reduced_bundle_is_not_reduced_or_recalibrated_again(reduced, held_out_cohort, tmp_path):
    with pytest.raises(ReductionError, match=r"already .*; use the bundle it was made from"):
        quantize_bundle(reduced, [held_out_cohort], tmp_path / "new", "fp16")
    with pytest.raises(RecalibrationError, match="recalibrate the bundle it was made from"):
        recalibrate(reduced, held_out_cohort, tmp_path / "new")


def test_a_recalibrated_bundle_can_be_reduced(exported, held_out_cohort, tmp_path):
    recalibrate(exported[0], held_out_cohort, tmp_path / "moved")
    quantize_bundle(tmp_path / "moved", [held_out_cohort], tmp_path / "new", "fp16")
    manifest, _ = read_manifest(tmp_path / "new")
    assert manifest.version == "0.0.1+recalibrated.fp16"
    assert manifest.recalibration.cohort == "elsewhere"


def test_a_folder_without_a_bundle_is_refused(held_out_cohort, tmp_path):
    with pytest.raises(BundleError):
        quantize_bundle(held_out_cohort, [held_out_cohort], tmp_path / "new", "fp16")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--precision", "fp16"], "must be used together"),
        (["--cohort", "."], "must be used together"),
        (["--precision", "fp16", "--cohort", ".", "--evaluation", "x.json"], "keeps its"),
        (["--precision", "fp16", "--cohort", ".", "--recalibrate", "."], "exclude each other"),
        (["--precision", "fp16", "--cohort", "nowhere"], "is not a cohort"),
    ],
)
def test_contradicting_options_are_refused_with_exit_code_2(exported, tmp_path, options, why):
    done = CliRunner().invoke(app, [str(exported[0]), str(tmp_path / "new"), *options])
    assert done.exit_code == 2
    assert why in " ".join(done.output.replace("│", " ").split())
    assert not (tmp_path / "new").exists()


def test_reduction_needs_no_torch(exported, held_out_cohort, tmp_path, without_torch):
    options = ["--precision", "fp16", "--cohort", str(held_out_cohort)]
    assert "in fp16; on " in without_torch(str(exported[0]), str(tmp_path / "new"), *options)
