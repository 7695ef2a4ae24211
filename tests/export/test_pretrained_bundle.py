"""Pretrained encoders of a hospital: cohort, training, export and serving by the commands."""

import base64
import io
import re
import shutil
import sys
from collections import Counter

import numpy as np
import onnx
import PIL.Image
import pytest
import torch
from starlette.testclient import TestClient
from typer.testing import CliRunner

from export import cli as export_cli
from model.cli import main as model_cli
from model.cohorts.store import Cohort
from model.cohorts.synthetic import generator
from model.network.checkpoint import Checkpoint
from schemas.features import extract_features
from schemas.manifest import read_manifest
from schemas.payload import as_payload
from service.http.app import create_app
from service.runtime.bundle import Bundle
from service.runtime.engine import MAX_BATCH_TOKENS, Engine
from service.settings import Settings
from service.telemetry.logging import make_log
from tests.support.inputs.pretrained_files import densenet, old_bert_folder

TOML = """
members = 2
epochs = 1

[net]
notes_encoder = "{notes}"
image_encoder = "{image}"
width = 24
task_width = 8
clusters = 3
"""


def run(app, *arguments):
    """Runs a command; returns its output."""
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    """A folder with a cohort, a configuration and a trained checkpoint."""
    home = tmp_path_factory.mktemp("hospital")
    notes, image = home / "Bio_ClinicalBERT", home / "xrv-densenet121.pt"
    old_bert_folder(notes)
    torch.save(densenet(1).state_dict(), image)
    (home / "m3h.toml").write_text(TOML.format(notes=notes, image=image))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generator, "PATIENTS", 60)
        patch.setattr(sys, "argv", ["m3h-model", "train", "--config", "m3h.toml"])
        made = ["synthetic", "--data", home, "--out", home / "cohort"]
        run(model_cli.app, "cohort", *made, "--tokenizer", notes, "--image-side", 224)
        config = ["--config", home / "m3h.toml"]
        trained = ["--cohort", home / "cohort", "--out", home / "run", *config]
        run(model_cli.app, "train", *trained)
    # Cohort and checkpoint hold everything that is needed of the encoders.
    shutil.rmtree(notes)
    image.unlink()
    return home


@pytest.fixture(scope="module")
def checkpoint(hospital):
    return Checkpoint.load(hospital / "run")


@pytest.fixture(scope="module")
def exported(hospital):
    """The bundle, and the output of the export."""
    paths = hospital / "run", hospital / "bundle"
    return hospital / "bundle", run(export_cli.app, *paths, "--behaviour-gate", 0)


@pytest.fixture(scope="module")
def engine(exported):
    return Engine(Bundle.load(exported[0]))


def test_graphs_and_network_agree(exported):
    assert "graphs and torch agree to" in exported[1]  # otherwise the export fails


def test_the_golden_answers_hold(engine):
    engine.replay_golden()


def request(text="Fever and cough.", shade=128):
    out = io.BytesIO()
    pixels = np.full((300, 260), shade, np.uint8)
    pixels[100:150, 50:120] = 255 - shade
    PIL.Image.fromarray(pixels).save(out, "PNG")
    image = base64.b64encode(out.getvalue()).decode()
    time = "2031-05-04T10:00:00Z"
    return {
        "as_of": "2031-05-04T12:00:00Z",
        "notes": [{"kind": "nursing", "time": time, "text": text}],
        "images": [{"time": time, "media_type": "image/png", "data": image}],
    }


def test_the_service_answers_a_request_with_a_note_and_an_x_ray(engine, exported):
    log = make_log("info", io.StringIO())
    app = create_app(engine, Settings(bundle=exported[0]), log)
    with TestClient(app) as client:
        answer = client.post("/predict", json=request())
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert len(body["predictions"]) == 44
    used = {m for m, use in body["receipt"]["modalities"].items() if use["status"] == "used"}
    assert used == {"notes", "image"}


def fusion_of(engine, *requests):
    spec = engine.bundle.manifest.spec
    samples = [extract_features(as_payload(r), spec).arrays for r in requests]
    return [outputs.fusion["binary"] for outputs in engine.run(samples)]


def test_the_last_word_of_a_long_note_and_the_x_ray_change_the_answer(engine):
    long = "Fever. " * 40
    first, other_word, darker = fusion_of(
        engine, request(long + "a"), request(long + "b"), request(long + "a", shade=40)
    )
    assert not np.array_equal(first, other_word)
    assert not np.array_equal(first, darker)


def test_an_answer_does_not_depend_on_the_other_requests_of_a_batch(engine):
    requests = [request("Fever. " * n, shade=10 * i) for i, n in enumerate((1, 9000, 3, 200, 8000))]
    spec = engine.bundle.manifest.spec
    lengths = [
        len(extract_features(as_payload(r), spec).arrays["notes"]["tokens"]) for r in requests
    ]
    assert sum(lengths) > 2 * MAX_BATCH_TOKENS, "the batch must exceed the limit of one run"
    alone = [fusion_of(engine, r)[0] for r in requests]
    np.testing.assert_allclose(fusion_of(engine, *requests), alone, atol=1e-5)


def test_checkpoint_and_bundle_give_the_same_embeddings(checkpoint, engine, hospital):
    """The arrays of the cohort, by the checkpoint's encoders and by the bundle's graphs."""
    samples = Cohort.load(hospital / "cohort").samples
    net = checkpoint.net()
    rows = np.flatnonzero(samples.present[:, 2:].all(axis=1))[:5]
    for modality in ("notes", "image"):
        for row in rows:
            inputs = samples.arrays(int(row))[modality]
            batch = {name: array[None] for name, array in inputs.items()}
            with torch.no_grad():
                tensors = [torch.from_numpy(array) for array in batch.values()]
                expected, unusual = net.encoders[modality](*tensors)
            served = engine.bundle.encoders[modality].run(batch)
            np.testing.assert_allclose(served["embedding"], expected.numpy(), atol=1e-4)
            np.testing.assert_allclose(served["unusual"], unusual.numpy(), atol=1e-2)


def test_checkpoint_and_bundle_name_their_encoders_without_paths(checkpoint, exported, hospital):
    assert checkpoint.facts.net.notes_encoder == "Bio_ClinicalBERT"
    assert checkpoint.facts.net.image_encoder == "xrv-densenet121.pt"
    notice = (exported[0] / "NOTICE").read_text()
    for modality, name in (("notes", "Bio_ClinicalBERT"), ("image", "xrv-densenet121.pt")):
        digest = checkpoint.facts.pretrained[modality].digest
        assert f"{modality}: {name}" in notice
        assert digest in notice
    for folder in (hospital / "run", exported[0]):
        for path in (path for path in folder.rglob("*") if path.is_file()):
            assert str(hospital).encode() not in path.read_bytes(), path.name


@pytest.mark.parametrize(
    ("name", "kept_single"),
    # A norm that follows a convolution is folded into it by the exporter.
    [("notes", "never"), ("image", r"represent\.features\..*conv[01]\.weight")],
)
def test_the_weights_of_encoders_are_stored_as_halves(exported, name, kept_single):
    size = Counter()
    for tensor in onnx.load(exported[0] / f"{name}.onnx").graph.initializer:
        # The statistics behind `unusual` stay float32.
        if np.prod(tensor.dims) >= 1024 and not tensor.name.startswith("ordinary."):
            size[tensor.data_type] += 1
            is_half = tensor.data_type == onnx.TensorProto.FLOAT16
            assert is_half or re.fullmatch(kept_single, tensor.name), tensor.name
    assert size[onnx.TensorProto.FLOAT16] > 2


def test_a_bundle_holds_the_tokenizer_of_its_encoder(exported, hospital):
    manifest, _ = read_manifest(exported[0])
    assert manifest.spec == Cohort.load(hospital / "cohort").spec
    assert (manifest.spec.phrases, manifest.spec.image_side) == (0, 224)


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory):
    """A cohort for the built-in encoders."""
    folder = tmp_path_factory.mktemp("ordinary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generator, "PATIENTS", 3)
        run(model_cli.app, "cohort", "synthetic", "--data", folder, "--out", folder / "cohort")
    return folder / "cohort"


def refused(*arguments):
    done = CliRunner().invoke(model_cli.app, [str(a) for a in arguments])
    assert done.exit_code == 2, done.output
    return " ".join(done.output.split())


def test_training_refuses_a_cohort_for_other_encoders_and_names_the_fix(ordinary, tmp_path):
    notes = old_bert_folder(tmp_path / "BioBERT")
    (tmp_path / "m3h.toml").write_text(f'[net]\nnotes_encoder = "{notes}"\n')
    arguments = ["--cohort", ordinary, "--out", tmp_path / "run"]
    message = refused("train", *arguments, "--config", tmp_path / "m3h.toml")
    assert "m3h-model cohort … --tokenizer" in message
    assert not (tmp_path / "run").exists()


def test_a_model_is_only_scored_on_cohorts_with_its_own_features(hospital, ordinary):
    run(model_cli.app, "score", hospital / "run", "--cohort", hospital / "cohort")
    message = refused("score", hospital / "run", "--cohort", ordinary)
    assert "other variables, tokens or images than the model's" in message
