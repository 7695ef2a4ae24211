"""A damaged or hostile bundle is served, or refused with one line that names the fault."""

import json
import os
import random
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.manifest import BundleError, sha256
from service.http.app import create_app
from service.prediction.golden import check_golden_answers
from service.runtime.bundle import Bundle, LocalGraph
from service.runtime.engine import Engine
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.service.runtime.test_bundle import load

Edit = Callable[[dict[str, Any], Path], None]
GOLDEN = "golden.jsonl"


def _not_utf8(_: dict[str, Any], path: Path) -> None:
    (path / "tokenizer.json").write_bytes(b'{"version": "\xff\xfe"}')


def _loop(manifest: dict[str, Any], path: Path) -> None:
    (path / "loop").symlink_to("loop")
    manifest["files"]["loop"] = "0"


def _nul(manifest: dict[str, Any], _: Path) -> None:
    manifest["files"]["a\0b"] = "0"


def _long_name(manifest: dict[str, Any], _: Path) -> None:
    manifest["files"]["n" * 4096] = "0"


def _pipe(_: dict[str, Any], path: Path) -> None:
    (path / GOLDEN).unlink()
    os.mkfifo(path / GOLDEN)


def _folder(_: dict[str, Any], path: Path) -> None:
    (path / "tokenizer.json").unlink()
    (path / "tokenizer.json").mkdir()


def _device(_: dict[str, Any], path: Path) -> None:
    (path / GOLDEN).unlink()
    (path / GOLDEN).symlink_to("/dev/zero")


def _sparse(_: dict[str, Any], path: Path) -> None:
    with (path / GOLDEN).open("r+b") as file:
        file.truncate(2**36)


def _output_twice(manifest: dict[str, Any], _: Path) -> None:
    outputs = manifest["fusion"]["outputs"]
    outputs.append(outputs[0])


def _deep(_: dict[str, Any], path: Path) -> None:
    (path / GOLDEN).write_text("[" * 100_000)


def _huge_number(_: dict[str, Any], path: Path) -> None:
    golden = json.loads((path / GOLDEN).read_text().splitlines()[0])
    golden["outputs"]["binary"][0] = 10**400
    (path / GOLDEN).write_text(json.dumps(golden))


def _other_weights(manifest: dict[str, Any], path: Path) -> None:
    file = path / manifest["fusion"]["file"]
    model = onnx.load(file)
    weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    (path / "weights.bin").write_bytes(weights.raw_data)
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    entry = weights.external_data.add()
    entry.key, entry.value = "location", str(path / "weights.bin")
    onnx.save_model(model, file)


def _own_operator(manifest: dict[str, Any], path: Path) -> None:
    file = path / manifest["fusion"]["file"]
    model = onnx.load(file)
    model.graph.node[0].domain = "com.example"
    onnx.save_model(model, file)


def _other_opset(manifest: dict[str, Any], path: Path) -> None:
    file = path / manifest["fusion"]["file"]
    model = onnx.load(file)
    model.opset_import[0].version = 999
    onnx.save_model(model, file)


def _tim_without_a_row(_: dict[str, Any], path: Path) -> None:
    tim = json.loads((path / "tim.json").read_text())
    tim["matrix"].pop()
    (path / "tim.json").write_text(json.dumps(tim))


def _smaller_image(manifest: dict[str, Any], path: Path) -> None:
    manifest["spec"]["image_side"] = 64
    lines = (path / GOLDEN).read_text().splitlines()
    without_images = [line for line in lines if "images" not in json.loads(line)["request"]]
    (path / GOLDEN).write_text("\n".join(without_images))


def _two_variables_of_one_name(manifest: dict[str, Any], _: Path) -> None:
    variables = manifest["spec"]["variables"]
    variables[1]["name"] = variables[0]["name"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_not_utf8, "tokenizer.json is not UTF-8"),
        (_loop, "loop cannot be read"),
        (_nul, "cannot be read"),
        (_long_name, "cannot be read"),
        (_pipe, "golden.jsonl is not a file"),
        (_folder, "tokenizer.json is not a file"),
        (_device, "golden.jsonl"),
        (_sparse, "golden.jsonl is larger than"),
        (_output_twice, "fusion.outputs: .*tensor names must be unique"),
        (_deep, "not a request with its outputs"),
        (_huge_number, "not a request with its outputs"),
        (_other_weights, "fusion.onnx does not load"),
        (_own_operator, "fusion.onnx does not load"),
        (_other_opset, "fusion.onnx does not load"),
        (_tim_without_a_row, "tim.json is not a TIM: .*matrix must be 44 rows of 44 cells"),
        (_smaller_image, r"pixels must be uint8 \[batch, 1, 64, 64\]"),
        (_two_variables_of_one_name, "names of variables must be unique"),
    ],
)
def test_a_bundle_with_invalid_files_is_refused(changed_bundle, edit, message):
    path = changed_bundle(lambda *_: None)
    manifest = json.loads((path / "manifest.json").read_bytes())
    edit(manifest, path)
    for name in ("tokenizer.json", "tim.json", "fusion.onnx", GOLDEN):
        if (path / name).is_file() and (path / name).stat().st_size < 2**30:
            manifest["files"][name] = sha256((path / name).read_bytes())
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=message) as refused:
        load(path)
    assert _is_one_line(str(refused.value))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("golden_tolerance",), 1e9),
        (("golden_tolerance",), -1.0),
        (("golden_tolerances",), {"cpu": 1e9}),
        (("trained_hours",), [-1, 48]),
        (("trained_hours",), [48, 6]),
        (("tasks", 0, "prevalence"), -3),
        (("tasks", 0, "prevalence"), 1.01),
        (("tasks", 0, "positives"), -1),
        (("tasks", 0, "labels"), {"notes": -5}),
        (("tasks", 0, "column"), -1),
        (("tasks", 0, "interval", "low", 0), -0.1),
        (("tasks", 0, "sets", "thresholds", "no"), 2.0),
        (("phenotypes", 0, "share"), 7.0),
        (("cohorts", 0, "patients"), -2),
        (("cohorts", 0, "landmarks_hours"), [-6]),
        (("spec", "image_side"), 1_000_000),
        (("spec", "image_side"), 0),
        (("spec", "window_hours"), 0),
        (("spec", "window_hours"), -48),
        (("spec", "recent_hours"), 0),
        (("spec", "max_pixels"), 0),
        (("spec", "max_pixels"), 10**15),
        (("spec", "max_characters"), -1),
        (("spec", "phrases"), -1),
        (("spec", "phrases"), 2**62),
        (("fusion", "outputs", 0, "axes"), ["batch", 0]),
        (("fusion", "outputs", 0, "axes"), ["batch", 2**63]),
    ],
)
def test_an_impossible_number_in_the_manifest_is_refused(changed_bundle, place, value):
    def edit(manifest: dict[str, Any], _: Path) -> None:
        at: Any = manifest
        for step in place[:-1]:
            at = at[step]
        at[place[-1]] = value

    location = r"\.".join(map(str, place[:2]))
    with pytest.raises(BundleError, match=location):
        load(changed_bundle(edit))


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_not_finite_is_refused(changed_bundle, text):
    path = changed_bundle(lambda *_: None)
    raw = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(
        raw.replace('"golden_tolerance": 0.0001', f'"golden_tolerance": {text}')
    )
    with pytest.raises(BundleError, match=r"manifest\.json"):
        load(path)


def test_a_file_that_changes_after_verification_is_refused(changed_bundle, monkeypatch):
    """The graphs are read again when they are loaded."""
    path = changed_bundle(lambda *_: None)
    verified = Bundle.load.__globals__["read_manifest"]

    def read_then_change(bundle: Path) -> Any:
        manifest = verified(bundle)
        shutil.copyfile(bundle / "tabular.onnx", bundle / "fusion.onnx")
        return manifest

    monkeypatch.setitem(Bundle.load.__globals__, "read_manifest", read_then_change)
    with pytest.raises(BundleError, match=r"fusion\.onnx was changed"):
        Bundle.load(path, "cpu")


# ------------------------------------------------------------------------------ by chance

ODD = (
    None, True, -1, 0, 1, 2**31, 2**63, 10**30, -0.5, 0.5, 1e9, 1e308, "", "x", "\0", "a" * 5000,
    "../x", [], {}, [[]], [None], {"x": 1},
)  # fmt: skip


@pytest.fixture(scope="module")
def small_bundle(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With one golden answer, so that it loads soon."""
    path = tmp_path_factory.mktemp("small") / "bundle"
    shutil.copytree(bundle_dir, path)
    (path / GOLDEN).write_text((path / GOLDEN).read_text().splitlines()[0])
    return path


def _served_or_refused(path: Path, bundle: Bundle) -> str:
    """Loads a bundle with the graphs of another. Returns the reason if it is refused."""
    graphs = {g.file: bundle.graph(g.file) for g in bundle.manifest.encoders.values()}
    graphs[bundle.manifest.fusion.file] = bundle.fusion
    try:
        made = Bundle.load(
            path, "cpu", 1, lambda *_: lambda graph: LocalGraph(graph, graphs[graph.file].onnx)
        )
        engine = Engine(made)
        engine.replay_golden()
        check_golden_answers(engine, Metrics())
    except BundleError as error:
        return str(error)
    create_app(engine, Settings(bundle=path))
    return ""


def _is_one_line(message: str) -> bool:
    return "\n" not in message and len(message) <= 1000


def _places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    places = [at] if at else []
    if isinstance(value, dict):
        return places + [p for key, entry in value.items() for p in _places(entry, (*at, key))]
    if isinstance(value, list):
        return places + [p for i, entry in enumerate(value) for p in _places(entry, (*at, i))]
    return places


@cache
def _manifest(path: Path) -> tuple[str, list[tuple[Any, ...]]]:
    text = (path / "manifest.json").read_text()
    # The entries of a list of numbers or spellings are alike: the first few suffice.
    places = [p for p in _places(json.loads(text)) if "spellings" not in p or len(p) < 3]
    return text, [p for p in places if not isinstance(p[-1], int) or p[-1] < 2]


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(seed=st.integers(0, 2**32), value=st.sampled_from(ODD), remove=st.booleans())
def test_a_manifest_with_an_arbitrary_value_is_served_or_refused(
    small_bundle, bundle, tmp_path, seed, value, remove
):
    text, places = _manifest(small_bundle)
    manifest = json.loads(text)
    place = random.Random(seed).choice(places)
    at: Any = manifest
    for step in place[:-1]:
        at = at[step]
    if remove:
        del at[place[-1]]
    else:
        at[place[-1]] = value
    path = tmp_path / "bundle"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(small_bundle, path)
    manifest["files"][GOLDEN] = sha256((path / GOLDEN).read_bytes())
    (path / "manifest.json").write_text(json.dumps(manifest))
    assert _is_one_line(_served_or_refused(path, bundle))


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    name=st.sampled_from(["manifest.json", "tokenizer.json", "tim.json", GOLDEN, "MODEL_CARD.md"]),
    start=st.floats(0, 1),
    length=st.integers(0, 200),
    replacement=st.binary(max_size=20),
)
def test_a_document_with_arbitrary_bytes_is_served_or_refused(
    small_bundle, bundle, tmp_path, name, start, length, replacement
):
    path = tmp_path / "bundle"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(small_bundle, path)
    raw = (path / name).read_bytes()
    at = int(start * len(raw))
    (path / name).write_bytes(raw[:at] + replacement + raw[at + length :])
    if name != "manifest.json":
        manifest = json.loads((path / "manifest.json").read_bytes())
        for file in (GOLDEN, name):
            manifest["files"][file] = sha256((path / file).read_bytes())
        (path / "manifest.json").write_text(json.dumps(manifest))
    assert _is_one_line(_served_or_refused(path, bundle))
