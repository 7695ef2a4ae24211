"""A bundle is judged by the serving engine before it replaces anything."""

import json
import re

import pytest
from typer.testing import CliRunner

from export import behaviour
from export.behaviour import BehaviourError, BehaviourGate, bundle_predictor
from export.bundle import export_bundle
from export.cli import app
from export.precision.quantize import quantize_bundle
from export.recalibrate import recalibrate
from model.cohorts import synthetic
from model.cohorts.store import Cohort
from model.evaluation.behaviour.checkpoint_predictor import checkpoint_predictor
from model.evaluation.behaviour.expectations import load_expectations
from model.evaluation.behaviour.patients import made_patients
from model.training.preparation import PreparedTraining
from model.training.trainer import Trainer
from schemas.evaluation import Behaviour
from schemas.manifest import read_manifest
from service.runtime.bundle import MODEL_CARD, Bundle
from service.runtime.engine import Engine
from tests.export.conftest import CONFIG
from tests.export.test_quantize import LENIENT

FEW = {
    "expectations": load_expectations()[::12],
    "patients": dict([*made_patients().items()][:2]),
}


def export(checkpoint, folder, gate):
    golden = {"minimal": synthetic.examples()["minimal"]}
    return export_bundle(
        checkpoint, folder, name="x", version="1", golden=golden, evaluation={}, gate=gate
    )


@pytest.fixture(scope="module")
def weak_checkpoint(learned):
    """A model that is far below the gate: of few synthetic patients, without expected effects."""
    net = CONFIG.net.model_copy(update={"clinical_effects": False})
    config = CONFIG.model_copy(update={"net": net})
    trainer = Trainer(PreparedTraining([Cohort.load(learned)], config, command="m3h-model train …"))
    for _ in trainer.run():
        pass
    return trainer.checkpoint()


@pytest.fixture(scope="module")
def judged(weak_checkpoint, tmp_path_factory):
    """A bundle that was judged with few expectations, and not refused."""
    folder = tmp_path_factory.mktemp("judged") / "small"
    export(weak_checkpoint, folder, BehaviourGate(0, **FEW))
    return folder


def test_a_bundle_and_its_checkpoint_answer_alike(checkpoint, exported):
    payloads = [*made_patients().values()]
    from_graphs = bundle_predictor(Bundle.load(exported[0], "cpu"))(payloads)
    from_torch = checkpoint_predictor(checkpoint)(payloads)
    assert len(from_torch) == len(payloads)
    for graph, torch in zip(from_graphs, from_torch, strict=True):
        assert graph == pytest.approx(torch, abs=1e-4)
        assert len(graph) > 30


def test_a_task_that_abstains_has_no_answer(exported):
    predictor = bundle_predictor(Bundle.load(exported[0], "cpu"))
    (answers,) = predictor([made_patients()["healthy"]])
    for facts in read_manifest(exported[0])[0].tasks:
        answers_task = facts.task.kind == "binary" and facts.abstains is None
        assert (facts.task.name in answers) == answers_task


def test_a_bundle_below_the_gate_is_refused_and_the_old_one_stays(weak_checkpoint, tmp_path):
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "old").write_text("")
    with pytest.raises(BehaviourError) as caught:
        export(weak_checkpoint, folder, BehaviourGate(0.95, **FEW))
    head, *rows, last = str(caught.value).splitlines()
    assert re.search(r"refused: \d+\.\d% of \d+ expectations .* 95\.0% must", head)
    assert len(rows) == behaviour.WORST + 1  # and the two figures
    assert "--behaviour-gate 0" in last
    assert [file.name for file in folder.iterdir()] == ["old"]


def test_the_manifest_and_the_card_have_the_behaviour(judged):
    manifest, _ = read_manifest(judged)
    figures = Behaviour.model_validate(manifest.evaluation["behaviour"])
    assert (figures.patients, figures.gate) == (2, 0)
    assert 0 < figures.reliable < 1
    assert figures.rows == sorted(figures.rows, key=lambda row: row.share)
    card = (judged / MODEL_CARD).read_text(encoding="utf-8")
    section = card.split("### Behaviour\n")[1].split("\n## ")[0]
    assert f"a share of {figures.reliable:.3f} holds in nine of ten patients" in section
    worst = figures.rows[0]
    row = f"| {worst.expectation} | {worst.task} | {worst.share:.3f} | {worst.mean_change:+.3f} |"
    assert row in section
    Engine(Bundle.load(judged)).replay_golden()


def test_a_bundle_that_was_not_judged_says_so(exported):
    assert "behaviour" not in read_manifest(exported[0])[0].evaluation
    card = (exported[0] / MODEL_CARD).read_text(encoding="utf-8")
    section = card.split("### Behaviour\n")[1].split("\n## ")[0]
    assert section.strip().endswith("not measured.")


# ---- bundles that are made from another ----------------------------------------------------------


def figures(reliable):
    return Behaviour(expectations=100, patients=2, concordance=reliable, reliable=reliable)


@pytest.mark.parametrize(
    ("share", "new", "passes"),
    [(0.95, 0.59, True), (0.95, 0.581, True), (0.95, 0.579, False), (0, 0.1, True)],
)
def test_a_new_bundle_may_be_worse_than_its_source_by_one_point(
    monkeypatch, tmp_path, share, new, passes
):
    judged = {tmp_path / "old": figures(0.59), tmp_path / "new": figures(new)}
    monkeypatch.setattr(behaviour, "judge_bundle", lambda folder, *_: judged[folder])
    gate = BehaviourGate(share, tmp_path / "old")
    if passes:
        assert gate.judge(tmp_path / "new").reliable == new
        return
    with pytest.raises(BehaviourError, match=r"58\.0% must \(those of .*old less 0\.01\)"):
        gate.judge(tmp_path / "new")


def test_a_recalibrated_bundle_is_judged_against_its_source(judged, held_out_cohort, tmp_path):
    recalibrate(judged, held_out_cohort, tmp_path / "new", gate=BehaviourGate(0.95, judged, **FEW))
    old, new = (read_manifest(f)[0].evaluation["behaviour"] for f in (judged, tmp_path / "new"))
    # A constant shift of the log-odds does not change how they move.
    assert new["reliable"] == pytest.approx(old["reliable"], abs=0.02)
    assert new["gate"] == pytest.approx(old["reliable"] - behaviour.TOLERATED_LOSS, abs=1e-4)


def test_a_reduced_bundle_is_judged_against_its_source(judged, held_out_cohort, tmp_path):
    gate = BehaviourGate(0.95, judged, **FEW)
    quantize_bundle(judged, [held_out_cohort], tmp_path / "new", "fp16", gate=gate, **LENIENT)
    manifest = read_manifest(tmp_path / "new")[0]
    new, old = manifest.evaluation["behaviour"], read_manifest(judged)[0].evaluation["behaviour"]
    assert new["gate"] == pytest.approx(old["reliable"] - behaviour.TOLERATED_LOSS, abs=1e-4)
    assert new["reliable"] >= new["gate"]
    Engine(Bundle.load(tmp_path / "new", "cpu")).replay_golden()


# ---- the command ---------------------------------------------------------------------------------


def test_the_command_refuses_a_bundle_below_the_gate(weak_checkpoint, tmp_path):
    weak_checkpoint.save(tmp_path / "run")
    paths = [str(tmp_path / "run"), str(tmp_path / "bundle")]
    done = CliRunner().invoke(app, paths)
    assert done.exit_code == 2
    assert done.stderr.startswith("m3h-export: the bundle is refused: ")
    assert not (tmp_path / "bundle").exists()
    done = CliRunner().invoke(app, [*paths, "--behaviour-gate", "0"])
    assert done.exit_code == 0
    assert re.search(r"% of \d+ expectations of its behaviour hold in nine of ten", done.output)
    evaluation = read_manifest(tmp_path / "bundle")[0].evaluation
    assert evaluation["behaviour"]["patients"] == len(made_patients())
    done = CliRunner().invoke(app, [*paths, "--behaviour-gate", "1.5"])
    assert done.exit_code == 2


def test_the_default_of_the_command_is_the_gate():
    from typer.main import get_command

    (option,) = [p for p in get_command(app).params if p.name == "behaviour_gate"]
    assert option.default == behaviour.GATE


def test_a_checkpoint_is_judged_by_a_command(weak_checkpoint, tmp_path):
    from model.cli.main import app as model_app

    weak_checkpoint.save(tmp_path / "run")
    own = tmp_path / "own.toml"
    own.write_text(
        '[[expectation]]\nid = "lactate"\nreason = "A test."\n'
        'series.lactate = { unit = "mmol/L", from = 1, to = 8 }\nup = { sepsis = 40 }\n'
    )
    command = ["behaviour", str(tmp_path / "run"), "--expectations", str(own)]
    done = CliRunner().invoke(model_app, [*command, "--out", str(tmp_path / "figures.json")])
    assert done.exit_code == 0, done.output
    assert re.search(r"0%  lactate +sepsis +mean change [+-]", done.output)
    assert done.output.rstrip().endswith("hold in nine of ten patients (10 patients)")
    written = Behaviour.model_validate(json.loads((tmp_path / "figures.json").read_bytes()))
    assert (written.expectations, written.reliable) == (1, 0)
    assert CliRunner().invoke(model_app, [*command, "--at-least", "0.5"]).exit_code == 1
    own.write_text(own.read_text().replace("sepsis", "sepsiss"))
    done = CliRunner().invoke(model_app, command)
    assert done.exit_code == 2
    assert f"m3h-model: {own}: " in done.stderr
