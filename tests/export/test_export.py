"""An exported bundle gives the answers of its network and names its origin."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from export.bundle import export_bundle
from export.parity import ParityError, check_parity
from export.trace import export_fusion
from model.cohorts import synthetic
from model.network.checkpoint import build_net
from schemas.features import extract_features
from schemas.manifest import GOLDEN, BundleError, read_manifest
from schemas.response import MODALITIES
from service.runtime.bundle import Bundle
from service.runtime.engine import Engine


def test_graphs_and_network_agree_for_many_shapes(exported):
    _, _, parity = exported
    assert parity.largest_difference < 1e-4
    assert parity.comparisons > 40


def test_a_graph_that_differs_is_refused_and_all_differences_are_named(checkpoint, tmp_path):
    net = checkpoint.net()
    fusion = export_fusion(net, tmp_path)
    with torch.no_grad():
        net.calibrate.prior += 0.5
        net.calibrate.scale *= 2
        for member in net.fusion.members:
            member.heads.other["length_of_stay"].bias += 0.5
    with pytest.raises(ParityError) as caught:
        check_parity(net, checkpoint.facts.spec, {"fusion": fusion}, tmp_path)
    assert re.search(r"fusion\.binary.*differs by", str(caught.value))
    assert re.search(r"fusion\.length_of_stay.*differs by", str(caught.value))
    assert "fusion.phenotype" not in str(caught.value)


def test_groups_of_tasks_are_exported(checkpoint, tmp_path):
    names = [task.name for task in checkpoint.facts.tasks]
    groups = (tuple(names[::3]), tuple(names[1::3]), tuple(names[2::3]))
    grouped = checkpoint.facts.net.model_copy(update={"groups": groups})
    net = build_net(checkpoint.facts.model_copy(update={"net": grouped})).eval()
    graph = export_fusion(net, tmp_path)
    parity = check_parity(net, checkpoint.facts.spec, {"fusion": graph}, tmp_path)
    assert parity.largest_difference < 1e-4


def test_a_failed_export_leaves_the_old_bundle(checkpoint, exported, monkeypatch):
    folder, digest, _ = exported
    broken = {"bad": synthetic.examples()["minimal"].model_copy(update={"images": [None]})}
    with pytest.raises(AttributeError):
        export_bundle(checkpoint, folder, name="x", version="1", golden=broken, evaluation={})
    assert read_manifest(folder)[1] == digest


def test_an_exported_bundle_reproduces_its_golden_answers(exported):
    folder, digest, _ = exported
    bundle = Bundle.load(folder)
    assert bundle.digest == digest
    Engine(bundle).replay_golden()


def test_the_engine_gives_the_outputs_of_the_network(checkpoint, exported):
    engine = Engine(Bundle.load(exported[0]))
    net = checkpoint.net()
    for record in synthetic.patients(6, seed=9):
        arrays = extract_features(record.payload, checkpoint.facts.spec).arrays
        (outputs,) = engine.run([arrays])
        present = torch.tensor([[m in arrays for m in MODALITIES]])
        embeddings = torch.zeros(1, len(MODALITIES), net.width)
        with torch.no_grad():
            for m, of_modality in arrays.items():
                inputs = [torch.tensor(array)[None] for array in of_modality.values()]
                embedding, unusual = net.encoders[m](*inputs)
                embeddings[:, MODALITIES.index(m)] = embedding
                assert outputs.unusual[m] == pytest.approx(unusual.item(), abs=1e-2)
            raw, attention = net.fusion(embeddings, present)
            expected = {**net.calibrate(raw), "attention": attention}
        for name, value in expected.items():
            served = outputs.fusion[name]
            np.testing.assert_allclose(served, value[0].numpy(), atol=1e-4, rtol=1e-4)


def test_a_bundle_names_its_data_its_command_and_every_file(exported):
    folder, _, _ = exported
    manifest, _ = read_manifest(folder)
    assert manifest.command in (folder / "NOTICE").read_text()
    assert "synthetic: made" in (folder / "NOTICE").read_text()
    assert {p.name for p in folder.iterdir()} == {*manifest.files, "manifest.json"}
    assert len(manifest.tasks) == 44
    assert manifest.cohorts[0].patients == 80
    card = (folder / "MODEL_CARD.md").read_text()
    assert all(facts.task.display in card for facts in manifest.tasks)


def test_a_bundle_holds_no_path_of_the_machine_that_made_it(exported):
    machine = {str(Path(__file__).parents[2]).encode(), str(Path(torch.__file__).parent).encode()}
    for path in exported[0].iterdir():
        assert not any(folder in path.read_bytes() for folder in machine), path.name


def test_weights_take_two_bytes_each(exported, checkpoint):
    graph = onnx.load(exported[0] / "series.onnx").graph
    size = Counter()
    for tensor in graph.initializer:
        size[tensor.data_type] += len(tensor.raw_data)
    members = checkpoint.facts.members * checkpoint.facts.net.width
    assert size[onnx.TensorProto.FLOAT16] > 2 * members * 1000
    # Statistics of the training patients (medians, spreads, directions) stay float32.
    assert not any(
        tensor.data_type == onnx.TensorProto.FLOAT
        and "adapters" in tensor.name
        # The thresholds of trees are values in their units.
        and ".trees." not in tensor.name
        for tensor in graph.initializer
        if len(tensor.dims) > 1
    )


def test_golden_requests_cover_every_modality(exported):
    lines = [json.loads(line) for line in (exported[0] / GOLDEN).read_text().splitlines()]
    parts = {part for line in lines for part in line["request"]}
    assert {"tabular", "series", "treatments", "notes", "images"} <= parts


def test_a_changed_file_is_refused(exported, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(exported[0], copy)
    graph = copy / "fusion.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    with pytest.raises(BundleError, match=r"fusion\.onnx was changed"):
        Bundle.load(copy)
