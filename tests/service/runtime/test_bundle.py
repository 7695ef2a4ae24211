"""A bundle that does not match its manifest is refused when it is loaded."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from schemas.manifest import BundleError
from service.runtime.bundle import Bundle
from service.runtime.engine import Engine

Edit = Callable[[dict[str, Any], Path], None]


def load(path: Path) -> Engine:
    engine = Engine(Bundle.load(path, "cpu"))
    engine.replay_golden()
    return engine


def test_the_shipped_bundle_loads_and_is_verified(bundle_dir):
    engine = load(bundle_dir)
    assert engine.verified
    assert engine.bundle.device == "cpu"
    assert len(engine.bundle.digest) == 64


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(BundleError, match="is not a bundle"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["golden.jsonl", "tokenizer.json", "MODEL_CARD.md"])
def test_a_changed_or_missing_file_is_named(changed_bundle, name):
    path = changed_bundle(lambda *_: None)
    with (path / name).open("a") as file:
        file.write(" ")
    with pytest.raises(BundleError, match=f"{name} was changed"):
        load(path)
    (path / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        load(path)


def test_a_changed_graph_is_named(changed_bundle, bundle):
    path = changed_bundle(lambda *_: None)
    file = path / bundle.manifest.fusion.file
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    with pytest.raises(BundleError, match=f"{file.name} was changed"):
        load(path)


def _no_digest(manifest: dict[str, Any], _: Path) -> None:
    del manifest["files"][manifest["fusion"]["file"]]


def _no_golden(manifest: dict[str, Any], _: Path) -> None:
    del manifest["files"]["golden.jsonl"]


def _outside(manifest: dict[str, Any], _: Path) -> None:
    manifest["files"]["../other"] = "0"


def _no_graph(manifest: dict[str, Any], path: Path) -> None:
    (path / manifest["fusion"]["file"]).write_bytes(b"no graph")


def _other_name(manifest: dict[str, Any], _: Path) -> None:
    manifest["encoders"]["tabular"]["outputs"][0]["name"] = "vector"


def _other_dtype(manifest: dict[str, Any], _: Path) -> None:
    manifest["encoders"]["image"]["inputs"][0]["dtype"] = "float32"


def _other_shape(manifest: dict[str, Any], _: Path) -> None:
    manifest["encoders"]["tabular"]["inputs"][0]["axes"][1] += 1


def _older_encoder(manifest: dict[str, Any], path: Path) -> None:
    encoder = manifest["encoders"]["tabular"]
    encoder["outputs"] = [o for o in encoder["outputs"] if o["name"] == "embedding"]
    model = onnx.load(path / encoder["file"])
    (unusual,) = (o for o in model.graph.output if o.name == "unusual")
    model.graph.output.remove(unusual)
    onnx.save(model, path / encoder["file"])


def _older_regression(manifest: dict[str, Any], _: Path) -> None:
    task = next(t for t in manifest["tasks"] if t["task"]["kind"] == "regression")
    task["output"] = "binary"


def _swapped(manifest: dict[str, Any], _: Path) -> None:
    encoders = manifest["encoders"]
    encoders["tabular"], encoders["notes"] = encoders["notes"], encoders["tabular"]


def _fewer_tasks(manifest: dict[str, Any], _: Path) -> None:
    manifest["tasks"].pop()


def _one_name(manifest: dict[str, Any], _: Path) -> None:
    manifest["tasks"][1]["task"]["name"] = manifest["tasks"][0]["task"]["name"]


def _no_tokenizer(_: dict[str, Any], path: Path) -> None:
    (path / "tokenizer.json").write_text("{}")


def _no_column(manifest: dict[str, Any], _: Path) -> None:
    manifest["tasks"][0]["column"] = 1000


def _no_output(manifest: dict[str, Any], _: Path) -> None:
    manifest["tasks"][0]["output"] = "oracle"


def _other_classes(manifest: dict[str, Any], _: Path) -> None:
    task = next(t["task"] for t in manifest["tasks"] if t["task"]["kind"] == "multiclass")
    task["classes"].append("raptured")


def _falling_scores(manifest: dict[str, Any], _: Path) -> None:
    task = next(t for t in manifest["tasks"] if t["interval"])
    task["interval"]["scores"].reverse()


def _one_end(manifest: dict[str, Any], _: Path) -> None:
    task = next(t for t in manifest["tasks"] if t["interval"])
    task["interval"]["high"].pop()


def _other_thresholds(manifest: dict[str, Any], _: Path) -> None:
    manifest["tasks"][0]["sets"] = {"thresholds": {"no": 0.1, "maybe": 0.1}}


def _neither_sets_nor_reason(manifest: dict[str, Any], _: Path) -> None:
    manifest["tasks"][0]["sets"] = {}


def _unknown_in_phenotype(manifest: dict[str, Any], _: Path) -> None:
    manifest["phenotypes"][0]["distinguished_by"]["aura"] = 1.0


def _unseen(manifest: dict[str, Any], _: Path) -> None:
    del manifest["encoders"]["notes"]


def _unknown_field(manifest: dict[str, Any], _: Path) -> None:
    manifest["mood"] = "good"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_no_digest, "no digest of"),
        (_no_golden, "golden.jsonl holds no answer"),
        (_outside, "outside the bundle"),
        (_no_graph, "does not load"),
        (_other_name, "outputs are not those of the manifest: embedding, vector"),
        (_other_dtype, "pixels is uint8, not float32"),
        (_other_shape, "values has axes"),
        (_older_encoder, r"embedding \[batch, width\] and unusual \[batch\].*exported again"),
        (_older_regression, r"length_of_stay: binary must be \[batch, 3\], the value and"),
        (_swapped, "no feature is named"),
        (_fewer_tasks, "must have an output attention"),
        (_one_name, "two tasks have the same name"),
        (_no_tokenizer, "tokenizer.json is not a tokenizer"),
        (_no_column, "no column 1000"),
        (_no_output, "no output oracle"),
        (_other_classes, "one column for each class"),
        (_falling_scores, "ascending scores, each with a low and a high end"),
        (_one_end, "ascending scores, each with a low and a high end"),
        (_other_thresholds, r"a threshold for each of \['no', 'yes'\]"),
        (_neither_sets_nor_reason, "a threshold for each of"),
        (_unknown_in_phenotype, "phenotype 0: no variable or task is named aura"),
        (_unseen, "no encoder for its visible notes"),
        (_unknown_field, "mood"),
    ],
)
def test_a_contradiction_of_manifest_and_graphs_is_named(changed_bundle, edit, message):
    with pytest.raises(BundleError, match=message):
        load(changed_bundle(edit))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "golden.jsonl holds no answer"),
        ("{}", "not a request with its outputs"),
        ("not json", "not a request with its outputs"),
        ('{"request": {"as_of": "today"}, "outputs": {}}', "not a request with its outputs"),
    ],
)
def test_golden_answers_must_exist_and_be_readable(changed_bundle, line, message):
    path = changed_bundle(lambda _, path: (path / "golden.jsonl").write_text(line))
    with pytest.raises(BundleError, match=message):
        load(path)


@pytest.mark.parametrize("fault", ["missing", "added", "shape", "nan", "value"])
def test_all_golden_outputs_are_compared(changed_bundle, fault):
    def edit(_: dict[str, Any], path: Path) -> None:
        golden = json.loads((path / "golden.jsonl").read_text().splitlines()[0])
        outputs = golden["outputs"]
        match fault:
            case "missing":
                del outputs["binary"]
            case "added":
                outputs["oracle"] = [1]
            case "shape":
                outputs["binary"].pop()
            case "nan":
                outputs["binary"][0] = float("nan")
            case "value":
                outputs["binary"][0] += 0.5
        (path / "golden.jsonl").write_text(json.dumps(golden))

    output = "oracle" if fault == "added" else "binary"
    engine = Engine(Bundle.load(changed_bundle(edit), "cpu"))
    with pytest.raises(BundleError, match=f"line 1: .*{output}"):
        engine.replay_golden()
    assert not engine.verified


def test_a_bundle_may_lack_an_encoder_whose_modality_no_task_sees(changed_bundle, serve, payload):
    def leave_out(manifest: dict[str, Any], path: Path) -> None:
        del manifest["encoders"]["image"]
        for facts in manifest["tasks"]:
            facts["seen"] = [m for m in facts["seen"] if m != "image"]
        lines = (path / "golden.jsonl").read_text().splitlines()
        without_images = [line for line in lines if "images" not in json.loads(line)["request"]]
        (path / "golden.jsonl").write_text("\n".join(without_images))

    service = serve(load(changed_bundle(leave_out)))
    assert service.predict(payload)["receipt"]["modalities"]["image"]["status"] == "hidden"


def test_the_engine_accepts_an_empty_batch_and_an_empty_sample(engine):
    assert engine.run([]) == []
    (outputs,) = engine.run([{}])
    assert all(np.isfinite(values).all() for values in outputs.fusion.values())
    assert outputs.unusual == {}


def test_an_evaluation_of_another_shape_is_refused(changed_bundle):
    def edit(manifest: dict[str, Any], _: Path) -> None:
        manifest["evaluation"]["measured"] = {"models": [0.76]}

    with pytest.raises(BundleError, match=r"evaluation: .*measured\.models"):
        load(changed_bundle(edit))


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="there is a GPU")
def test_a_requested_cuda_device_that_is_missing_is_an_error(bundle_dir):
    with pytest.raises(BundleError, match="no CUDA device is available"):
        Bundle.load(bundle_dir, "cuda")
    assert Bundle.load(bundle_dir, "auto").device == "cpu"


def test_the_command_refuses_an_invalid_bundle_in_one_line(changed_bundle):
    path = changed_bundle(_no_column)
    done = subprocess.run(
        [sys.executable, "-c", "from service.cli import app; app()"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"M3H_BUNDLE": str(path)},
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "no column 1000" in done.stderr
    assert "Traceback" not in done.stderr
