"""One bundle, one engine and one app for all tests of the service.

The bundle is made by hand: graphs of a few nodes with random weights, and the contract's own
variables and tasks. Whatever the tests say must hold for any bundle; to run them on a real one,
return its folder from `bundle_dir`.
"""

import base64
import copy
import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import PIL.Image
import pytest
from onnx import TensorProto, helper, numpy_helper
from starlette.testclient import TestClient

from schemas.features import STATISTICS, TREATMENT_FEATURES, FeatureSpec, features, stack
from schemas.manifest import Cohort, Graph, Manifest, TaskFacts, Tensor, sha256, write_manifest
from schemas.payload import as_payload
from schemas.response import MODALITIES
from schemas.tasks import load_tasks
from schemas.variables import Treatment, load_spellings, load_variables
from service.app import create_app
from service.bundle import Bundle
from service.engine import Engine
from service.log import make_log
from service.settings import Settings

WIDTH = 16
AS_OF = datetime(2031, 5, 4, 12, tzinfo=UTC)
MAX_BODY = 300_000


@pytest.fixture(scope="session")
def bundle_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def bundle(bundle_dir: Path) -> Bundle:
    return Bundle.load(bundle_dir, "cpu", threads=1)


@pytest.fixture(scope="session")
def engine(bundle: Bundle) -> Engine:
    engine = Engine(bundle)
    engine.replay_golden()
    return engine


@pytest.fixture(scope="session")
def settings(bundle_dir: Path) -> Settings:
    return Settings(bundle=bundle_dir, max_body_bytes=MAX_BODY, max_batch=4, threads=2)


@dataclass
class Service:
    """A running app, and everything that it has written."""

    client: TestClient
    log: io.StringIO

    def predict(self, payload: Any, **parameters: str) -> dict[str, Any]:
        answer = self.client.post("/predict", json=payload, params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def written(self) -> str:
        """Everything that outlives a request: the log and the metrics."""
        return self.log.getvalue() + self.client.get("/metrics").text


@pytest.fixture(scope="session")
def serve(settings: Settings) -> Iterator[Callable[..., Service]]:
    """Starts an app on an engine; settings may differ from those of the others."""
    clients: list[TestClient] = []

    def start(engine: Engine, **changed: Any) -> Service:
        log = io.StringIO()
        own = settings.model_copy(update=changed)
        client = TestClient(create_app(engine, own, make_log("debug", log)))
        clients.append(client.__enter__())
        return Service(client, log)

    yield start
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture(scope="session")
def service(serve: Callable[..., Service], engine: Engine) -> Service:
    return serve(engine)


@pytest.fixture
def payload() -> dict[str, Any]:
    """A valid request with all four modalities, for the test to change."""
    return copy.deepcopy(full_payload())


@pytest.fixture
def changed_bundle(bundle_dir: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the bundle with another manifest, valid or not, whose digests hold."""

    def change(edit: Callable[[dict[str, Any], Path], None]) -> Path:
        path = tmp_path / "changed"
        shutil.copytree(bundle_dir, path)
        manifest = json.loads((path / "manifest.json").read_bytes())
        edit(manifest, path)
        for name in manifest["files"]:
            if (path / name).is_file():
                manifest["files"][name] = sha256((path / name).read_bytes())
        (path / "manifest.json").write_text(json.dumps(manifest))
        return path

    return change


def full_payload() -> dict[str, Any]:
    def ago(hours: float) -> str:
        return (AS_OF - timedelta(hours=hours)).isoformat()

    return {
        "patient_id": "opaque",
        "as_of": AS_OF.isoformat(),
        "tabular": {
            "age": 67,
            "sex": "female",
            "height_cm": 165,
            "weight_kg": 71.5,
            "admission_source": "emergency",
            "unit_type": "medical_icu",
            "admitted_at": ago(24),
        },
        "series": [
            {
                "variable": "heart_rate",
                "unit": "/min",
                "times": [ago(20), ago(3), ago(1)],
                "values": [88, 112, 121.5],
            },
            {
                "variable": "loinc:2160-0",
                "unit": "umol/L",
                "times": [ago(18), ago(2)],
                "values": [95, 210],
            },
        ],
        "treatments": [{"name": "norepinephrine", "start": ago(5)}],
        "notes": [{"kind": "nursing", "time": ago(4), "text": "Patient febrile and hypotensive."}],
        "images": [{"time": ago(6), "media_type": "image/png", "data": png(64, 48)}],
    }


def png(width: int, height: int) -> str:
    shades = np.random.default_rng(0).integers(0, 255, (height, width), dtype=np.uint8)
    out = io.BytesIO()
    PIL.Image.fromarray(shades).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


# ---------------------------------------------------------------------- the bundle made by hand


def make_bundle(path: Path) -> Path:
    """Writes a bundle of random weights; notes are hidden from one task, images from most."""
    spec = FeatureSpec(
        variables=load_variables(),
        treatments=(
            Treatment(
                name="norepinephrine",
                display="Norepinephrine",
                unit="ug/kg/min",
                units={"ng/kg/min": 0.001},
                units_per_weight={"mg/h": 1000 / 60},
                plausible=(0.0, 5.0),
                pattern="norepinephrine",
            ),
        ),
        spellings=load_spellings(),
        tokenizer_json=files("schemas").joinpath("tokenizer.json").read_text("utf-8"),
    )
    rng = np.random.default_rng(7)
    encoders = {
        "tabular": _tabular_graph(path, spec, rng),
        "series": _series_graph(path, spec, rng),
        "notes": _notes_graph(path, spec, rng),
        "image": _image_graph(path, spec, rng),
    }
    tasks, fusion = _fusion_graph(path, rng)
    (path / "tokenizer.json").write_text(spec.tokenizer_json, encoding="utf-8")
    (path / "MODEL_CARD.md").write_text("# A bundle made by hand\n\nRandom weights.\n")
    (path / "NOTICE").write_text("Random weights: nobody's data.\n")
    _write_golden(path, spec, encoders, fusion)
    manifest = Manifest(
        name="by-hand",
        version="0",
        created="2031-05-04T12:00:00Z",
        command="tests/service/conftest.py",
        tasks=tasks,
        spec=spec,
        encoders=encoders,
        fusion=fusion,
        trained_hours=(6.0, 48.0),
        cohorts=(
            Cohort(
                name="nobody",
                patients=0,
                samples=0,
                landmarks_hours=(24.0,),
                source="random numbers",
                digest="",
            ),
        ),
        golden_tolerance=1e-4,
        files={
            file.name: sha256(file.read_bytes())
            for file in sorted(path.iterdir())
            if file.name != "manifest.json"
        },
    )
    write_manifest(path, manifest)
    return path


def _save(
    path: Path,
    name: str,
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    inputs: tuple[Tensor, ...],
    outputs: tuple[Tensor, ...],
) -> Graph:
    types = {
        "float32": TensorProto.FLOAT,
        "int64": TensorProto.INT64,
        "uint8": TensorProto.UINT8,
        "bool": TensorProto.BOOL,
    }

    def infos(tensors: tuple[Tensor, ...]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(t.name, types[t.dtype], t.axes) for t in tensors]

    graph = helper.make_graph(
        nodes,
        name,
        infos(inputs),
        infos(outputs),
        [numpy_helper.from_array(value, key) for key, value in weights.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10, producer_name="by hand"
    )
    onnx.checker.check_model(model)
    onnx.save(model, path / f"{name}.onnx")
    return Graph(file=f"{name}.onnx", inputs=inputs, outputs=outputs)


EMBEDDING = (Tensor(name="embedding", dtype="float32", axes=("batch", WIDTH)),)


def _floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32)


def _known(source: str, target: str) -> list[onnx.NodeProto]:
    """Nodes that make NaN zero, and the size of a value small."""
    return [
        helper.make_node("IsNaN", [source], [f"{target}_nan"]),
        helper.make_node("Where", [f"{target}_nan", "zero", source], [f"{target}_known"]),
        helper.make_node("Div", [f"{target}_known", "hundred"], [f"{target}_scaled"]),
        helper.make_node("Tanh", [f"{target}_scaled"], [target]),
    ]


_CONSTANTS = {
    "zero": np.array(0, dtype=np.float32),
    "hundred": np.array(100, dtype=np.float32),
}


def _tabular_graph(path: Path, spec: FeatureSpec, rng: np.random.Generator) -> Graph:
    size = len(spec.tabular_names)
    return _save(
        path,
        "tabular",
        [*_known("values", "clean"), helper.make_node("MatMul", ["clean", "w"], ["embedding"])],
        _CONSTANTS | {"w": _floats(rng, size, WIDTH)},
        (Tensor(name="values", dtype="float32", axes=("batch", size)),),
        EMBEDDING,
    )


def _series_graph(path: Path, spec: FeatureSpec, rng: np.random.Generator) -> Graph:
    sizes = {
        "statistics": (len(spec.variables), len(STATISTICS)),
        "treatments": (len(spec.treatments), len(TREATMENT_FEATURES)),
    }
    nodes = []
    weights = dict(_CONSTANTS)
    for name, (rows, columns) in sizes.items():
        nodes += [
            *_known(name, f"{name}_clean"),
            helper.make_node("Flatten", [f"{name}_clean"], [f"{name}_flat"], axis=1),
            helper.make_node("MatMul", [f"{name}_flat", f"{name}_w"], [f"{name}_out"]),
        ]
        weights[f"{name}_w"] = _floats(rng, rows * columns, WIDTH)
    nodes.append(helper.make_node("Add", [f"{n}_out" for n in sizes], ["embedding"]))
    inputs = tuple(
        Tensor(name=name, dtype="float32", axes=("batch", *shape)) for name, shape in sizes.items()
    )
    return _save(path, "series", nodes, weights, inputs, EMBEDDING)


def _notes_graph(path: Path, spec: FeatureSpec, rng: np.random.Generator) -> Graph:
    table = rng.normal(size=(spec.tokenizer.get_vocab_size(), WIDTH)).astype(np.float32)
    table[0] = 0  # padding
    return _save(
        path,
        "notes",
        [
            helper.make_node("Gather", ["table", "tokens"], ["each"]),
            helper.make_node("ReduceSum", ["each", "axis"], ["total"], keepdims=0),
            helper.make_node("Tanh", ["total"], ["embedding"]),
        ],
        {"table": table, "axis": np.array([1], dtype=np.int64)},
        (Tensor(name="tokens", dtype="int64", axes=("batch", "length")),),
        EMBEDDING,
    )


def _image_graph(path: Path, spec: FeatureSpec, rng: np.random.Generator) -> Graph:
    side = spec.image_side
    return _save(
        path,
        "image",
        [
            helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["float", "axes"], ["mean"], keepdims=0),
            helper.make_node("Div", ["mean", "hundred"], ["scaled"]),
            helper.make_node("MatMul", ["scaled", "w"], ["embedding"]),
        ],
        {
            "axes": np.array([1, 2], dtype=np.int64),
            "hundred": _CONSTANTS["hundred"],
            "w": _floats(rng, side, WIDTH),
        },
        (Tensor(name="pixels", dtype="uint8", axes=("batch", 1, side, side)),),
        EMBEDDING,
    )


def _fusion_graph(path: Path, rng: np.random.Generator) -> tuple[tuple[TaskFacts, ...], Graph]:
    tasks = load_tasks()
    binary = [task for task in tasks if task.kind == "binary"]
    widths: dict[str, int] = {"binary": len(binary)}
    nodes = [
        helper.make_node("Cast", ["present"], ["present_float"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["present_float", "present_w"], ["z0"]),
        *(helper.make_node("Add", [f"z{i}", m], [f"z{i + 1}"]) for i, m in enumerate(MODALITIES)),
        helper.make_node("Tanh", ["z4"], ["z"]),
    ]
    weights = {"present_w": _floats(rng, len(MODALITIES), WIDTH)}
    facts = []
    for task in tasks:
        seen = tuple(
            m
            for m in MODALITIES
            if (m != "image" or task.name in ("pneumonia", "pleural_effusion", "heart_failure"))
            and (m != "notes" or task.name != "obesity")
        )
        output = "binary" if task.kind == "binary" else task.name
        facts.append(
            TaskFacts(
                task=task,
                output=output,
                column={"binary": None, "regression": 0}.get(task.kind)
                if task.kind != "binary"
                else binary.index(task),
                seen=seen,
                labels=dict.fromkeys(seen, 1000),
                positives=100 if task.kind == "binary" else None,
                prevalence=0.1 if task.kind == "binary" else None,
                abstains="too few patients with it" if task.name == "depression" else None,
            )
        )
        widths[output] = {
            "binary": len(binary),
            "regression": 1,
            "multiclass": len(task.classes),
            "clustering": 5,
        }[task.kind]
    end = {"binary": "Sigmoid", "regression": "Softplus"}
    kinds = {("binary" if t.kind == "binary" else t.name): t.kind for t in tasks}
    for name, width in widths.items():
        weights[f"{name}_w"] = _floats(rng, WIDTH, width)
        nodes += [
            helper.make_node("MatMul", ["z", f"{name}_w"], [f"{name}_logit"]),
            helper.make_node(end.get(kinds[name], "Softmax"), [f"{name}_logit"], [name]),
        ]
    count = len(tasks)
    weights |= {
        "attention_w": _floats(rng, WIDTH, count * count),
        "square": np.array([-1, count, count], dtype=np.int64),
    }
    nodes += [
        helper.make_node("MatMul", ["z", "attention_w"], ["attention_flat"]),
        helper.make_node("Reshape", ["attention_flat", "square"], ["attention_logit"]),
        helper.make_node("Softmax", ["attention_logit"], ["attention"], axis=-1),
    ]
    inputs = (
        *(Tensor(name=m, dtype="float32", axes=("batch", WIDTH)) for m in MODALITIES),
        Tensor(name="present", dtype="bool", axes=("batch", len(MODALITIES))),
    )
    outputs = (
        *(Tensor(name=n, dtype="float32", axes=("batch", w)) for n, w in widths.items()),
        Tensor(name="attention", dtype="float32", axes=("batch", count, count)),
    )
    return tuple(facts), _save(path, "fusion", nodes, weights, inputs, outputs)


def _write_golden(path: Path, spec: FeatureSpec, encoders: dict[str, Graph], fusion: Graph) -> None:
    """Answers by the plainest use of the graphs, one patient at a time."""
    whole = full_payload()
    requests = [
        whole,
        {"as_of": whole["as_of"], "tabular": whole["tabular"]},
        {"as_of": whole["as_of"], "notes": whole["notes"], "images": whole["images"]},
    ]

    def run(graph: Graph, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        names = [t.name for t in graph.outputs]
        return onnxruntime.InferenceSession(path / graph.file).run(names, feeds)

    lines = []
    for request in requests:
        arrays = features(as_payload(request), spec).arrays
        feeds = {m: np.zeros((1, WIDTH), np.float32) for m in MODALITIES}
        feeds["present"] = np.array([[m in arrays for m in MODALITIES]])
        for modality, found in arrays.items():
            feeds[modality] = run(encoders[modality], stack([found]))[0]
        rows = zip(fusion.outputs, run(fusion, feeds), strict=True)
        outputs = {tensor.name: row[0].tolist() for tensor, row in rows}
        lines.append(json.dumps({"request": request, "outputs": outputs}))
    (path / "golden.jsonl").write_text("\n".join(lines) + "\n")
