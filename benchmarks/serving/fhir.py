"""The cost of a FHIR Bundle, compared with the equal payload.

One process holds the service. A Bundle and the equal payload are sent in turn, so that both meet
the same load of the machine. The table shows the lowest CPU time of all rounds in milliseconds,
because other work on the machine only adds to it, the difference and the ratio: for reading alone,
and for the whole request without the network. Both predictions are without an explanation.

    python benchmarks/serving/fhir.py
"""

import argparse
import asyncio
import gc
import json
import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from starlette.types import ASGIApp, Message

from schemas.features import FeatureSpec
from schemas.fhir.reader import FhirReader
from schemas.payload import Payload, parse_payload
from schemas.variables import Variable
from service.http.app import create_app
from service.interop.fhir.request import FhirRequest
from service.runtime.bundle import Bundle
from service.runtime.engine import Engine
from service.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
AS_OF = datetime(2026, 11, 23, 10, tzinfo=UTC)
OBSERVATIONS = (10, 100, 1000)
VARIABLES = 40
HOURS = 47.0  # the observations are spread over this time
LIMIT_MS = 10.0  # for 1,000 observations
PATIENT = "urn:uuid:7f9f7b3e-5d0a-4a3c-9f7e-0c2a4b6d8e01"


def make_bundle(spec: FeatureSpec, count: int) -> bytes:
    """Returns a Bundle with `count` Observations as a FHIR server writes them."""
    draw = random.Random(count)
    variables = [v for v in spec.extended_variables if v.loinc and v.typical][:VARIABLES]
    resources = [
        _observation(k, variables[k % VARIABLES], HOURS * k / count, draw) for k in range(count)
    ]
    patient = {"resourceType": "Patient", "gender": "female", "birthDate": "1960-01-01"}
    entries = [{"fullUrl": PATIENT, "resource": patient}]
    entries += [{"fullUrl": f"urn:uuid:{r['id']}", "resource": r} for r in resources]
    head = {"resourceType": "Bundle", "type": "searchset", "timestamp": AS_OF.isoformat()}
    return json.dumps(head | {"entry": entries}, separators=(",", ":")).encode()


def _observation(k: int, variable: Variable, hours: float, draw: random.Random) -> dict:
    time_text = (AS_OF - timedelta(hours=hours)).replace(microsecond=0).isoformat()
    value = round(draw.uniform(*variable.typical), 2)
    laboratory = {
        "system": "http://terminology.hl7.org/CodeSystem/observation-category",
        "code": "laboratory",
    }
    code = {"system": "http://loinc.org", "code": variable.loinc[0], "display": variable.display}
    unit = {"unit": variable.unit, "system": "http://unitsofmeasure.org", "code": variable.unit}
    return {
        "resourceType": "Observation",
        "id": f"018f428e-34f6-4707-8009-{k:012}",
        "meta": {"versionId": "1", "lastUpdated": time_text},
        "status": "final",
        "category": [{"coding": [laboratory]}],
        "code": {"coding": [code], "text": variable.display},
        "subject": {"reference": PATIENT},
        "effectiveDateTime": time_text,
        "issued": time_text,
        "valueQuantity": {"value": value} | unit,
    }


def alternate(first: Callable[[], object], second: Callable[[], object], rounds: int) -> tuple:
    """Returns the lowest CPU time of each in milliseconds, called in turn."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for i in range(rounds + 2):
        for call, measured in zip((first, second), seconds, strict=True):
            began = time.process_time()
            call()
            if i >= 2:  # the first two calls fill caches
                measured.append(time.process_time() - began)
    return tuple(min(part) * 1000 for part in seconds)


async def status_of(app: ASGIApp, path: str, body: bytes, media_type: str) -> int:
    """Sends a request without a client and a network. Returns the status of the answer."""
    headers = {b"host": b"localhost", b"content-type": media_type.encode()}
    headers[b"content-length"] = str(len(body)).encode()
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"explain=none" if path == "/predict" else b"",
        "headers": [*headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "scheme": "http",
    }
    messages = [{"type": "http.request", "body": body}]
    statuses = []

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await asyncio.Event().wait()  # the client stays connected
        raise AssertionError

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await app(scope, receive, send)
    return statuses[0]


def rows(rounds: int, bundle_path: Path) -> Iterator[tuple[str, int, int, int, tuple]]:
    """Yields the kind of measurement, the number of observations, both sizes and both times."""
    engine = Engine(Bundle.load(bundle_path, "cpu", threads=1))
    engine.replay_golden()
    spec = engine.bundle.manifest.spec
    app = create_app(engine, Settings(bundle=bundle_path, log_level="error"))
    reader = FhirReader(spec)
    with asyncio.Runner() as runner:
        context = app.router.lifespan_context(app)
        runner.run(context.__aenter__())
        gc.collect()
        gc.freeze()  # as a worker does
        for count in OBSERVATIONS:
            bundle = make_bundle(spec, count)

            def read(body: bytes = bundle) -> Payload:
                return FhirRequest(reader, body, None, strict=False).to_payload()

            native = read().model_dump_json(exclude_unset=True).encode()

            def post(path: str, body: bytes, media_type: str) -> None:
                assert runner.run(status_of(app, path, body, media_type)) == 200

            reading = alternate(lambda n=native: parse_payload(n), read, rounds)
            yield "reading", count, len(native), len(bundle), reading
            request = alternate(
                lambda n=native: post("/predict", n, "application/json"),
                lambda b=bundle: post("/fhir/$predict", b, "application/fhir+json"),
                rounds,
            )
            yield "request", count, len(native), len(bundle), request
        runner.run(context.__aexit__(None, None, None))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=50, help="calls of each")
    parser.add_argument("--bundle", type=Path, default=ROOT / "bundles" / "m3h-open")
    arguments = parser.parse_args()
    times = "payload, ms | Bundle, ms | difference, ms | ratio"
    print(f"| measured | observations | payload, kB | Bundle, kB | {times} |")
    print(f"|{'---|' * 8}")
    failed = False
    for kind, count, short, long, (native, fhir) in rows(arguments.rounds, arguments.bundle):
        sizes = f"{short / 1000:.1f} | {long / 1000:.1f}"
        times = f"{native:.2f} | {fhir:.2f} | {fhir - native:.2f} | {fhir / native:.2f}"
        print(f"| {kind} | {count} | {sizes} | {times} |")
        failed = failed or (count == 1000 and fhir - native > LIMIT_MS)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
