"""Fixtures: one bundle, one engine and one app for all tests of the service."""

import base64
import copy
import io
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.http.app import create_app
from service.runtime.bundle import Bundle
from service.runtime.engine import Engine
from service.settings import Settings
from service.telemetry.logging import make_log
from tests.support.inputs import chest_xrays
from tests.support.servers import service_process

AS_OF = datetime(2031, 5, 4, 12, tzinfo=UTC)
MAX_BODY = 300_000


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


@pytest.fixture
def started(
    bundle_dir: Path, tmp_path: Path
) -> Iterator[Callable[..., tuple[subprocess.Popen[str], str]]]:
    """Starts `m3h-serve` on a free port. Returns the process and its URL."""
    processes = []

    def start(bundle: Path = bundle_dir, **environment: str) -> tuple[subprocess.Popen[str], str]:
        log = tmp_path / f"log-{len(processes)}.jsonl"
        process, url = service_process.start(bundle, log, **environment)
        processes.append(process)
        return process, url

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def running_process(
    bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`m3h-serve` with one worker and default settings, and its URL."""
    log = tmp_path_factory.mktemp("running") / "log.jsonl"
    process, url = service_process.start(bundle_dir, log, M3H_WORKERS="1", M3H_DRAIN_SECONDS="0")
    yield process, url
    process.terminate()
    process.communicate()


@pytest.fixture(scope="session")
def running(running_process: tuple[subprocess.Popen[str], str]) -> str:
    """The URL of `m3h-serve` with one worker and default settings."""
    return running_process[1]


@pytest.fixture
def other_version(changed_bundle) -> Callable[[str], Path]:
    def make(version: str) -> Path:
        def edit(manifest: dict[str, Any], _: Path) -> None:
            manifest["version"] = version

        return changed_bundle(edit)

    return make


@dataclass
class Service:
    """A running app and its log."""

    client: TestClient
    log: io.StringIO

    def predict(self, payload: Any, **parameters: str) -> dict[str, Any]:
        answer = self.client.post("/predict", json=payload, params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def written(self) -> str:
        """All text that outlives a request: the log and the metrics."""
        return self.log.getvalue() + self.client.get("/metrics").text


@pytest.fixture(scope="session")
def serve(settings: Settings) -> Iterator[Callable[..., Service]]:
    """Starts an app on an engine, with changed settings."""
    clients: list[TestClient] = []

    def start(engine: Engine, traces: Any = None, **changed: Any) -> Service:
        log = io.StringIO()
        changed_settings = settings.model_copy(update=changed)
        client = TestClient(
            create_app(engine, changed_settings, make_log("debug", log), traces=traces)
        )
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
        "images": [{"time": ago(6), "media_type": "image/png", "data": png(96, 80)}],
    }


def png(width: int, height: int) -> str:
    return base64.b64encode(chest_xrays.encoded(chest_xrays.xray((width, height)))).decode()
