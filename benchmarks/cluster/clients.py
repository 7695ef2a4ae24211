"""Open-loop clients of the cluster, which compare each answer with the expected one."""

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson

from model.cohorts import synthetic
from schemas.payload import Payload

PATIENTS = 50
# Each patient is sent with the last vital sign multiplied by each factor.
FACTORS = (1.0, 0.9, 1.1)
TOLERANCE = 1e-6
# `unusual` is a rank among patients: rounding, which depends on the batch, can change it.
FIELD_TOLERANCES = {"unusual": 1e-4}
TIMEOUT = 30  # seconds

Answer = dict[str, Any]


def bodies(examples: Path) -> list[bytes]:
    """Returns request bodies: the examples, and synthetic patients in several versions."""
    contents = [path.read_bytes() for path in sorted(examples.glob("*.json"))]
    for record in synthetic.patients(PATIENTS, seed=7):
        for factor in FACTORS if record.payload.series else FACTORS[:1]:
            changed = _scaled(record.payload, factor)
            text = changed.model_dump_json(exclude_none=True, exclude_defaults=True)
            contents.append(text.encode())
    return contents


def _scaled(patient: Payload, factor: float) -> Payload:
    if factor == 1:
        return patient
    first, *others = patient.series
    *earlier, last = first.values
    changed = first.model_copy(update={"values": [*earlier, last * factor]})
    return patient.model_copy(update={"series": [changed, *others]})


@dataclass
class Request:
    """A request and its result.

    `due`: monotonic time; `seconds`: latency from `due` to the last byte of the answer. `fault`:
    the reason of a missing answer; `wrong`: the first difference from the expected answer.
    """

    id: str
    due: float
    seconds: float = 0.0
    fault: str = ""
    wrong: str = ""


class Clients:
    """Sends requests at a rate.

    `expected`: the answers to the bodies, in order, by the digest of each served bundle. `window`:
    collects the requests; the reader replaces the list to start a new window.
    """

    def __init__(
        self, url: str, bodies: Sequence[bytes], expected: dict[str, list[Answer]], rate: float
    ) -> None:
        self.expected = expected
        self.window: list[asyncio.Task[Request]] = []
        self.rate = rate
        self._url, self._bodies = url, bodies
        self._ids: set[str] = set()

    async def run(self) -> None:
        """Sends Poisson arrivals until cancelled."""
        draw = np.random.default_rng(0)
        # No connection is reused: HAProxy expects the client of a reused connection to retry.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        due = time.monotonic()
        async with httpx.AsyncClient(
            base_url=self._url, timeout=TIMEOUT, limits=limits, trust_env=False
        ) as client:
            for number in itertools.count():
                due += draw.exponential(1 / self.rate)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                index = int(draw.integers(len(self._bodies)))
                request = Request(f"caller-{number}", due)
                self.window.append(asyncio.create_task(self._send(client, index, request)))

    async def _send(self, client: httpx.AsyncClient, index: int, request: Request) -> Request:
        headers = {"Content-Type": "application/json", "X-Request-ID": request.id}
        try:
            response = await client.post("/predict", content=self._bodies[index], headers=headers)
        except httpx.HTTPError as error:
            request.fault = type(error).__name__
            return request
        finally:
            request.seconds = time.monotonic() - request.due
        if response.status_code != 200:
            request.fault = f"{response.status_code} {' '.join(response.text.split())[:100]}"
        elif response.headers["x-request-id"] != request.id:
            request.wrong = "the answer to another request: X-Request-ID"
        else:
            request.wrong = self._wrong(index, orjson.loads(response.content))
        return request

    def _wrong(self, index: int, answer: Answer) -> str:
        if answer["id"] in self._ids:
            return "repeats the id of another answer: /id"
        self._ids.add(answer["id"])
        expected = self.expected.get(answer["model"]["digest"])
        if expected is None:
            return "answer of a bundle that is not served: /model/digest"
        return next(differences(reproducible_part(answer), expected[index]), "")


def reproducible_part(answer: Answer) -> Answer:
    """Returns the fields that are equal whenever the request is repeated."""
    return {name: part for name, part in answer.items() if name not in ("id", "timing_ms")}


def differences(
    actual: Any, expected: Any, pointer: str = "", tolerance: float = TOLERANCE
) -> Iterator[str]:
    """Yields JSON Pointers of differing values; the tolerance is relative for numbers above 1."""
    if actual == expected:
        return
    if isinstance(actual, dict) and isinstance(expected, dict) and actual.keys() == expected.keys():
        for name in actual:
            limit = FIELD_TOLERANCES.get(name, tolerance)
            yield from differences(actual[name], expected[name], f"{pointer}/{name}", limit)
    elif isinstance(actual, list) and isinstance(expected, list) and len(actual) == len(expected):
        for index, (a, b) in enumerate(zip(actual, expected, strict=True)):
            yield from differences(a, b, f"{pointer}/{index}", tolerance)
    elif isinstance(actual, float) and isinstance(expected, float):
        if not abs(actual - expected) <= tolerance * max(1.0, abs(expected)):
            yield f"{pointer}: {actual} instead of {expected}"
    else:
        yield pointer
